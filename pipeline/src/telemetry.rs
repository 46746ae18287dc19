//! Logs and metrics: every metric name and label of the project, and where logs go.

mod label;
mod logs;
mod metrics;
mod sampler;
mod series;
mod values;

pub use label::Label;
pub(crate) use label::labels;
pub use logs::{LogFormat, init_logs, log_filter, whole_millis};
pub use metrics::{LaneGauge, Metrics, QueueConnection};
pub use sampler::LogSampler;
pub use series::{CounterGrid, Counters, Gauges};
pub use values::{
    ApiEndpoint, ApiOutcome, ClerkFetch, ConnectionState, DbOperation, DbResult, DriftKind,
    EventKind, LaneState, Outcome, WebhookOutcome,
};
