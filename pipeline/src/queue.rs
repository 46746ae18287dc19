//! The queue's contract: what a publisher promises, what a consumer gives, and every name and
//! number of the topology. RabbitMQ ([`amqp`]) and SQLite (`embedded`) keep the same promises;
//! one shared suite of tests runs against both.

use std::{fmt, future::Future, str::FromStr, time::Duration};

use crate::{
    event::{Event, Millis},
    telemetry::labels,
    wording,
};

pub mod amqp;
#[cfg(feature = "embedded")]
pub mod embedded;
pub mod parked;
pub mod stock;

/// The ingester's side of a queue.
pub trait Publish: Clone + Send + Sync + 'static {
    /// Queues one event. `Ok` is said only when the event is durable and routed: it survives the
    /// death of every process from then on. After an `Err` it may or may not be queued; the sender
    /// delivers again, and the ledger makes a second copy harmless.
    ///
    /// An answer comes within [`CONFIRM_TIMEOUT`]; without a connection or a free place it comes
    /// at once. Dropping the future does not take the event back.
    fn publish(&self, event: Event) -> impl Future<Output = Result<(), PublishError>> + Send;
}

/// The worker's side of a queue. One consumer has one batch in its hands at a time.
pub trait Consume: Send + 'static {
    /// Waits for deliveries: resolves with 1 to `limits.events` of them, as soon as there are that
    /// many or `limits.linger` has passed since the first. Safe to drop: what had arrived is given
    /// by the next call. Lost connections are rebuilt within; the caller never sees them.
    fn next_batch(&mut self, limits: BatchLimits) -> impl Future<Output = Vec<Delivery>> + Send;

    /// Settles deliveries of the batch in hand: moves the failed ones to their rung or to the dead
    /// letters, durably, and only then acknowledges them. Failed ones that cannot be moved now are
    /// kept, and moved as soon as the way is free; the next batch does not wait for them. After
    /// twenty minutes of that everything is handed back, and comes again.
    ///
    /// # Errors
    /// The connection was lost on the way: unsettled deliveries will come again. Nothing is lost
    /// and nothing needs doing. When the future is dropped half way, call [`Consume::hand_back`].
    fn settle(
        &mut self,
        settled: Vec<(Delivery, Settlement)>,
    ) -> impl Future<Output = Result<(), Unsettled>> + Send;

    /// Stops consuming and gives every unsettled delivery back to the queue, at once, in one go.
    /// The next [`Consume::next_batch`] starts again.
    fn hand_back(&mut self) -> impl Future<Output = ()> + Send;
}

/// An event as the queue hands it out, with what the queue knows of its past.
///
/// It is consumed by [`Consume::settle`].
#[derive(Debug)]
pub struct Delivery {
    /// What was published.
    pub event: Event,
    /// How often applying it has failed for a reason of its own (header `x-attempt`).
    pub attempt: u32,
    /// When it first failed (header `x-first-failed-at`).
    pub first_failed_at: Option<Millis>,
    /// How often the queue handed it out before without an answer (`x-delivery-count`): at 2 and
    /// more it may be what kills its worker.
    pub redeliveries: u32,
    /// Which hand-out this is.
    pub(crate) tag: Tag,
}

impl Delivery {
    /// The attempt it goes on with when it has failed: past the last number nothing begins anew.
    #[must_use]
    pub fn next_attempt(&self) -> u32 {
        self.attempt.saturating_add(1)
    }
}

/// A hand-out's name: valid for one incarnation of one consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    /// The channel (RabbitMQ) or the hand-out's holder (embedded) that it belongs to.
    pub(crate) incarnation: u64,
    pub(crate) number: u64,
}

/// What becomes of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Its transaction is committed, or there was nothing to do.
    Done,
    /// Again after the rung's delay.
    Retry(Rung, Failure),
    /// Again after the rung's delay; not the event's own failure, so the attempt is not counted.
    Postpone(Rung, Failure),
    /// Kept for a human.
    DeadLetter(Failure),
}

/// Why an event was not applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What to group by (header `x-error`).
    pub reason: Reason,
    /// One line for an operator, free of payload, cut to [`MAX_ERROR_DETAIL`] (`x-error-detail`).
    pub detail: String,
}

impl Failure {
    /// A failure with its detail cut to [`MAX_ERROR_DETAIL`] bytes at a character's edge.
    #[must_use]
    pub fn new(reason: Reason, detail: impl fmt::Display) -> Self {
        let mut detail = detail.to_string();
        detail.truncate(detail.floor_char_boundary(MAX_ERROR_DETAIL));
        Self { reason, detail }
    }
}

