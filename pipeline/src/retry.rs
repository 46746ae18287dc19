//! Delays between attempts, from the `backoff` crate: the one place that knows it.
//!
//! `backoff` is unmaintained (RUSTSEC-2025-0012, and RUSTSEC-2024-0384 for its `instant`); it is
//! here by the project's wish, and only as a calculator of delays: no timer, no I/O.

use std::time::Duration;

use backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff as _};

/// Delays that double from a first to a longest one and never end, each with full jitter: uniform
/// between a hundredth of the step and the step, so that replicas do not return in lockstep.
#[derive(Debug)]
pub struct Backoff {
    steps: ExponentialBackoff,
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// Reconnects: 0.1 to 10 s.
    #[must_use]
    pub fn reconnect() -> Self {
        Self::between(Duration::from_millis(100), Duration::from_secs(10))
    }

    /// A batch retried in place while the database is away: 0.1 to 5 s, so that 30 s of patience
    /// hold several attempts.
    #[must_use]
    pub fn weather() -> Self {
        Self::between(Duration::from_millis(100), Duration::from_secs(5))
    }

    /// A transaction lost against another one: 5 to 100 ms.
    #[must_use]
    pub fn contention() -> Self {
        Self::between(Duration::from_millis(5), Duration::from_millis(100))
    }

    fn between(first: Duration, longest: Duration) -> Self {
        // The crate jitters around the step: factor 0.99 makes [0.01, 1.99] × half the step.
        let steps = ExponentialBackoffBuilder::new()
            .with_initial_interval(first / 2)
            .with_max_interval(longest / 2)
            .with_multiplier(2.0)
            .with_randomization_factor(0.99)
            .with_max_elapsed_time(None)
            .build();
        Self {
            steps,
            first,
            longest,
        }
    }

    /// The next delay; the first is at most the shortest step, none is over the longest.
    pub fn next_delay(&mut self) -> Duration {
        self.steps
            .next_backoff()
            .unwrap_or(self.longest)
            .min(self.longest)
    }

    /// Starts again from the first step, after a success.
    pub fn reset(&mut self) {
        self.steps.reset();
    }

    /// The first step: the longest that the first delay can be.
    #[must_use]
    pub fn first(&self) -> Duration {
        self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_longest_with_full_jitter_and_start_again() {
        let mut backoff = Backoff::reconnect();
        for _ in 0..50 {
            assert!(backoff.next_delay() <= backoff.first());
            let delays: Vec<_> = (0..40).map(|_| backoff.next_delay()).collect();
            assert!(delays.iter().all(|delay| *delay <= Duration::from_secs(10)));
            let late = &delays[10..];
            assert!(
                late.iter().any(|delay| *delay > Duration::from_secs(5)),
                "they grow"
            );
            assert!(
                late.iter().any(|delay| *delay < Duration::from_secs(5)),
                "they jitter"
            );
            backoff.reset();
        }
    }
}
