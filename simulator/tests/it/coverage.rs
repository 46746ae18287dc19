//! Everything that a history is there for does happen.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use clerk_sync_simulator::{
    Addressless,
    Change::{self, *},
    Email,
};

use crate::{addresses, body, histories, user};

const CHANGES: [Change; 16] = [
    SignUp,
    SignUpWithSeveralAddresses,
    SignUpWithoutAddress,
    SignUpAgain,
    ProfileEdit,
    MetadataEdit,
    Burst,
    AddressMoved,
    AddressesSwapped,
    AddressTakenOver,
    PrimaryDangling,
    AddressRemoved,
    SignIn,
    SessionWithoutUser,
    Deletion,
    OtherFamily,
];

#[test]
fn every_kind_of_change_happens_within_50_seeds() {
    let mut seen: BTreeMap<Change, usize> = BTreeMap::new();
    let mut types = BTreeSet::new();
    for history in histories(50) {
        types.extend(history.events_by_type().into_keys());
        for (change, times) in history.changes {
            *seen.entry(change).or_default() += times;
        }
    }
    assert!(seen.keys().eq(CHANGES.iter()), "{seen:?}");
    let expected = [
        "organization.created",
        "session.created",
        "session.ended",
        "session.pending",
        "session.removed",
        "session.revoked",
        "user.created",
        "user.deleted",
        "user.updated",
        "userPasskey.enrolled",
    ];
    assert!(types.iter().eq(&expected), "{types:?}");
}

/// What no kind of change is named after, by the words for it below.
#[test]
fn every_hard_case_happens_within_100_seeds() {
    let mut seen = BTreeSet::new();
    for history in histories(100) {
        let mut last: BTreeMap<String, (i64, i64)> = BTreeMap::new();
        let mut owners: BTreeMap<String, HashSet<String>> = BTreeMap::new();
        let mut gone = HashSet::new();
        for event in &history.events {
            let body = body(event);
            let seconds = body["timestamp"].as_i64().unwrap() < 100_000_000_000;
            seen.insert(if seconds { "seconds" } else { "milliseconds" });
            if event.event_type == "user.deleted" {
                gone.insert(event.clerk_id.clone());
            }
            let Some(user) = user(&body) else { continue };
            if gone.contains(&event.clerk_id) {
                seen.insert("a deleted user in a late event");
            }
            let clerk_id = user["id"].as_str().unwrap().to_owned();
            let version = (user["updated_at"].as_i64().unwrap(), event.occurred_at());
            match last.insert(clerk_id.clone(), version) {
                Some(before) if before == version => seen.insert("only the id is newer"),
                Some(before) if before.0 == version.0 => seen.insert("only the envelope is newer"),
                _ => false,
            };
            let primary = user["primary_email_address_id"].as_str();
            let mut place = addresses(user).enumerate();
            match place.find(|(_, (id, _))| Some(*id) == primary) {
                Some((0, _)) | None => {}
                Some(_) => drop(seen.insert("the primary address is not the first")),
            }
            for (_, email) in addresses(user) {
                owners
                    .entry(email.to_owned())
                    .or_default()
                    .insert(clerk_id.clone());
            }
            for (what, name) in [("first", "first_name"), ("last", "last_name")] {
                match user[name].as_str() {
                    None if what == "first" => seen.insert("no first name"),
                    None => seen.insert("no last name"),
                    Some("") => seen.insert("an empty name"),
                    Some(name) if !name.is_ascii() => seen.insert("a name beyond ASCII"),
                    Some(_) => false,
                };
            }
        }
        if owners.values().any(|owners| owners.len() > 2) {
            seen.insert("an address with three owners, one after the other");
        }
        let rows = history.table(Addressless::DeadLetter);
        for row in &rows {
            let placeholder = |email: &String| email.ends_with("@reassigned.invalid");
            match &row.email {
                Email::OneOf(_) => seen.insert("an address that depends on the order"),
                Email::Is(email) if placeholder(email) => seen.insert("an address lost for sure"),
                Email::Is(_) => false,
            };
        }
        if rows.len() < history.table(Addressless::Placeholder).len() {
            seen.insert("a user without a row");
        }
        let letters = history.dead_letters();
        if !letters.must.is_empty() {
            seen.insert("a dead letter");
        }
        if !letters.may.is_empty() {
            seen.insert("a dead letter that depends on the order");
        }
    }
    let expected = [
        "a dead letter",
        "a dead letter that depends on the order",
        "a deleted user in a late event",
        "a name beyond ASCII",
        "a user without a row",
        "an address lost for sure",
        "an address that depends on the order",
        "an address with three owners, one after the other",
        "an empty name",
        "milliseconds",
        "no first name",
        "no last name",
        "only the envelope is newer",
        "only the id is newer",
        "seconds",
        "the primary address is not the first",
    ];
    assert!(seen.iter().eq(&expected), "{seen:?}");
}