labels! {
    /// Why an event could not be applied: the stable code in `x-error`, in the ledger's logs and
    /// in the metrics.
    pub enum Reason {
        /// The body is not a JSON event, or lacks a field that the projection needs.
        Malformed => "malformed",
        /// A user without any address, and `MISSING_EMAIL=dead-letter`.
        MissingEmail => "missing_email",
        /// The event is of another Clerk instance than `CLERK_INSTANCE_ID`.
        WrongInstance => "wrong_instance",
        /// A text holds a NUL character, which PostgreSQL cannot store.
        InvalidText => "invalid_text",
        /// A text does not fit an index.
        TextTooLong => "text_too_long",
        /// A time outside the years 1970 to 9999.
        InvalidTimestamp => "invalid_timestamp",
        /// The database refuses a value (SQLSTATE 22, 54).
        DataRefused => "data_refused",
        /// A column of the application's own is NOT NULL (23502).
        NotNullViolation => "not_null_violation",
        /// A check of the application's own refuses the row (23514).
        CheckViolation => "check_violation",
        /// The address belongs to a row that the sync does not manage.
        EmailTaken => "email_taken",
        /// A unique index of the application's own refuses the row (23505).
        UniqueViolation => "unique_violation",
        /// A foreign key of the application's own refuses the row (23503).
        ForeignKeyViolation => "foreign_key_violation",
        /// A foreign key of the application's own refuses the delete (23503).
        DeleteRestricted => "delete_restricted",
        /// Somebody else holds a lock on the user's row.
        RowLocked => "row_locked",
        /// The database answered something this version does not know.
        DatabaseError => "database_error",
    }
}

/// How much a batch may hold, and how long it may wait to fill.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Most deliveries in one batch.
    pub events: usize,
    /// Longest wait for more after the first.
    pub linger: Duration,
}

/// Why an event was not queued. The request is answered 503; Svix delivers again.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// More publishes are waiting for their confirm than allowed.
    #[error("too many events are waiting for the queue's confirm")]
    Overloaded,
    /// No connection, blocked, refused, returned, or not confirmed in time.
    #[error("the queue is unavailable: {0}")]
    Unavailable(String),
}

/// The deliveries were not settled: they will be delivered again.
#[derive(Debug, thiserror::Error)]
#[error("deliveries not settled, they will come again: {0}")]
pub struct Unsettled(pub String);

/// Longest wait for a publisher confirm before the request is answered 503.
pub const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that owes a confirm for this long is shut and rebuilt.
pub const CONFIRM_OVERDUE: Duration = Duration::from_secs(10);
/// Most publishes waiting for a confirm, in one process: 1,024 bodies of 2.5 KB are 2.5 MB, of the
/// largest body 512 MB.
pub const MAX_UNCONFIRMED: usize = 1024;
/// Longest `x-error-detail`, in bytes.
pub const MAX_ERROR_DETAIL: usize = 512;
/// From this many redeliveries on an event is processed alone.
pub const SUSPECT_REDELIVERIES: u32 = 2;
/// Hand-outs without an answer after which RabbitMQ dead-letters an event by itself (`clerk.apply`).
pub const DELIVERY_LIMIT: u32 = 20;
/// The same where messages are parked: looking at one counts too, so it is as good as never.
pub const PARKED_DELIVERY_LIMIT: u32 = 1_000_000;

/// A step of the retry ladder, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rung(pub usize);

/// The delays between attempts, written `5s,30s,2m,10m,1h`.
///
/// A delay is part of its queue's name, so a changed ladder makes new queues, never a mismatch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryLadder(Vec<Duration>);

impl RetryLadder {
    /// The rung after `attempt` failures (0 before the first), or `None`: time to give up.
    #[must_use]
    pub fn rung(&self, attempt: u32) -> Option<Rung> {
        let index = usize::try_from(attempt).ok()?;
        (index < self.0.len()).then_some(Rung(index))
    }

    /// How long the rung holds an event.
    #[must_use]
    pub fn delay(&self, rung: Rung) -> Duration {
        self.0.get(rung.0).copied().unwrap_or_default()
    }

    /// The rung's routing key and the end of its queue's name: `5s`.
    #[must_use]
    pub fn name(&self, rung: Rung) -> String {
        humantime::format_duration(self.delay(rung))
            .to_string()
            .replace(' ', "")
    }

    /// Every rung, shortest delay first.
    pub fn rungs(&self) -> impl Iterator<Item = Rung> + use<> {
        (0..self.0.len()).map(Rung)
    }
}

impl Default for RetryLadder {
    /// 5 s, 30 s, 2 min, 10 min, 1 h: together 1 h 12 min, then it is a matter for a human.
    fn default() -> Self {
        Self([5, 30, 120, 600, 3600].map(Duration::from_secs).to_vec())
    }
}

