//! Events as Clerk sends them.

use bytes::Bytes;
use chrono::{DateTime, NaiveDateTime};
use clerk_sync_pipeline::{Event, EventId, EventType, Millis};
use serde_json::{Value, json};

use crate::database::{Held, Row};

/// Where the tests' time begins: 2026-06-01, in milliseconds.
pub(crate) const START: i64 = 1_780_272_000_000;
/// What Clerk takes from a change to its event, in milliseconds.
const SENT_AFTER: i64 = 18;

/// A user at one moment, as Clerk knows it.
#[derive(Clone, Debug)]
pub(crate) struct User {
    data: Value,
    sent_at: i64,
}

/// `user_<name>` with the address `<name>@a.example`, at the tests' first second.
pub(crate) fn user(name: &str) -> User {
    let data = json!({
        "id": format!("user_{name}"),
        "object": "user",
        "first_name": "Secret",
        "last_name": name,
        "image_url": format!("https://img.clerk.example/{name}"),
        "has_image": false,
        "username": null,
        "phone_numbers": [],
        "external_accounts": [],
        "public_metadata": { "plan": "studio" },
        "created_at": START,
    });
    let user = User { data, sent_at: 0 };
    user.email(&format!("{name}@a.example")).at(0)
}

impl User {
    pub(crate) fn id(&self) -> &str {
        self.data["id"].as_str().unwrap()
    }

    /// Moves to another primary address. An older one stays in front of it in the list.
    pub(crate) fn email(self, email: &str) -> Self {
        let addresses = json!([
            {
                "id": "idn_old", "object": "email_address", "linked_to": [],
                "email_address": format!("old.{email}"),
                "verification": { "status": "verified", "strategy": "email_code" },
            },
            {
                "id": "idn_primary", "object": "email_address", "linked_to": [],
                "email_address": email,
                "verification": { "status": "verified", "strategy": "email_code" },
            },
        ]);
        self.with("email_addresses", addresses)
            .with("primary_email_address_id", "idn_primary".into())
    }

    pub(crate) fn without_email(self) -> Self {
        self.with("email_addresses", json!([]))
            .with("primary_email_address_id", Value::Null)
    }

    pub(crate) fn named(self, last_name: &str) -> Self {
        self.with("last_name", last_name.into())
    }

    /// Last changed this many seconds into the test, and sent right after that.
    pub(crate) fn at(self, seconds: i64) -> Self {
        let millis = START + seconds * 1000;
        self.changed_at(millis).sent_at(millis + SENT_AFTER)
    }

    /// `data.updated_at`.
    pub(crate) fn changed_at(self, millis: i64) -> Self {
        self.with("updated_at", millis.into())
    }

    /// The envelope's `timestamp`.
    pub(crate) fn sent_at(mut self, timestamp: i64) -> Self {
        self.sent_at = timestamp;
        self
    }

    /// Any field of the user.
    pub(crate) fn with(mut self, field: &str, value: Value) -> Self {
        self.data[field] = value;
        self
    }

    pub(crate) fn created(&self, event_id: &str) -> Event {
        self.event(event_id, "user.created", &self.data)
    }

    pub(crate) fn updated(&self, event_id: &str) -> Event {
        self.event(event_id, "user.updated", &self.data)
    }

    /// `session.created`, which carries its user.
    pub(crate) fn signed_in(&self, event_id: &str) -> Event {
        let session = json!({
            "id": format!("sess_{event_id}"),
            "object": "session",
            "status": "active",
            "user_id": self.id(),
            "updated_at": START - 1,
            "user": self.data,
        });
        self.event(event_id, "session.created", &session)
    }

    /// `user.deleted`, which knows little more than the id.
    pub(crate) fn deleted(&self, event_id: &str) -> Event {
        let deleted = json!({ "id": self.id(), "object": "user", "deleted": true });
        self.event(event_id, "user.deleted", &deleted)
    }

    fn event(&self, event_id: &str, event_type: &str, data: &Value) -> Event {
        let body = json!({
            "data": data,
            "event_attributes": { "http_request": { "client_ip": "198.51.100.23" } },
            "instance_id": "ins_37dGaoGwOSfyBmSM0pBr10zx7PA",
            "object": "event",
            "timestamp": self.sent_at,
            "type": event_type,
        });
        event(event_id, event_type, body.to_string().into_bytes())
    }

    /// The user alone, as the Backend API gives it.
    pub(crate) fn json(&self) -> Vec<u8> {
        self.data.to_string().into_bytes()
    }

    /// The row that this snapshot makes.
    pub(crate) fn row(&self) -> Row {
        let text = |field: &str| self.data[field].as_str().map(str::to_owned);
        let time = |field: &str| time(self.data[field].as_i64().unwrap());
        let names = [text("first_name"), text("last_name")];
        let names: Vec<String> = names.into_iter().flatten().collect();
        let email = &self.data["email_addresses"][1]["email_address"];
        Row {
            clerk_id: self.id().to_owned(),
            email: match email.as_str() {
                Some(email) => email.to_owned(),
                None => format!("{}@no-email.invalid", self.id()),
            },
            name: (!names.is_empty()).then(|| names.join(" ")),
            image_url: text("image_url"),
            created_at: time("created_at"),
            updated_at: time("updated_at"),
        }
    }

    /// The version of this snapshot, sent as `event_id`.
    pub(crate) fn version(&self, event_id: &str) -> Held {
        let updated_at = self.data["updated_at"].as_i64().unwrap();
        Held::Version(updated_at, self.sent_at, event_id.to_owned())
    }
}

/// An event with any body.
pub(crate) fn event(event_id: &str, event_type: &str, body: impl Into<Bytes>) -> Event {
    Event {
        id: EventId::parse(event_id).unwrap(),
        event_type: EventType::parse(event_type).unwrap(),
        received_at: Millis::now(),
        attempted_at: Millis::now().0 / 1000,
        traceparent: None,
        body: body.into(),
    }
}

/// All request bodies of `tests/fixtures/clerk`, each as an event whose id is the file's name.
pub(crate) fn fixtures() -> Vec<Event> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/clerk");
    let mut events = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|is| is == "json") {
            let body = std::fs::read(&path).unwrap();
            let json: Value = serde_json::from_slice(&body).unwrap();
            let name = path.file_stem().unwrap().to_str().unwrap();
            events.push(event(name, json["type"].as_str().unwrap(), body));
        }
    }
    events
}

fn time(millis: i64) -> NaiveDateTime {
    DateTime::from_timestamp_millis(millis).unwrap().naive_utc()
}
