//! Logs and metrics: every metric name and label of the project, and where logs go.
//!
//! Labels come from closed enums and every series exists at zero before the first event, so that a
//! rate or an alert never waits for the first failure.

use std::{
    io::IsTerminal as _,
    marker::PhantomData,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};
use tracing_subscriber::{EnvFilter, fmt::format::FmtSpan};

use crate::queue::Reason;

mod lane;

pub use lane::LaneGauge;

/// A closed set of label values.
pub trait Label: Copy + 'static {
    /// Every value, in the order of [`Label::index`].
    const ALL: &'static [Self];
    /// The value as it is exposed, stored and logged.
    fn as_str(self) -> &'static str;
    /// Its place in [`Label::ALL`].
    fn index(self) -> usize;
}

/// Declares an enum together with its label values.
macro_rules! labels {
    ($(#[$meta:meta])* $vis:vis enum $name:ident {
        $($(#[$variant_meta:meta])* $variant:ident => $text:literal,)+
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $vis enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $crate::telemetry::Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}
pub(crate) use labels;

labels! {
    /// How a webhook request was answered.
    pub enum WebhookOutcome {
        /// 204: verified and durably queued.
        Accepted => "accepted",
        /// 400: one of the three signature headers is missing or blank.
        MissingHeader => "missing_header",
        /// 400: one of them is repeated or not what it should be.
        MalformedHeader => "malformed_header",
        /// 401: no configured secret made this signature.
        SignatureMismatch => "signature_mismatch",
        /// 401: signed more than 300 s ago, or ahead.
        TimestampOutOfTolerance => "timestamp_out_of_tolerance",
        /// 404: another path.
        NotFound => "not_found",
        /// 405: another method.
        MethodNotAllowed => "method_not_allowed",
        /// 408: the head or the body came too slowly.
        RequestTimeout => "request_timeout",
        /// 413: the body is over the limit.
        BodyTooLarge => "body_too_large",
        /// 400: the body broke off or was badly framed.
        MalformedBody => "malformed_body",
        /// 503: the queue did not confirm.
        QueueUnavailable => "queue_unavailable",
        /// 503: too much in flight.
        Overloaded => "overloaded",
        /// 503: the process is shutting down.
        Draining => "draining",
    }
}

labels! {
    /// The event types that have a series of their own.
    pub enum EventKind {
        /// `user.created`
        UserCreated => "user.created",
        /// `user.updated`
        UserUpdated => "user.updated",
        /// `user.deleted`
        UserDeleted => "user.deleted",
        /// `session.created`
        SessionCreated => "session.created",
        /// `session.ended`
        SessionEnded => "session.ended",
        /// `session.removed`
        SessionRemoved => "session.removed",
        /// `session.revoked`
        SessionRevoked => "session.revoked",
        /// `session.pending`
        SessionPending => "session.pending",
        /// A verified body that is not a JSON event.
        Unparsable => "unparsable",
        /// Any other type.
        Other => "other",
    }
}

impl EventKind {
    /// The series of an event's type.
    #[must_use]
    pub fn of(event_type: &str) -> Self {
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.as_str() == event_type)
            .unwrap_or(Self::Other)
    }
}

labels! {
    /// What became of an event: once in the ledger, and counted for every delivery.
    pub enum Outcome {
        /// A row was inserted.
        Created => "created",
        /// A row was brought up to date.
        Updated => "updated",
        /// A user was removed, or remembered as removed.
        Deleted => "deleted",
        /// Something newer was known already.
        Stale => "stale",
        /// This very event was applied before.
        Duplicate => "duplicate",
        /// A type that is not projected.
        Ignored => "ignored",
        /// Moved to a rung of the retry ladder.
        Retried => "retried",
        /// Moved to the dead letters.
        DeadLettered => "dead_lettered",
    }
}

labels! {
    /// What applications ask of the API.
    pub enum ApiEndpoint {
        /// `GET /api/users/me`
        Me => "me",
        /// `POST /api/users/sync`
        Sync => "sync",
        /// Any other path.
        Other => "other",
    }
}

labels! {
    /// How the API answered.
    pub enum ApiOutcome {
        /// 200: the user's row. 204 to a preflight that is allowed.
        Answered => "answered",
        /// 400, 405, 408 or 413: not a request of this API, or too slow.
        BadRequest => "bad_request",
        /// 401: nobody is signed in.
        Unauthenticated => "unauthenticated",
        /// 403: another site sent the browser.
        ForeignOrigin => "foreign_origin",
        /// 404: another path, or Clerk has no such user.
        NotFound => "not_found",
        /// 409 or 422: the row cannot be written.
        Refused => "refused",
        /// 502 or 503: Clerk does not answer, or not as it should.
        ClerkUnavailable => "clerk_unavailable",
        /// 503: the database does not answer.
        DatabaseUnavailable => "database_unavailable",
        /// 503: too much at a time, or stopping.
        Overloaded => "overloaded",
    }
}

labels! {
    /// What Clerk's Backend API answered when a single user was asked for.
    pub enum ClerkFetch {
        /// The user.
        Found => "found",
        /// There is none.
        Gone => "gone",
        /// No answer in time, or 5xx.
        Unavailable => "unavailable",
        /// The instance's limit is used up.
        RateLimited => "rate_limited",
        /// The key is refused, or the answer is not Clerk's.
        Refused => "refused",
    }
}

labels! {
    /// What the worker asks of the database.
    pub enum DbOperation {
        /// A batch in one transaction.
        ApplyBatch => "apply_batch",
        /// A single event in one transaction.
        ApplyOne => "apply_one",
        /// Writing down that events were retried or dead-lettered.
        Record => "record",
        /// Removing old ledger rows.
        Prune => "prune",
        /// Asking whether the database is there.
        Ping => "ping",
    }
}

labels! {
    /// How the database answered.
    pub enum DbResult {
        /// Done, and committed where there was something to commit.
        Ok => "ok",
        /// Lost against another transaction; tried again.
        Contention => "contention",
        /// Not reachable, read-only, full or not set up.
        Unavailable => "unavailable",
        /// An event's data was refused.
        Refused => "refused",
    }
}

labels! {
    /// How a user's row can differ from what Clerk has.
    pub enum DriftKind {
        /// Clerk has the user, and there is no row.
        Missing => "missing",
        /// The row is older than Clerk's user, or somebody else has changed it.
        Stale => "stale",
        /// There is a row, and Clerk has no such user.
        Ghost => "ghost",
        /// The row is of a user of Clerk's, and the sync has never written it.
        Unmanaged => "unmanaged",
    }
}

labels! {
    /// What a lane of the worker does.
    pub enum LaneState {
        /// Waits for deliveries.
        Idle => "idle",
        /// Has a batch in hand.
        Busy => "busy",
        /// Waits for the database, and consumes nothing meanwhile.
        Paused => "paused",
    }
}

labels! {
    /// What an open connection of the database's pool does.
    pub enum ConnectionState {
        /// Rests.
        Idle => "idle",
        /// Is somebody's.
        InUse => "in_use",
    }
}

/// One gauge for each value of a label.
pub struct Gauges<L>(Vec<IntGauge>, PhantomData<L>);

impl<L: Label> Gauges<L> {
    fn register(registry: &Registry, name: &str, help: &str, label: &str) -> Self {
        let family = register(registry, IntGaugeVec::new(Opts::new(name, help), &[label]));
        let each = L::ALL
            .iter()
            .map(|value| family.with_label_values(&[value.as_str()]));
        Self(each.collect(), PhantomData)
    }

    /// The gauge of one value.
    #[must_use]
    pub fn get(&self, value: L) -> &IntGauge {
        &self.0[value.index()]
    }
}

/// One counter for each value of a label, found without a lookup.
pub struct Counters<L>(Vec<IntCounter>, PhantomData<L>);

impl<L: Label> Counters<L> {
    fn register(registry: &Registry, name: &str, help: &str, label: &str) -> Self {
        let family = counter_vec(registry, name, help, &[label]);
        let each = L::ALL
            .iter()
            .map(|value| family.with_label_values(&[value.as_str()]));
        Self(each.collect(), PhantomData)
    }

    /// The counter of one value.
    #[must_use]
    pub fn get(&self, value: L) -> &IntCounter {
        &self.0[value.index()]
    }
}

/// One counter for each pair of values of two labels.
pub struct CounterGrid<A, B>(Vec<Counters<B>>, PhantomData<A>);

impl<A: Label, B: Label> CounterGrid<A, B> {
    fn register(registry: &Registry, name: &str, help: &str, labels: [&str; 2]) -> Self {
        let family = counter_vec(registry, name, help, &labels);
        let row = |a: &A| {
            let pair = |b: &B| family.with_label_values(&[a.as_str(), b.as_str()]);
            Counters(B::ALL.iter().map(pair).collect(), PhantomData)
        };
        Self(A::ALL.iter().map(row).collect(), PhantomData)
    }

    /// The counter of one pair.
    #[must_use]
    pub fn get(&self, a: A, b: B) -> &IntCounter {
        self.0[a.index()].get(b)
    }
}

/// Every metric of DESIGN, all present at zero. One per process; tests make their own.
pub struct Metrics {
    registry: Registry,
    /// `clerk_sync_webhook_requests_total{outcome}`
    pub webhook_requests: Counters<WebhookOutcome>,
    /// `clerk_sync_webhook_duration_seconds`: head complete to answer.
    pub webhook_duration: Histogram,
    /// `clerk_sync_publish_duration_seconds`: publish to confirm.
    pub publish_duration: Histogram,
    /// `clerk_sync_webhook_secret_matches_total{position}`: 0 is the first configured secret.
    secret_matches: IntCounterVec,
    /// `clerk_sync_last_verified_event_timestamp_seconds`: Unix time, 0 before the first.
    pub last_verified_event: Gauge,
    /// `clerk_sync_webhook_clock_skew_seconds`: this clock, when it last verified a request, minus
    /// that request's `svix-timestamp`. It holds the way of the request too, and up to a second
    /// because Svix writes whole ones: over some time, the smallest value is the skew.
    pub clock_skew: Gauge,
    /// `clerk_sync_webhook_in_flight`: requests whose body is read or waits for the queue.
    pub webhooks_in_flight: IntGauge,
    /// `clerk_sync_webhook_in_flight_limit`: `MAX_IN_FLIGHT`; 0 where none is received.
    pub webhooks_in_flight_limit: IntGauge,
    /// `clerk_sync_events_total{type,outcome}`
    pub events: CounterGrid<EventKind, Outcome>,
    /// `clerk_sync_batch_events`: deliveries per batch.
    pub batch_events: Histogram,
    /// `clerk_sync_batch_duration_seconds`: batch taken to batch settled.
    pub batch_duration: Histogram,
    /// `clerk_sync_lanes{state}`: lanes of the worker; see [`Metrics::lane`].
    lanes: Gauges<LaneState>,
    /// `clerk_sync_prefetch_limit`: deliveries that RabbitMQ may send ahead, to all lanes together.
    pub prefetch_limit: IntGauge,
    /// `clerk_sync_db_connections{state}`: open connections of the pool.
    pub db_connections: Gauges<ConnectionState>,
    /// `clerk_sync_db_connections_limit`: most that the pool opens; 0 where there is no database.
    pub db_connections_limit: IntGauge,
    /// `clerk_sync_db_operations_total{operation,result}`
    pub db_operations: CounterGrid<DbOperation, DbResult>,
    /// `clerk_sync_queue_latency_seconds`: received to committed.
    pub queue_latency: Histogram,
    /// `clerk_sync_sync_latency_seconds`: Clerk's timestamp to committed.
    pub sync_latency: Histogram,
    /// `clerk_sync_retries_total{reason}`
    pub retries: Counters<Reason>,
    /// `clerk_sync_dead_letters_total{reason}`
    pub dead_letters: Counters<Reason>,
    /// `clerk_sync_email_reassignments_total`
    pub email_reassignments: IntCounter,
    /// `clerk_sync_api_requests_total{endpoint,outcome}`
    pub api_requests: CounterGrid<ApiEndpoint, ApiOutcome>,
    /// `clerk_sync_api_duration_seconds`: head complete to answer.
    pub api_duration: Histogram,
    /// `clerk_sync_clerk_fetches_total{outcome}`: users asked for, one by one.
    pub clerk_fetches: Counters<ClerkFetch>,
    /// `clerk_sync_queue_connected`: 1 while every connection to the queue is up.
    pub queue_connected: IntGauge,
    /// `clerk_sync_drift_users{kind}`: what the last reconciliation has left.
    pub drift_users: Gauges<DriftKind>,
    /// `clerk_sync_last_reconciliation_timestamp_seconds`: Unix time, 0 before the first.
    pub last_reconciliation: Gauge,
    /// How many connections to the queue are not up.
    queue_down: Mutex<i64>,
    /// See [`Metrics::measured`].
    measures: Mutex<Vec<Measure>>,
}

type Measure = Box<dyn Fn(&Metrics) + Send + Sync>;

/// Seconds; from a fsync (0.25 ms) to Svix's patience (15 s).
const REQUEST_BUCKETS: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 15.0,
];
/// Seconds; from one linger (5 ms) to the last attempt of Svix (28 h).
const SYNC_BUCKETS: &[f64] = &[
    0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0,
    7200.0, 36_000.0, 100_800.0,
];
/// Deliveries per batch.
const BATCH_BUCKETS: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0, 128.0, 192.0, 256.0,
];

impl Metrics {
    /// Registers every metric. `secrets` is how many signing secrets are configured (0 for a
    /// process that verifies nothing).
    #[must_use]
    pub fn new(secrets: usize) -> Self {
        let registry = Registry::new();
        let r = &registry;
        let metrics = Self {
            webhook_requests: Counters::register(
                r,
                "clerk_sync_webhook_requests_total",
                "Webhook requests by how they were answered.",
                "outcome",
            ),
            webhook_duration: histogram(
                r,
                "clerk_sync_webhook_duration_seconds",
                "Time from the request's head to its answer.",
                REQUEST_BUCKETS,
            ),
            publish_duration: histogram(
                r,
                "clerk_sync_publish_duration_seconds",
                "Time from publishing an event to the queue's confirm.",
                REQUEST_BUCKETS,
            ),
            secret_matches: counter_vec(
                r,
                "clerk_sync_webhook_secret_matches_total",
                "Verified requests by the position of the secret that matched, from 0.",
                &["position"],
            ),
            last_verified_event: gauge(
                r,
                "clerk_sync_last_verified_event_timestamp_seconds",
                "Unix time of the last verified request, 0 before the first.",
            ),
            clock_skew: gauge(
                r,
                "clerk_sync_webhook_clock_skew_seconds",
                "This clock minus the svix-timestamp of the last verified request.",
            ),
            webhooks_in_flight: int_gauge(
                r,
                "clerk_sync_webhook_in_flight",
                "Requests whose body is being read or waits for the queue.",
            ),
            webhooks_in_flight_limit: int_gauge(
                r,
                "clerk_sync_webhook_in_flight_limit",
                "Most requests at a time; of more, the slowest are answered 503.",
            ),
            events: CounterGrid::register(
                r,
                "clerk_sync_events_total",
                "Deliveries by event type and what became of them.",
                ["type", "outcome"],
            ),
            batch_events: histogram(
                r,
                "clerk_sync_batch_events",
                "Deliveries per batch.",
                BATCH_BUCKETS,
            ),
            batch_duration: histogram(
                r,
                "clerk_sync_batch_duration_seconds",
                "Time from taking a batch to settling it.",
                REQUEST_BUCKETS,
            ),
            lanes: Gauges::register(
                r,
                "clerk_sync_lanes",
                "Lanes of the worker by what they do; paused ones wait for the database.",
                "state",
            ),
            prefetch_limit: int_gauge(
                r,
                "clerk_sync_prefetch_limit",
                "Deliveries that RabbitMQ may send ahead, to all lanes together.",
            ),
            db_connections: Gauges::register(
                r,
                "clerk_sync_db_connections",
                "Open connections of the database's pool.",
                "state",
            ),
            db_connections_limit: int_gauge(
                r,
                "clerk_sync_db_connections_limit",
                "Most connections that the database's pool opens.",
            ),
            db_operations: CounterGrid::register(
                r,
                "clerk_sync_db_operations_total",
                "Database operations by their result.",
                ["operation", "result"],
            ),
            queue_latency: histogram(
                r,
                "clerk_sync_queue_latency_seconds",
                "Time from an event's receipt to its commit.",
                SYNC_BUCKETS,
            ),
            sync_latency: histogram(
                r,
                "clerk_sync_sync_latency_seconds",
                "Time from Clerk's timestamp of an event to its commit.",
                SYNC_BUCKETS,
            ),
            retries: Counters::register(
                r,
                "clerk_sync_retries_total",
                "Events moved to the retry ladder, by reason.",
                "reason",
            ),
            dead_letters: Counters::register(
                r,
                "clerk_sync_dead_letters_total",
                "Events moved to the dead letters, by reason.",
                "reason",
            ),
            email_reassignments: register(
                r,
                IntCounter::new(
                    "clerk_sync_email_reassignments_total",
                    "Rows given a placeholder because a newer user holds their address.",
                ),
            ),
            api_requests: CounterGrid::register(
                r,
                "clerk_sync_api_requests_total",
                "Requests of applications by endpoint and how they were answered.",
                ["endpoint", "outcome"],
            ),
            api_duration: histogram(
                r,
                "clerk_sync_api_duration_seconds",
                "Time from the head of an application's request to its answer.",
                REQUEST_BUCKETS,
            ),
            clerk_fetches: Counters::register(
                r,
                "clerk_sync_clerk_fetches_total",
                "Users asked of Clerk's Backend API for an application, by its answer.",
                "outcome",
            ),
            queue_connected: int_gauge(
                r,
                "clerk_sync_queue_connected",
                "1 while every connection to the queue is up.",
            ),
            drift_users: Gauges::register(
                r,
                "clerk_sync_drift_users",
                "Users whose rows differ from Clerk's, as the last reconciliation left them.",
                "kind",
            ),
            last_reconciliation: gauge(
                r,
                "clerk_sync_last_reconciliation_timestamp_seconds",
                "Unix time of the last reconciliation that came to its end, 0 before the first.",
            ),
            queue_down: Mutex::new(0),
            measures: Mutex::default(),
            registry,
        };
        for position in 0..secrets.max(1) {
            let _at_zero = metrics.secret_matches(position);
        }
        #[cfg(target_os = "linux")]
        metrics
            .registry
            .register(Box::new(
                prometheus::process_collector::ProcessCollector::for_self(),
            ))
            .expect("process metrics have names of their own");
        metrics
    }

    /// Announces one more connection to the queue, not up yet.
    #[must_use]
    pub fn queue_connection(self: &Arc<Self>) -> QueueConnection {
        let connection = QueueConnection {
            metrics: self.clone(),
            up: false,
        };
        connection.count(-1);
        connection
    }

    /// Counts requests verified by the secret at `position`, from 0. Keep the counter: finding it
    /// is a lookup.
    #[must_use]
    pub fn secret_matches(&self, position: usize) -> IntCounter {
        self.secret_matches
            .with_label_values(&[position.to_string()])
    }

    /// Has gauges set by `measure` each time somebody asks for the metrics: for what is always known
    /// and costs the hot path nothing that way.
    pub fn measured(&self, measure: impl Fn(&Self) + Send + Sync + 'static) {
        self.measures().push(Box::new(measure));
    }

    fn measures(&self) -> MutexGuard<'_, Vec<Measure>> {
        self.measures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The metrics in Prometheus' text format, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        for measure in self.measures().iter() {
            measure(self);
        }
        let mut text = Vec::with_capacity(32 * 1024);
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("registered metrics have valid names and values");
        text
    }
}

