//! The last hour: a ring of samples, and what they say together.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use clerk_sync_pipeline::{Millis, queue::stock::Stock};
use serde::Serialize;

use crate::{
    delta::{Delta, float},
    source::Look,
};

/// Time between two samples.
pub(crate) const EVERY: Duration = Duration::from_secs(5);
/// Samples of an hour.
const HOUR: usize = 720;
/// Samples of the time that rates and latencies are told for, so that a line is calm.
const MINUTE: usize = 12;
/// Samples of what counts as now for judging health.
const FIVE_MINUTES: usize = 60;

/// What was seen at one moment.
#[derive(Debug)]
struct Sample {
    at: Millis,
    delta: Delta,
    stock: Option<Stock>,
}

/// The last hour, as it is now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board {
    samples: VecDeque<Arc<Sample>>,
    /// One for each sample.
    points: VecDeque<Point>,
    next: u64,
    /// Whether refused requests are known.
    pub(crate) knows_requests: bool,
    pub(crate) last_verified: Option<f64>,
    pub(crate) connected: Option<bool>,
    /// What the sources could not say at the last look, and what is not ready.
    pub(crate) problems: Vec<String>,
}

/// A point of the charts: rates are per second over the minute before, latencies in seconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Point {
    /// The sample's number; a stream that was broken goes on behind it.
    pub(crate) n: u64,
    /// Milliseconds since 1970.
    pub(crate) at: i64,
    received: Option<f64>,
    handled: f64,
    waiting: Option<u64>,
    delayed: Option<u64>,
    p50: Option<f64>,
    p99: Option<f64>,
    retried: u64,
    dead: u64,
    refused: Option<u64>,
}

impl Board {
    pub(crate) fn new(knows_requests: bool) -> Self {
        Self {
            knows_requests,
            ..Self::default()
        }
    }

    /// Adds a look.
    pub(crate) fn add(&mut self, at: Millis, look: Look, stock: Result<Option<Stock>, String>) {
        self.last_verified = look
            .last_verified
            .or(self.last_verified)
            .filter(|at| *at > 0.0);
        self.connected = look.connected;
        self.problems = look.problems;
        let stock = stock.unwrap_or_else(|problem| {
            self.problems
                .push(format!("the queue cannot be looked at: {problem}"));
            None
        });
        if self.samples.len() == HOUR {
            self.samples.pop_front();
            self.points.pop_front();
        }
        let delta = look.delta;
        self.samples
            .push_back(Arc::new(Sample { at, delta, stock }));
        self.points.push_back(self.point(at, stock));
        self.next += 1;
    }

    /// Points behind a number, the oldest first.
    pub(crate) fn points_after(&self, number: Option<u64>) -> Vec<Point> {
        let is_fresh = |point: &Point| number.is_none_or(|number| point.n > number);
        self.points.iter().copied().filter(is_fresh).collect()
    }

    /// The newest sample's.
    fn point(&self, at: Millis, stock: Option<Stock>) -> Point {
        let (minute, seconds) = self.minute();
        let rate = |count: u64| float(count) / seconds;
        Point {
            n: self.next,
            at: at.0,
            received: minute.accepted().map(rate),
            handled: rate(minute.handled()),
            waiting: stock.map(|stock| stock.ready + stock.in_flight.unwrap_or(0)),
            delayed: stock.map(|stock| stock.delayed),
            p50: minute.latencies.quantile(0.5),
            p99: minute.latencies.quantile(0.99),
            retried: minute.outcome("retried"),
            dead: minute.outcome("dead_lettered"),
            refused: minute.refused(),
        }
    }

    /// The newest samples, at most so many, together; and how many seconds they are.
    fn last(&self, most: usize) -> (Delta, f64) {
        let from = self.samples.len().saturating_sub(most);
        let mut sum = Delta::default();
        for sample in self.samples.range(from..) {
            sum.merge(&sample.delta);
        }
        let before = from.checked_sub(1).map(|before| self.samples[before].at);
        let seconds = match (before, self.at()) {
            (Some(before), Some(at)) => at.seconds_since(before),
            _ => EVERY.as_secs_f64() * float(self.samples.len() as u64),
        };
        (sum, seconds.max(1.0))
    }

    /// When everything was looked at last.
    pub(crate) fn at(&self) -> Option<Millis> {
        Some(self.samples.back()?.at)
    }

    /// The last minute, and its seconds.
    pub(crate) fn minute(&self) -> (Delta, f64) {
        self.last(MINUTE)
    }

    pub(crate) fn five_minutes(&self) -> Delta {
        self.last(FIVE_MINUTES).0
    }

    pub(crate) fn hour(&self) -> Delta {
        self.last(HOUR).0
    }

    /// How much is where, if that could be seen.
    pub(crate) fn stock(&self) -> Option<Stock> {
        self.samples.back()?.stock
    }

    /// How long it has been watched, at most an hour.
    pub(crate) fn watched(&self) -> Duration {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else {
            return Duration::ZERO;
        };
        Duration::try_from_secs_f64(last.at.seconds_since(first.at)).unwrap_or_default()
    }

    /// The number of the newest sample.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.points.back().map(|point| point.n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(handled: u64) -> Look {
        let outcomes = [("created".to_owned(), handled)].into();
        Look {
            delta: Delta {
                outcomes,
                ..Delta::default()
            },
            ..Look::default()
        }
    }

    fn board(looks: impl IntoIterator<Item = u64>) -> Board {
        let mut board = Board::new(true);
        for (place, handled) in looks.into_iter().enumerate() {
            let at = i64::try_from(place).unwrap() * 5000;
            board.add(Millis(at), look(handled), Ok(None));
        }
        board
    }

    #[test]
    fn the_ring_holds_an_hour_and_a_stream_goes_on_where_it_was() {
        let board = board(std::iter::repeat_n(1, HOUR + 30));
        let points = board.points_after(None);
        assert_eq!((points.len(), points[0].n), (HOUR, 30));
        assert_eq!(board.points_after(Some(740)).len(), 9);
        assert_eq!(board.points_after(board.newest()).len(), 0);
        assert_eq!(board.hour().handled(), 720);
        assert_eq!(board.watched(), Duration::from_secs(719 * 5));
    }

    #[test]
    fn a_rate_is_that_of_the_minute_before() {
        let board = board([60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12]);
        let points = board.points_after(None);
        let rate = |place: usize| points[place].handled;
        assert!((rate(0) - 12.0).abs() < 0.01, "60 in 5 s: {}", rate(0));
        assert!((rate(11) - 1.0).abs() < 0.01, "60 in 60 s: {}", rate(11));
        assert!((rate(12) - 0.2).abs() < 0.01, "12 in 60 s: {}", rate(12));
    }

    #[test]
    fn what_cannot_be_seen_is_said() {
        let mut board = Board::new(false);
        assert!(board.stock().is_none() && board.points_after(None).is_empty());
        board.add(Millis(0), look(0), Err("no broker".to_owned()));
        assert_eq!(board.stock(), None);
        assert_eq!(board.problems, ["the queue cannot be looked at: no broker"]);
    }
}
