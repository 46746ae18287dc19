//! The simulator, looked at from outside: what it sends is read back from the bytes alone.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers panic as the tests that call them would"
)]

mod coverage;
mod history;
mod oracle;

use clerk_sync_simulator::{Event, History, Plan};
use serde_json::Value;

/// Small histories and larger ones, of so many seeds.
fn histories(seeds: u64) -> impl Iterator<Item = History> {
    let plan = |seed| Plan {
        seed,
        users: usize::try_from(seed % 7).unwrap() + 1,
        rounds: usize::try_from(seed % 5).unwrap() * 2,
    };
    (0..seeds).map(move |seed| plan(seed).live())
}

fn body(event: &Event) -> Value {
    serde_json::from_slice(&event.body).unwrap()
}

/// The user that an event carries whole.
fn user(body: &Value) -> Option<&Value> {
    let data = &body["data"];
    match body["type"].as_str().unwrap() {
        "user.created" | "user.updated" => Some(data),
        session if session.starts_with("session.") => Some(&data["user"]).filter(|u| !u.is_null()),
        _ => None,
    }
}

/// The addresses of a user, by their own ids.
fn addresses(user: &Value) -> impl Iterator<Item = (&str, &str)> {
    let addresses = user["email_addresses"].as_array().unwrap().iter();
    addresses.map(|one| {
        (
            one["id"].as_str().unwrap(),
            one["email_address"].as_str().unwrap(),
        )
    })
}

/// The envelope's `timestamp`, in milliseconds.
fn sent_at(body: &Value) -> i64 {
    match body["timestamp"].as_i64().unwrap() {
        seconds if seconds < 100_000_000_000 => seconds * 1_000,
        millis => millis,
    }
}
