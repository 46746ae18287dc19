//! How often a token may be guessed.

use std::time::Duration;

use tokio::time::Instant;

/// Attempts to sign in that are looked at, all browsers together: so many at once, then one each
/// [`ATTEMPT_EVERY`]. There is one token, so there is nothing to count by.
const ATTEMPTS: u32 = 10;
const ATTEMPT_EVERY: Duration = Duration::from_secs(3);

/// A bucket that fills with time.
pub(crate) struct Attempts {
    left: u32,
    counted_at: Instant,
}

impl Attempts {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            left: ATTEMPTS,
            counted_at: now,
        }
    }

    /// Takes one, or tells how long until there is one.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        while self.left < ATTEMPTS && now.duration_since(self.counted_at) >= ATTEMPT_EVERY {
            self.left += 1;
            self.counted_at += ATTEMPT_EVERY;
        }
        if self.left == ATTEMPTS {
            self.counted_at = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(ATTEMPT_EVERY.saturating_sub(now.duration_since(self.counted_at))),
        }
    }
}
