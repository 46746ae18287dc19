//! The order of a user's snapshots.

use clerk_sync_pipeline::{EventId, Millis};

/// How new a snapshot of one user is: Clerk's `data.updated_at`, then the envelope's `timestamp`,
/// then the event's id, compared in that order and bytewise. Equal in all three means the same
/// event.
///
/// A snapshot that no webhook brought has neither a `timestamp` nor an id. So it is older than every
/// webhook with the same `updated_at`, and buries none.
///
/// Never `svix-timestamp`: it is the time of the attempt, and a retry's is always newer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// `data.updated_at`.
    pub updated_at: Millis,
    /// The envelope's `timestamp`.
    pub occurred_at: Millis,
    /// The delivery's id, if it was delivered.
    pub event_id: Option<EventId>,
}

impl Version {
    /// The version of a snapshot that no webhook brought.
    #[must_use]
    pub fn undelivered(updated_at: Millis) -> Self {
        Self {
            updated_at,
            occurred_at: Millis(0),
            event_id: None,
        }
    }

    /// The third part as it is stored: nothing, for what was not delivered.
    #[must_use]
    pub fn event_id(&self) -> &str {
        self.event_id.as_ref().map_or("", EventId::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(updated_at: i64, occurred_at: i64, id: &str) -> Version {
        Version {
            updated_at: Millis(updated_at),
            occurred_at: Millis(occurred_at),
            event_id: EventId::parse(id),
        }
    }

    #[test]
    fn the_snapshots_own_time_comes_first_then_the_envelopes_then_the_id() {
        let ascending = [
            version(1, 9, "msg_9"),
            Version::undelivered(Millis(2)),
            version(2, 0, "msg_0"),
            version(2, 1, "msg_9"),
            version(2, 2, "msg_A"),
            version(2, 2, "msg_a"),
        ];
        assert!(ascending.is_sorted_by(|older, newer| older < newer));
    }
}
