//! The one thing that travels: a verified webhook, as the exact bytes that arrived.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;

/// A verified webhook on its way from the request to the row.
///
/// Only `ingest` makes one from the outside (after the signature was checked); a queue gives back
/// what it was given.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    /// The delivery's id (`svix-id`): the idempotency key, the same on every attempt.
    pub id: EventId,
    /// The envelope's `type`: the routing key.
    pub event_type: EventType,
    /// When the ingester had the whole request.
    pub received_at: Millis,
    /// `svix-timestamp`: when this attempt was signed, in seconds. Of no use for ordering.
    pub attempted_at: i64,
    /// W3C trace context of the request, carried for the worker.
    pub traceparent: Option<String>,
    /// The request's body, byte for byte.
    pub body: Bytes,
}

impl fmt::Debug for Event {
    /// Never shows the body: it holds names and addresses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("id", &self.id)
            .field("event_type", &self.event_type)
            .field("received_at", &self.received_at)
            .field("body_len", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Longest id or type: what an AMQP short string holds, in bytes.
const SHORT_STRING: usize = 255;

/// A delivery's id: 1 to 255 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(String);

impl EventId {
    /// Takes an id of 1 to 255 visible ASCII characters, else `None`.
    #[must_use]
    pub fn parse(id: &str) -> Option<Self> {
        let fits = (1..=SHORT_STRING).contains(&id.len());
        (fits && id.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Self(id.to_owned()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An event's type, fit to be a routing key: `user.created`, `organizationMembership.deleted`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventType(String);

impl EventType {
    /// The routing key of a verified body that is not a JSON event. It is queued all the same:
    /// what Clerk signed is never thrown away.
    pub const UNPARSABLE: &'static str = "unparsable";

    /// Takes a type of 1 to 255 letters, digits, `.`, `_` or `-`, else `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=SHORT_STRING).contains(&text.len());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        (fits && text.bytes().all(plain)).then(|| Self(text.to_owned()))
    }

    /// The type of a body that has none.
    #[must_use]
    pub fn unparsable() -> Self {
        Self(Self::UNPARSABLE.to_owned())
    }

    /// The type as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A moment, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub i64);

impl Millis {
    /// The system's clock. Handlers read it once and pass the moment down.
    #[must_use]
    pub fn now() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    /// Seconds from `earlier` to `self`; 0 when the clocks disagree about which came first.
    #[must_use]
    pub fn seconds_since(self, earlier: Self) -> f64 {
        let millis = self.0.saturating_sub(earlier.0).max(0);
        #[expect(clippy::cast_precision_loss, reason = "2^53 ms are 285,000 years")]
        let millis = millis as f64;
        millis / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_types_fit_an_amqp_short_string() {
        assert!(EventId::parse(&"m".repeat(255)).is_some());
        for bad in ["", " ", "msg 1", "msg\n", "m\u{e9}", &"m".repeat(256)] {
            assert!(EventId::parse(bad).is_none(), "{bad:?}");
        }
        assert!(EventType::parse("organizationMembership.created").is_some());
        for bad in [
            "",
            "user created",
            "user.#\n",
            "u\u{fc}ser",
            &"t".repeat(256),
        ] {
            assert!(EventType::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn debug_output_hides_the_body() {
        let event = Event {
            id: EventId::parse("msg_1").unwrap(),
            event_type: EventType::parse("user.created").unwrap(),
            received_at: Millis(1),
            attempted_at: 1,
            traceparent: None,
            body: Bytes::from_static(b"maren.holt@quayside.example"),
        };
        assert!(!format!("{event:?}").contains("maren"));
    }

    #[test]
    fn a_clock_that_ran_backwards_is_no_negative_latency() {
        assert!(Millis(5).seconds_since(Millis(10)).abs() < f64::EPSILON);
        assert!((Millis(1500).seconds_since(Millis(500)) - 1.0).abs() < f64::EPSILON);
    }
}
