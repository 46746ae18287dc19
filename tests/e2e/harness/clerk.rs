//! Clerk's sender, made of other parts than the product's: HMAC and base64 by hand.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures_util::{StreamExt as _, stream};
use hmac::{Hmac, Mac as _};
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use reqwest::Client;
use serde_json::{Value, json};
use sha2::Sha256;

pub(crate) const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// A signed request to be.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) id: String,
    pub(crate) body: Vec<u8>,
}

impl Letter {
    pub(crate) fn new(body: impl Into<Vec<u8>>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            id: format!("msg_{number:010}_{:08x}", rand::random::<u32>()),
            body: body.into(),
        }
    }

    /// The body, if it is text: nothing else is ever signed.
    pub(crate) fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.body).ok()
    }
}

pub(crate) fn sign(id: &str, timestamp: i64, body: &[u8]) -> String {
    let key = BASE64_STANDARD
        .decode(SECRET.trim_start_matches("whsec_"))
        .unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

pub(crate) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

pub(crate) fn client() -> Client {
    Client::builder()
        .timeout(Duration::from_secs(15))
        .build()
        .unwrap()
}

/// Posts once; the status, or 0 when there was no answer.
pub(crate) async fn post(client: &Client, url: &str, letter: &Letter) -> u16 {
    post_as_of(client, url, letter, now()).await.0
}

/// The same, signed as of another second, with the body of the answer or what kept it.
pub(crate) async fn post_as_of(
    client: &Client,
    url: &str,
    letter: &Letter,
    at: i64,
) -> (u16, String) {
    let response = client
        .post(url)
        .header("svix-id", &letter.id)
        .header("svix-timestamp", at)
        .header("svix-signature", sign(&letter.id, at, &letter.body))
        .body(letter.body.clone())
        .send()
        .await;
    match response {
        Ok(response) => {
            let status = response.status().as_u16();
            (status, response.text().await.unwrap_or_default())
        }
        Err(error) => (0, error.to_string()),
    }
}

/// Posts until it is taken, as Svix does, only sooner. Returns how often it took.
pub(crate) async fn deliver(client: &Client, url: &str, letter: &Letter) -> usize {
    for tries in 1..400 {
        match post(client, url, letter).await {
            204 => return tries,
            0 | 503 => tokio::time::sleep(Duration::from_millis(100)).await,
            status => panic!("{} was answered {status}", letter.id),
        }
    }
    panic!(
        "{} was never taken, the last answer was {}",
        letter.id,
        post(client, url, letter).await
    )
}

/// Delivers all, some at a time.
pub(crate) async fn deliver_all(url: &str, letters: &[Letter]) {
    let client = client();
    stream::iter(letters)
        .for_each_concurrent(16, |letter| {
            let client = &client;
            async move {
                deliver(client, url, letter).await;
            }
        })
        .await;
}

/// The samples, by file.
pub(crate) fn fixtures() -> Vec<Letter> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/clerk");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let json = |path: &std::path::PathBuf| path.extension().is_some_and(|ext| ext == "json");
    paths
        .iter()
        .filter(|path| json(path))
        .map(|path| Letter::new(std::fs::read(path).unwrap()))
        .collect()
}

pub(crate) fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!(
        "{}/fixtures/clerk/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    ))
    .unwrap()
}

/// In an order of its own for each seed, some of them twice.
pub(crate) fn shuffled(letters: &[Letter], seed: u64) -> Vec<Letter> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut all = letters.to_vec();
    all.extend(letters.iter().step_by(3).cloned());
    all.shuffle(&mut random);
    all
}

/// A user as Clerk sends it, at version `updated_at`.
pub(crate) fn user(id: &str, email: &str, updated_at: i64) -> Value {
    json!({
        "id": id, "object": "user", "first_name": "U", "last_name": format!("{updated_at}"),
        "image_url": "https://img.clerk.com/x", "primary_email_address_id": "idn_1",
        "email_addresses": [{
            "id": "idn_1", "email_address": email, "verification": { "status": "verified" },
        }],
        "created_at": 1_780_000_000_000_i64, "updated_at": 1_780_000_000_000_i64 + updated_at,
    })
}

pub(crate) fn event(event_type: &str, data: &Value) -> Letter {
    let at = data["updated_at"].as_i64().unwrap_or(1_790_000_000_000);
    let body = json!({
        "type": event_type, "object": "event", "data": data, "timestamp": at + 7,
        "instance_id": "ins_test",
    });
    Letter::new(body.to_string())
}

pub(crate) fn created(id: &str, email: &str) -> Letter {
    event("user.created", &user(id, email, 0))
}

pub(crate) fn updated(id: &str, email: &str, updated_at: i64) -> Letter {
    event("user.updated", &user(id, email, updated_at))
}

pub(crate) fn deleted(id: &str) -> Letter {
    event(
        "user.deleted",
        &json!({ "id": id, "object": "user", "deleted": true }),
    )
}
