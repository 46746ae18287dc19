//! The clock by which delays are counted.

use std::time::{Duration, Instant};

use crate::event::Millis;

/// Unix time as of the opening, carried on by the monotonic clock: when the system's clock is set,
/// nothing becomes invisible and no delay shrinks.
pub(super) struct Clock {
    started: Instant,
    started_at: Millis,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self {
            started: Instant::now(),
            started_at: Millis::now(),
        }
    }

    pub(super) fn now(&self) -> Millis {
        let elapsed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        Millis(self.started_at.0.saturating_add(elapsed))
    }

    /// The instant at which [`Clock::now`] reaches `at`.
    pub(super) fn instant(&self, at: Millis) -> Instant {
        let after_start = u64::try_from(at.0.saturating_sub(self.started_at.0)).unwrap_or(0);
        self.started + Duration::from_millis(after_start)
    }
}
