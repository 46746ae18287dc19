//! A body becomes a change, or a reason why not.

use bytes::Bytes;
use clerk_sync_pipeline::{
    Event, EventId, EventType, Millis,
    queue::{Failure, MAX_ERROR_DETAIL, Reason},
};
use clerk_sync_projection::{
    MissingEmail,
    change::{Change, Read, Rules, read},
    user::{MAX_INDEXED_TEXT, Snapshot},
};
use serde_json::json;

/// The longest text that a B-tree of PostgreSQL indexes, in bytes.
const BTREE: usize = 2704;
/// The first and the last moment of a four-digit year, in milliseconds.
const YEARS: std::ops::RangeInclusive<i64> = 0..=253_402_300_799_999;

/// The input is a body, and the `data` of an event of each type that is projected.
///
/// Whatever it is: reading it again gives the same; a change holds only what both databases store
/// and index; a reason is short; and a user that was read is read from what was read of him.
pub fn payload(input: &[u8]) {
    whole(input);
    for kind in [
        "user.created",
        "user.updated",
        "user.deleted",
        "session.created",
    ] {
        let head = format!(r#"{{"type":"{kind}","timestamp":1780000000007,"data":"#);
        let body = [head.as_bytes(), input, b"}"].concat();
        whole(&body);
        if kind == "session.created" {
            let user = [head.as_bytes(), br#"{"user":"#, input, b"}}"].concat();
            whole(&user);
        }
    }
}

fn whole(body: &[u8]) {
    let rules = |missing_email| Rules {
        missing_email,
        instance_id: None,
    };
    let strict = once(body, &rules(MissingEmail::DeadLetter));
    let again = read(&event(body), &rules(MissingEmail::DeadLetter));
    assert_eq!(strict, again, "the same again");
    let lenient = once(body, &rules(MissingEmail::Placeholder));
    match (&strict, &lenient) {
        (Ok(strict), Ok(lenient)) if strict.lacks_email() => {
            assert!(!lenient.lacks_email(), "a placeholder");
            assert_eq!(strict.clerk_id(), lenient.clerk_id());
        }
        // The rule is about users without an address and nobody else.
        _ => assert_eq!(strict, lenient),
    }
    let elsewhere = Rules {
        instance_id: Some("ins_elsewhere".to_owned()),
        ..Rules::default()
    };
    // Of this instance, of none, or refused as another's: nothing in between.
    match once(body, &elsewhere) {
        Err(failure) if failure.reason == Reason::WrongInstance => {}
        other => assert_eq!(other, strict),
    }
}

fn once(body: &[u8], rules: &Rules) -> Result<Read, Failure> {
    let event = event(body);
    let result = read(&event, rules);
    match &result {
        Ok(found) => change(&found.change, &event.id),
        Err(failure) => {
            assert!(!failure.detail.is_empty() && failure.detail.len() <= MAX_ERROR_DETAIL);
            assert!(!failure.detail.contains(['\n', '\0']), "one line");
        }
    }
    result
}

fn change(change: &Change, event_id: &EventId) {
    match change {
        Change::Upsert(snapshot, version) => {
            assert_eq!(version.event_id, Some(event_id.clone()));
            assert_eq!(
                snapshot.updated_at.and_utc().timestamp_millis(),
                version.updated_at.0
            );
            bounded(snapshot);
            again(snapshot);
        }
        Change::Delete { clerk_id } => indexed(clerk_id, MAX_INDEXED_TEXT),
        Change::Ignore => {}
    }
}

fn bounded(snapshot: &Snapshot) {
    indexed(&snapshot.clerk_id, MAX_INDEXED_TEXT);
    if let Some(email) = &snapshot.email {
        // The placeholder of the longest id, too.
        indexed(email, MAX_INDEXED_TEXT + "@no-email.invalid".len());
    }
    for text in [&snapshot.name, &snapshot.image_url].into_iter().flatten() {
        assert!(!text.contains('\0'), "no NUL");
    }
    assert!(snapshot.name.as_deref() != Some(""), "absent, not empty");
    for time in [snapshot.created_at, snapshot.updated_at] {
        assert!(YEARS.contains(&time.and_utc().timestamp_millis()));
    }
}

fn indexed(text: &str, most: usize) {
    assert!((1..=most).contains(&text.len()) && most < BTREE);
    assert!(!text.contains('\0'), "no NUL");
}

/// What was read of a user, told as Clerk tells it, is read as the same.
fn again(snapshot: &Snapshot) {
    let addresses: Vec<_> = snapshot
        .email
        .iter()
        .filter(|email| email.len() <= MAX_INDEXED_TEXT)
        .map(|email| json!({ "id": "idn_1", "email_address": email }))
        .collect();
    if addresses.len() < usize::from(snapshot.email.is_some()) {
        return;
    }
    let told = json!({
        "type": "user.updated",
        "data": {
            "id": snapshot.clerk_id,
            "first_name": snapshot.name,
            "image_url": snapshot.image_url,
            "primary_email_address_id": "idn_1",
            "email_addresses": addresses,
            "created_at": snapshot.created_at.and_utc().timestamp_millis(),
            "updated_at": snapshot.updated_at.and_utc().timestamp_millis(),
        },
    });
    let found = read(&event(told.to_string().as_bytes()), &Rules::default());
    match found.map(|found| found.change) {
        Ok(Change::Upsert(found, _)) => assert_eq!(*found, *snapshot),
        other => panic!("not read again: {other:?}"),
    }
}

fn event(body: &[u8]) -> Event {
    Event {
        id: EventId::parse("msg_1").expect("letters and digits"),
        event_type: EventType::unparsable(),
        received_at: Millis(0),
        attempted_at: 0,
        traceparent: None,
        body: Bytes::copy_from_slice(body),
    }
}
