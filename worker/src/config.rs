//! The worker's settings.

use std::time::Duration;

use clerk_sync_pipeline::{
    config::{self, AmqpArgs, ProcessArgs},
    queue::BatchLimits,
};
use clerk_sync_projection::config::{DatabaseArgs, ProjectionArgs};

/// Applies Clerk's events from RabbitMQ to the database
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "clerk-sync-worker", version)]
pub struct Args {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment would become the help's heading")]
    pub database: DatabaseArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment would become the help's heading")]
    pub amqp: AmqpArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment would become the help's heading")]
    pub worker: WorkerArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment would become the help's heading")]
    pub process: ProcessArgs,
}

impl AsRef<ProcessArgs> for Args {
    fn as_ref(&self) -> &ProcessArgs {
        &self.process
    }
}

/// How deliveries are taken and applied.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Worker")]
pub struct WorkerArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment would become the help's heading")]
    pub projection: ProjectionArgs,
    /// How long the ledger remembers an event. Correctness does not depend on it
    #[arg(long, env, default_value = "30d", value_name = "TIME", value_parser = config::time)]
    pub ledger_retention: Duration,
    /// Batches in hand at once, each with a database connection of its own
    #[arg(long, env, default_value_t = 2, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub worker_lanes: u16,
    /// Most deliveries in one transaction
    #[arg(long, env, default_value_t = 128, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub batch_events: u16,
    /// Longest wait for a batch to fill
    #[arg(long, env, default_value = "5ms", value_name = "TIME", value_parser = config::time)]
    pub batch_linger: Duration,
    /// Deliveries that RabbitMQ sends ahead to each lane
    #[arg(long, env, default_value_t = 300, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    pub prefetch: u16,
}

impl WorkerArgs {
    /// How much a batch may hold and wait.
    #[must_use]
    pub fn limits(&self) -> BatchLimits {
        BatchLimits {
            events: self.batch_events.into(),
            linger: self.batch_linger,
        }
    }

    /// Database connections: one for each lane, one to prune the ledger, one to answer `/readyz`.
    #[must_use]
    pub fn connections(&self) -> u32 {
        u32::from(self.worker_lanes) + 2
    }
}
