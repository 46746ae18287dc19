//! What must be true of every history: it is reproducible, well formed, in order, and an address
//! has one owner.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use clerk_sync_simulator::{Addressless, Plan};
use serde_json::Value;

use crate::{addresses, body, histories, sent_at, user};

#[test]
fn the_same_plan_is_lived_to_the_same_bytes() {
    let plan = |seed| Plan {
        seed,
        users: 20,
        rounds: 5,
    };
    let bytes = |seed| {
        let events = plan(seed).live().events.into_iter();
        events
            .map(|event| (event.id, event.body))
            .collect::<Vec<_>>()
    };
    assert_eq!(bytes(17), bytes(17));
    assert_ne!(bytes(17), bytes(18));
}

#[test]
fn every_body_has_the_fields_of_real_deliveries() {
    let fixture = |name: &str| -> Value {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/clerk");
        serde_json::from_slice(&std::fs::read(format!("{folder}/{name}.json")).unwrap()).unwrap()
    };
    let mut samples = HashMap::new();
    for (event_type, name) in [
        ("user.created", "user_updated_email_changed"),
        ("user.updated", "user_updated_email_changed"),
        ("organization.created", "organization_created"),
    ] {
        samples.insert(event_type, fixture(name));
    }
    let mut deletes = BTreeSet::new();
    let plain = [
        fixture("user_deleted"),
        fixture("user_deleted_with_external_id"),
    ];
    let session = fixture("session_created");
    for event in histories(100).flat_map(|history| history.events) {
        let body = body(&event);
        assert_eq!(body["type"], event.event_type);
        match event.event_type {
            "user.deleted" => {
                let alike = plain
                    .iter()
                    .position(|sample| keys(&body["data"]) == keys(&sample["data"]));
                deletes.insert(alike.unwrap());
            }
            "userPasskey.enrolled" => assert!(body["data"]["user_id"].is_string()),
            kind if kind.starts_with("session.") => {
                let expected = keys(&session["data"]);
                let mut found = keys(&body["data"]);
                found.insert("latest_activity"); // optional, and of no interest
                assert_eq!(found, expected);
            }
            kind => {
                let mut found = keys(&body["data"]);
                if kind == "organization.created" {
                    found.insert("created_by"); // optional
                }
                assert_eq!(found, keys(&samples[kind]["data"]), "{kind}");
            }
        }
        if let Some(user) = user(&body) {
            assert_eq!(keys(user), keys(&session["data"]["user"]));
            for address in user["email_addresses"].as_array().unwrap() {
                let sample = &session["data"]["user"]["email_addresses"][0];
                assert_eq!(keys(address), keys(sample));
            }
        }
        let mut envelope = keys(&body);
        assert!(envelope.remove("timestamp"), "{envelope:?}");
        let expected = ["data", "event_attributes", "instance_id", "object", "type"];
        assert!(envelope.into_iter().eq(expected));
    }
    assert_eq!(deletes.len(), 2, "with and without external_id");
}

fn keys(object: &Value) -> BTreeSet<&str> {
    object
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[test]
fn an_address_has_one_owner_at_every_moment() {
    for history in histories(300) {
        let mut owned: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut deleted = HashSet::new();
        for event in &history.events {
            let body = body(event);
            let clerk_id = event.clerk_id.clone().unwrap_or_default();
            if event.event_type == "user.deleted" {
                owned.remove(&clerk_id);
                deleted.insert(clerk_id);
                continue;
            }
            let Some(user) = user(&body).filter(|_| !deleted.contains(&clerk_id)) else {
                continue;
            };
            assert_eq!(user["id"], *clerk_id);
            let emails = addresses(user).map(|(_, email)| email.to_owned());
            let emails: BTreeSet<String> = emails.collect();
            for (other, theirs) in &owned {
                assert!(
                    *other == clerk_id || theirs.is_disjoint(&emails),
                    "{other} and {clerk_id} share an address after {event:?}\n{history:?}"
                );
            }
            owned.insert(clerk_id, emails);
        }
    }
}

/// What makes the oracle's "last" the receiver's "newest": of one user, and of all that ever had
/// one address, no event is older than one before it.
#[test]
fn ids_and_versions_ascend_in_the_order_of_the_events() {
    for history in histories(300) {
        assert!(history.events.is_sorted_by(|a, b| a.id < b.id));
        let mut newest: HashMap<String, (i64, i64, &str)> = HashMap::new();
        let mut sent = 0;
        for event in &history.events {
            let body = body(event);
            assert!(sent <= sent_at(&body));
            sent = sent_at(&body);
            assert_eq!(event.occurred_at(), sent);
            let Some(user) = user(&body) else { continue };
            let updated_at = user["updated_at"].as_i64().unwrap();
            assert_eq!(event.updated_at(), Some(updated_at));
            let version = (updated_at, sent, event.id.as_str());
            let mut subjects = vec![user["id"].as_str().unwrap()];
            let alive = !history.deleted().contains(subjects[0]);
            subjects.extend(addresses(user).map(|(_, email)| email).filter(|_| alive));
            for subject in subjects {
                let before = newest.insert(subject.to_owned(), version);
                assert!(before < Some(version), "{subject}: {history:?}");
            }
        }
    }
}

#[test]
fn any_of_its_events_can_be_left_out() {
    let whole = histories(40).last().unwrap();
    let first_ten = whole.clone().only(|index| index < 10);
    assert_eq!(first_ten.events, whole.events[..10]);
    let users = first_ten
        .events
        .iter()
        .filter_map(|event| event.clerk_id.as_ref());
    let users: BTreeSet<&String> = users.collect();
    let rows = first_ten.table(Addressless::Placeholder).len();
    assert_eq!(rows + first_ten.deleted().len(), users.len());
}
