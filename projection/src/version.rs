//! The order of a user's snapshots.

use clerk_sync_pipeline::{EventId, Millis};

/// How new a snapshot of one user is: Clerk's `data.updated_at`, then the envelope's `timestamp`,
/// then the event's id, compared in that order and bytewise. Equal in all three means the same
/// event.
///
/// Never `svix-timestamp`: it is the time of the attempt, and a retry's is always newer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// `data.updated_at`.
    pub updated_at: Millis,
    /// The envelope's `timestamp`.
    pub occurred_at: Millis,
    /// The delivery's id.
    pub event_id: EventId,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(updated_at: i64, occurred_at: i64, id: &str) -> Version {
        Version {
            updated_at: Millis(updated_at),
            occurred_at: Millis(occurred_at),
            event_id: EventId::parse(id).unwrap(),
        }
    }

    #[test]
    fn the_snapshots_own_time_comes_first_then_the_envelopes_then_the_id() {
        let ascending = [
            version(1, 9, "msg_9"),
            version(2, 1, "msg_9"),
            version(2, 2, "msg_A"),
            version(2, 2, "msg_a"),
        ];
        assert!(ascending.is_sorted_by(|older, newer| older < newer));
    }
}