/// One connection's share in `clerk_sync_queue_connected`.
pub struct QueueConnection {
    metrics: Arc<Metrics>,
    up: bool,
}

impl QueueConnection {
    /// Says whether the connection is up.
    pub fn set(&mut self, up: bool) {
        match (self.up, up) {
            (false, true) => self.count(1),
            (true, false) => self.count(-1),
            (false, false) | (true, true) => {}
        }
        self.up = up;
    }

    fn count(&self, change: i64) {
        let mut down = self
            .metrics
            .queue_down
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *down -= change;
        self.metrics.queue_connected.set(i64::from(*down == 0));
    }
}

impl Drop for QueueConnection {
    /// What nobody looks after any more is not up.
    fn drop(&mut self) {
        self.set(false);
    }
}

fn register<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<C>,
) -> C {
    let metric = metric.expect("the metric's name and labels are constants and valid");
    registry
        .register(Box::new(metric.clone()))
        .expect("each metric is registered once");
    metric
}

fn counter_vec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Gauge {
    register(registry, Gauge::new(name, help))
}

fn int_gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::new(name, help))
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    register(registry, Histogram::with_opts(options))
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For a terminal.
    #[default]
    Text,
    /// One JSON object per line, for machines.
    Json,
}

/// Added to every filter. lapin writes returned messages whole, h2 headers, sqlx statements: none
/// of that may reach a log, and their errors are handled, and logged once, by us.
const QUIET: [&str; 5] = [
    "lapin=off",
    "h2=warn",
    "hyper=info",
    "sqlx=off",
    "sea_orm_migration=warn",
];

