//! A user whom nobody is, and the two events about it.

use clerk_sync_entity::{processed_events, user_versions};
use clerk_sync_pipeline::Millis;
use serde_json::{Value, json};

/// The event that makes the row.
pub(super) const CREATED: &str = "user.created";
/// The event that takes it away.
pub(super) const DELETED: &str = "user.deleted";

/// A user of one probe. Ids are used once, as Clerk's: a delete is final.
pub(super) struct MadeUp {
    /// `user_clerk_sync_…`
    pub(super) id: String,
    unique: String,
    /// When it was made up.
    at: i64,
}

/// An event about it.
pub(super) struct Event {
    /// `msg_clerk_sync_…`
    pub(super) id: String,
    pub(super) kind: &'static str,
    pub(super) body: String,
}

impl MadeUp {
    pub(super) fn new() -> Self {
        let unique = format!("{:032x}", rand::random::<u128>());
        Self {
            id: format!("{}{unique}", user_versions::PROBES),
            at: Millis::now().0,
            unique,
        }
    }

    pub(super) fn created(&self) -> Event {
        let address = format!("{}@probe.invalid", self.id);
        let user = json!({
            "id": self.id, "object": "user",
            "first_name": "clerk-sync", "last_name": "doctor", "image_url": "",
            "primary_email_address_id": "idn_clerk_sync",
            "email_addresses": [{
                "id": "idn_clerk_sync", "object": "email_address", "email_address": address,
                "verification": { "status": "verified" },
            }],
            "created_at": self.at, "updated_at": self.at,
        });
        self.event(CREATED, "1", &user)
    }

    pub(super) fn deleted(&self) -> Event {
        let user = json!({ "id": self.id, "object": "user", "deleted": true });
        self.event(DELETED, "2", &user)
    }

    /// Whether an event is one of these two.
    pub(super) fn has_event(&self, id: &str) -> bool {
        [self.created().id, self.deleted().id]
            .iter()
            .any(|own| own == id)
    }

    /// It names no instance, so that a worker with `CLERK_INSTANCE_ID` takes it, and nobody takes it
    /// for the instance's first.
    fn event(&self, kind: &'static str, number: &str, data: &Value) -> Event {
        let body = json!({ "type": kind, "object": "event", "data": data, "timestamp": self.at });
        Event {
            id: format!("{}{}_{number}", processed_events::PROBES, self.unique),
            kind,
            body: body.to_string(),
        }
    }
}
