//! Every metric's name, help and buckets.

use std::sync::Mutex;

use prometheus::{IntCounter, Registry};

use super::Metrics;
use crate::telemetry::series::{
    CounterGrid, Counters, Gauges, counter_vec, gauge, histogram, int_gauge, register,
};

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
}
