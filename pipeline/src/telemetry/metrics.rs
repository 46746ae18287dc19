//! Every metric of the project.
//!
//! Every series exists at zero before the first event, so that a rate or an alert never waits for
//! the first failure.

use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus::{
    Encoder, Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder,
};

use super::{
    ApiEndpoint, ApiOutcome, ClerkFetch, ConnectionState, DbOperation, DbResult, DriftKind,
    EventKind, LaneState, Outcome, WebhookOutcome,
    series::{CounterGrid, Counters, Gauges},
};
use crate::queue::Reason;

mod connection;
mod lane;
mod names;

pub use connection::QueueConnection;
pub use lane::LaneGauge;

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

impl Metrics {
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
}
