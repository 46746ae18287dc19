//! When requests are due, and how many there are.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

/// After the end of an open loop, how long requests that are late may still be sent.
const LATE: Duration = Duration::from_secs(10);
/// How exact the moments are at which requests are due.
const TICK: Duration = Duration::from_micros(100);

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pace {
    /// On each connection, the next as soon as the last one was answered.
    Closed,
    /// This many a second, whatever is answered.
    Open(f64),
}

/// How many requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// For this long; requests of the stock are sent again when it is used up.
    Lasting(Duration),
    /// The whole stock, once.
    Whole,
}

/// Hands out requests by number, to all connections.
pub(super) struct Schedule {
    pace: Pace,
    extent: Extent,
    /// How many there are.
    offered: u64,
    pub(super) started: Instant,
    stop: AtomicBool,
    next: AtomicU64,
    /// Requests that are due, in an open loop.
    due: Semaphore,
}

impl Schedule {
    /// Begins now; `whole` requests are all that there are.
    pub(super) fn begin(pace: Pace, extent: Extent, whole: u64) -> Self {
        let offered = match (extent, pace) {
            (Extent::Whole, _) => whole,
            (Extent::Lasting(_), Pace::Closed) => u64::MAX,
            (Extent::Lasting(lasting), Pace::Open(rate)) => offered(rate, lasting),
        };
        Self {
            pace,
            extent,
            offered,
            started: Instant::now(),
            stop: AtomicBool::new(false),
            next: AtomicU64::new(0),
            due: Semaphore::new(0),
        }
    }

    /// Ends it before its time.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// The next request, and when it is due; `None` at the end.
    pub(super) async fn next(&self) -> Option<(u64, Instant)> {
        if let Pace::Open(_) = self.pace {
            self.due.acquire().await.ok()?.forget();
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number >= self.offered || self.is_over() {
            return None;
        }
        let due = match self.pace {
            Pace::Closed => Instant::now(),
            Pace::Open(rate) => self.started + due_after(number, rate),
        };
        Some((number, due))
    }

    /// Whether no further request is sent.
    pub(super) fn is_over(&self) -> bool {
        let lasting = match (self.extent, self.pace) {
            (Extent::Whole, _) => None,
            (Extent::Lasting(lasting), Pace::Closed) => Some(lasting),
            (Extent::Lasting(lasting), Pace::Open(_)) => Some(lasting + LATE),
        };
        self.stop.load(Ordering::Relaxed)
            || lasting.is_some_and(|lasting| self.started.elapsed() > lasting)
    }

    /// Lets the requests of an open loop be sent when they are due, for `connections` that wait. On
    /// a thread, since tokio's timers are exact to the millisecond only.
    #[expect(
        clippy::disallowed_methods,
        reason = "a thread of its own, with a finer clock than tokio's"
    )]
    pub(super) fn keep_pace(&self, connections: usize) {
        let Pace::Open(rate) = self.pace else { return };
        let mut released = 0;
        while released < self.offered && !self.is_over() {
            let due = offered(rate, self.started.elapsed()).min(self.offered);
            let more = usize::try_from(due - released).unwrap_or_default();
            self.due.add_permits(more);
            released = due;
            thread::sleep(TICK);
        }
        // Everybody hears of the end.
        self.due.add_permits(connections);
    }
}

/// When a request is due in an open loop, after its start.
pub(super) fn due_after(number: u64, rate: f64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "a number of requests")]
    Duration::from_secs_f64(number as f64 / rate)
}

/// How many requests are due within that time.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of requests"
)]
pub(super) fn offered(rate: f64, within: Duration) -> u64 {
    (rate * within.as_secs_f64()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_is_due_at_its_time_however_late_it_is_taken() {
        let schedule = Schedule::begin(Pace::Open(1000.0), Extent::Whole, 3);
        schedule.keep_pace(1);
        for number in 0..3 {
            let due = schedule.started + Duration::from_millis(number);
            assert_eq!(schedule.next().await, Some((number, due)));
        }
        assert_eq!(schedule.next().await, None);
    }

    #[tokio::test]
    async fn a_closed_loop_ends_with_its_time_or_when_it_is_stopped() {
        let over = Schedule::begin(Pace::Closed, Extent::Lasting(Duration::ZERO), 3);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(over.next().await, None);
        let lasting = Extent::Lasting(Duration::from_secs(60));
        let schedule = Schedule::begin(Pace::Closed, lasting, 3);
        // Requests are sent again when they are used up.
        for number in 0..10 {
            assert_eq!(schedule.next().await.map(|next| next.0), Some(number));
        }
        schedule.stop();
        assert_eq!(schedule.next().await, None);
    }
}
