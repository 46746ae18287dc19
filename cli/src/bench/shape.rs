//! The body that all events of a run share, and the few fields in which they differ.

use serde_json::Value;

use super::stock::{Users, address, clerk_id};
use crate::fixtures;

/// The sample whose shape all events have: 2.5 KB, one address.
const SAMPLE: &str = "user_created_email_password";

/// A body, and where in it the fields are that differ.
pub(super) struct Shape {
    pub(super) bytes: Vec<u8>,
    pub(super) event_type: &'static str,
    user: Slots,
    address: Slots,
    updated_at: Slots,
    timestamp: Slots,
}

impl Shape {
    pub(super) fn new(users: Users) -> anyhow::Result<Self> {
        // As wide as what is written over them, and nowhere else in a body.
        let (user, address) = (clerk_id(0), address(0));
        let (updated_at, timestamp) = (1_111_111_111_111_u64, 2_222_222_222_222_u64);
        let event_type = match users {
            Users::New => "user.created",
            Users::Known(_) => "user.updated",
        };
        let mut body: Value = serde_json::from_slice(fixtures::find(SAMPLE)?)?;
        body["type"] = event_type.into();
        body["timestamp"] = timestamp.into();
        let data = &mut body["data"];
        data["id"] = user.as_str().into();
        data["updated_at"] = updated_at.into();
        data["email_addresses"][0]["email_address"] = address.as_str().into();
        // As the samples are written, so that sizes are Clerk's.
        let bytes = serde_json::to_vec_pretty(&body)?;
        Ok(Self {
            event_type,
            user: Slots::of(&user, &bytes),
            address: Slots::of(&address, &bytes),
            updated_at: Slots::of(&updated_at.to_string(), &bytes),
            timestamp: Slots::of(&timestamp.to_string(), &bytes),
            bytes,
        })
    }

    /// Makes a body, which was made of this shape, that of another event.
    pub(super) fn write(&self, body: &mut [u8], clerk_id: &str, address: &str, at: u64) {
        let digits = format!("{at:013}");
        self.user.write(body, clerk_id.as_bytes());
        self.address.write(body, address.as_bytes());
        self.updated_at.write(body, digits.as_bytes());
        self.timestamp.write(body, digits.as_bytes());
    }
}

/// Where a field is.
struct Slots(Vec<usize>);

impl Slots {
    fn of(marker: &str, bytes: &[u8]) -> Self {
        let marker = marker.as_bytes();
        let found = bytes.windows(marker.len()).enumerate();
        Self(
            found
                .filter(|(_, window)| *window == marker)
                .map(|(at, _)| at)
                .collect(),
        )
    }

    fn write(&self, bytes: &mut [u8], value: &[u8]) {
        for at in &self.0 {
            bytes[*at..*at + value.len()].copy_from_slice(value);
        }
    }
}
