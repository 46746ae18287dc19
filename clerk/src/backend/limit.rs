//! The budget of requests below the instance's limit, and the pause that Clerk asks for.

use std::{num::NonZeroU32, sync::Mutex, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use tokio::{
    sync,
    time::{Instant, sleep_until, timeout_at},
};

use super::ApiError;

/// What Clerk's limit counts in.
const WINDOW: Duration = Duration::from_secs(10);
/// The part of a window's requests that may be sent at once. The rest is spread over it, so that
/// no window of 10 s, wherever it begins, has more than all of them.
const BURST_PART: u32 = 10;
/// Longest pause that is believed; after it, the next request asks Clerk again.
const MAX_PAUSE: Duration = Duration::from_secs(600);

/// Lets requests go, one after the other, no faster than the limit.
pub(super) struct Limit {
    bucket: RateLimiter<NotKeyed, InMemoryState, RuntimeClock, NoOpMiddleware<std::time::Instant>>,
    /// Who is next waits alone, and the others behind it in the order in which they came.
    next: sync::Mutex<()>,
    paused_until: Mutex<Option<Instant>>,
}

impl Limit {
    pub(super) fn new(requests_per_10s: NonZeroU32) -> Self {
        let requests = requests_per_10s.get();
        let burst = NonZeroU32::new(requests / BURST_PART).unwrap_or(NonZeroU32::MIN);
        let spread = (requests - burst.get()).max(1);
        let quota = Quota::with_period(WINDOW / spread)
            .expect("a window divided by a u32 is not zero")
            .allow_burst(burst);
        Self {
            bucket: RateLimiter::direct_with_clock(quota, RuntimeClock),
            next: sync::Mutex::new(()),
            paused_until: Mutex::new(None),
        }
    }

    /// Waits until another request may go.
    ///
    /// # Errors
    /// That is not before the deadline: then at once, with the time that it takes.
    pub(super) async fn turn(&self, deadline: Instant) -> Result<(), ApiError> {
        // Not behind somebody with more patience, only to hear the same later.
        let pause = self.pause_left();
        if Instant::now() + pause > deadline {
            return Err(rate_limited(pause));
        }
        let Ok(_next) = timeout_at(deadline, self.next.lock()).await else {
            return Err(rate_limited(self.pause_left().max(WINDOW / 10)));
        };
        loop {
            let now = Instant::now();
            let wait = match self.pause_left() {
                Duration::ZERO => match self.bucket.check() {
                    Ok(()) => return Ok(()),
                    Err(not_until) => not_until.wait_time_from(now.into_std()),
                },
                pause => pause,
            };
            if now + wait > deadline {
                return Err(rate_limited(wait));
            }
            sleep_until(now + wait).await;
        }
    }

    /// Nobody sends anything for this long.
    pub(super) fn pause(&self, pause: Duration) {
        let until = Some(Instant::now() + pause.min(MAX_PAUSE));
        let mut paused_until = self.paused_until();
        *paused_until = (*paused_until).max(until);
    }

    fn pause_left(&self) -> Duration {
        let until = *self.paused_until();
        until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }

    fn paused_until(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.paused_until
            .lock()
            .expect("nothing panics while it is held")
    }
}

fn rate_limited(retry_after: Duration) -> ApiError {
    ApiError::RateLimited { retry_after }
}

/// The runtime's clock, which a test can pause.
#[derive(Clone, Debug)]
struct RuntimeClock;

impl Clock for RuntimeClock {
    type Instant = std::time::Instant;

    fn now(&self) -> Self::Instant {
        Instant::now().into_std()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(requests_per_10s: u32) -> Limit {
        Limit::new(NonZeroU32::new(requests_per_10s).unwrap())
    }

    fn in_an_hour() -> Instant {
        Instant::now() + Duration::from_secs(3_600)
    }

    #[tokio::test(start_paused = true)]
    async fn no_window_of_10s_has_more_requests_than_the_limit() {
        for requests in [1, 7, 90, 900] {
            let limit = limit(requests);
            let mut sent = Vec::new();
            for n in 0..3 * requests {
                // A rest in the middle fills the bucket again, which must not let more through.
                if n == requests {
                    tokio::time::sleep(Duration::from_secs(25)).await;
                }
                limit.turn(in_an_hour()).await.unwrap();
                sent.push(Instant::now());
            }
            for (n, first) in sent.iter().enumerate() {
                let window = sent[n..].iter().take_while(|at| **at - *first < WINDOW);
                let count = window.count();
                assert!(
                    count <= requests as usize,
                    "{count} of {requests} from {n} on"
                );
            }
            // And not far fewer: three windows' worth took no more than four, and the rest.
            let took = sent[sent.len() - 1] - sent[0];
            assert!(
                took <= 4 * WINDOW + Duration::from_secs(25),
                "{requests}: {took:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_everybody_and_a_shorter_one_does_not_end_it() {
        let limit = limit(900);
        let start = Instant::now();
        limit.pause(Duration::from_secs(7));
        limit.pause(Duration::from_secs(2));
        let (a, b) = tokio::join!(limit.turn(in_an_hour()), limit.turn(in_an_hour()));
        a.and(b).unwrap();
        assert!(
            start.elapsed() >= Duration::from_secs(7),
            "{:?}",
            start.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_wait_that_long_hears_at_once_how_long_it_is() {
        let limit = limit(900);
        limit.pause(Duration::from_secs(7));
        let start = Instant::now();
        // Also with somebody in front who can.
        let hasty = limit.turn(start + Duration::from_secs(3));
        let patient = limit.turn(in_an_hour());
        let hasty = async { (hasty.await, start.elapsed()) };
        let (patient, (hasty, heard)) = tokio::join!(biased; patient, hasty);
        patient.unwrap();
        assert_eq!(heard, Duration::ZERO);
        let retry_after = hasty.unwrap_err().retry_after();
        assert_eq!(retry_after, Some(Duration::from_secs(7)));
    }
}
