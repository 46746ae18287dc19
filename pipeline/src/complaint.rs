//! A warning that a flood of requests would repeat, said once in a while.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

use crate::event::Millis;

/// Shortest time between two warnings of one kind.
const QUIET: Duration = Duration::from_secs(10);

/// Whether it is time to warn again.
#[derive(Debug, Default)]
pub struct Complaint {
    said_at: AtomicI64,
    held_back: AtomicU64,
}

impl Complaint {
    /// Calls `say` with the number of complaints held back since the last one, unless one was said
    /// in the last 10 s.
    pub fn say(&self, now: Millis, say: impl FnOnce(u64)) {
        let said_at = self.said_at.load(Ordering::Relaxed);
        let quiet = i64::try_from(QUIET.as_millis()).unwrap_or(i64::MAX);
        // Of several at the same moment one wins the exchange; a clock set back does not silence.
        let turn = now.0.abs_diff(said_at) >= quiet.unsigned_abs()
            && self
                .said_at
                .compare_exchange(said_at, now.0, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if turn {
            say(self.held_back.swap(0, Ordering::Relaxed));
        } else {
            self.held_back.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_said_once_in_ten_seconds_with_its_number() {
        let complaint = Complaint::default();
        let mut said = Vec::new();
        for millis in (1_000_000..1_025_000).step_by(100) {
            complaint.say(Millis(millis), |held_back| said.push((millis, held_back)));
        }
        assert_eq!(said, [(1_000_000, 0), (1_010_000, 99), (1_020_000, 99)]);
    }
}