/// What `RUST_LOG` lets through.
///
/// # Errors
/// It cannot be understood.
pub fn log_filter(rust_log: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(rust_log).map_err(|error| error.to_string())
}

/// Sends logs to standard error, filtered by `RUST_LOG`. Call it once, at the start of `main`.
///
/// # Errors
/// `RUST_LOG` cannot be understood.
pub fn init_logs(format: LogFormat, rust_log: &str) -> Result<(), String> {
    let mut filter = log_filter(rust_log)?;
    for quiet in QUIET {
        filter = filter.add_directive(quiet.parse().expect("a constant directive"));
    }
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // A second call is a test's; the first keeps its word.
    let _ = match format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_exists_at_zero() {
        let metrics = Metrics::new(2);
        let text = String::from_utf8(metrics.render()).unwrap();
        for line in [
            "clerk_sync_webhook_requests_total{outcome=\"accepted\"} 0",
            "clerk_sync_webhook_secret_matches_total{position=\"1\"} 0",
            "clerk_sync_events_total{outcome=\"dead_lettered\",type=\"other\"} 0",
            "clerk_sync_db_operations_total{operation=\"prune\",result=\"unavailable\"} 0",
            "clerk_sync_retries_total{reason=\"email_taken\"} 0",
            "clerk_sync_dead_letters_total{reason=\"missing_email\"} 0",
            "clerk_sync_last_verified_event_timestamp_seconds 0",
            "clerk_sync_webhook_clock_skew_seconds 0",
            "clerk_sync_webhook_in_flight 0",
            "clerk_sync_webhook_in_flight_limit 0",
            "clerk_sync_lanes{state=\"paused\"} 0",
            "clerk_sync_prefetch_limit 0",
            "clerk_sync_db_connections{state=\"in_use\"} 0",
            "clerk_sync_db_connections_limit 0",
            "clerk_sync_webhook_duration_seconds_count 0",
            "clerk_sync_publish_duration_seconds_count 0",
            "clerk_sync_batch_events_count 0",
            "clerk_sync_batch_duration_seconds_count 0",
            "clerk_sync_queue_latency_seconds_count 0",
            "clerk_sync_sync_latency_seconds_count 0",
            "clerk_sync_email_reassignments_total 0",
            "clerk_sync_api_requests_total{endpoint=\"me\",outcome=\"clerk_unavailable\"} 0",
            "clerk_sync_api_duration_seconds_count 0",
            "clerk_sync_clerk_fetches_total{outcome=\"found\"} 0",
            "clerk_sync_queue_connected 0",
            "clerk_sync_drift_users{kind=\"ghost\"} 0",
            "clerk_sync_last_reconciliation_timestamp_seconds 0",
        ] {
            assert!(text.lines().any(|found| found == line), "no line `{line}`");
        }
    }

    #[test]
    fn what_is_measured_is_measured_for_each_who_asks() {
        let metrics = Metrics::new(0);
        metrics.measured(|metrics| metrics.webhooks_in_flight.inc());
        for asked in 1..=2 {
            let text = String::from_utf8(metrics.render()).unwrap();
            let line = format!("clerk_sync_webhook_in_flight {asked}");
            assert!(text.lines().any(|found| found == line), "no line `{line}`");
        }
    }

    #[test]
    fn an_unknown_type_is_counted_as_other() {
        assert_eq!(EventKind::of("user.created"), EventKind::UserCreated);
        assert_eq!(EventKind::of("userPasskey.enrolled"), EventKind::Other);
    }
}