impl FromStr for RetryLadder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let delays = text
            .split(',')
            .map(|delay| {
                let delay = delay.trim();
                wording::time(delay).map_err(|error| format!("`{delay}`: {error}"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if delays
            .iter()
            .any(|delay| delay.as_millis() == 0 || delay.as_secs() > 86_400)
        {
            return Err("each delay must be between 1ms and 1day".to_owned());
        }
        if !delays.is_sorted_by(|shorter, longer| shorter < longer) {
            return Err("each delay must be longer than the one before it".to_owned());
        }
        Ok(Self(delays))
    }
}

impl fmt::Display for RetryLadder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for rung in self.rungs() {
            let comma = if rung.0 == 0 { "" } else { "," };
            write!(f, "{comma}{}", self.name(rung))?;
        }
        Ok(())
    }
}

/// Every name of the topology, from one prefix: `clerk` gives `clerk.events`, `clerk.apply`, …
#[derive(Clone, Debug)]
pub struct Topology {
    /// First part of every name; another prefix is another, independent pipeline.
    pub prefix: String,
    /// The retry queues.
    pub ladder: RetryLadder,
    /// Most bytes the apply queue holds before publishes are refused (and answered 503).
    pub max_length_bytes: u64,
}

impl Topology {
    /// The prefix of DESIGN: `clerk`.
    pub const DEFAULT_PREFIX: &'static str = "clerk";
    /// 4 GiB: about 1.6 million events of 2.5 KB, more than a day at 18 a second.
    pub const DEFAULT_MAX_LENGTH_BYTES: u64 = 4 << 30;

    /// Topic exchange that ingest publishes to; the routing key is the event's type.
    #[must_use]
    pub fn events(&self) -> String {
        self.name("events")
    }

    /// Direct exchange that the worker publishes to; the routing key is a rung's name or `dead`.
    #[must_use]
    pub fn retry(&self) -> String {
        self.name("retry")
    }

    /// Fanout exchange that brings expired retries back to the apply queue.
    #[must_use]
    pub fn return_exchange(&self) -> String {
        self.name("return")
    }

    /// Fanout exchange to the dead letters, for the broker's own dead-lettering.
    #[must_use]
    pub fn dlx(&self) -> String {
        self.name("dlx")
    }

    /// Alternate exchange, and the queue behind it: whatever found no queue. Never empty means
    /// alarm.
    #[must_use]
    pub fn unrouted(&self) -> String {
        self.name("unrouted")
    }

    /// The queue that workers consume.
    #[must_use]
    pub fn apply(&self) -> String {
        self.name("apply")
    }

    /// The queue of dead letters.
    #[must_use]
    pub fn dead(&self) -> String {
        self.name("dead")
    }

    /// The queue in which an event waits out the rung's delay.
    #[must_use]
    pub fn rung(&self, rung: Rung) -> String {
        self.name(&format!("retry.{}", self.ladder.name(rung)))
    }

    fn name(&self, part: &str) -> String {
        format!("{}.{part}", self.prefix)
    }
}

impl Default for Topology {
    fn default() -> Self {
        Self {
            prefix: Self::DEFAULT_PREFIX.to_owned(),
            ladder: RetryLadder::default(),
            max_length_bytes: Self::DEFAULT_MAX_LENGTH_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_is_climbed_once_and_ends() {
        let ladder = RetryLadder::default();
        assert_eq!(ladder.to_string(), "5s,30s,2m,10m,1h");
        assert_eq!("5s, 30s,2m,10m,1h".parse(), Ok(ladder.clone()));
        let climbed: Vec<_> = (0..7).map(|attempt| ladder.rung(attempt)).collect();
        assert_eq!(climbed[0], Some(Rung(0)));
        assert_eq!(climbed[4], Some(Rung(4)));
        assert_eq!(climbed[5..], [None, None]);
    }

    #[test]
    fn a_ladder_that_does_not_climb_is_refused() {
        for bad in ["", "5", "30s,5s", "5s,5s", "0s", "2days"] {
            assert!(bad.parse::<RetryLadder>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_are_those_of_the_design() {
        let topology = Topology::default();
        assert_eq!(topology.events(), "clerk.events");
        assert_eq!(topology.rung(Rung(2)), "clerk.retry.2m");
    }

    #[test]
    fn a_detail_is_cut_at_a_characters_edge() {
        let failure = Failure::new(Reason::Malformed, "\u{e9}".repeat(400));
        assert_eq!(failure.detail.len(), 512);
        assert!(
            Failure::new(Reason::Malformed, format!("a{}", failure.detail))
                .detail
                .len()
                <= 512
        );
    }
}
