//! The worker's settings.

use std::time::Duration;

use clerk_sync_pipeline::{
    config::{AmqpArgs, ProcessArgs},
    queue::BatchLimits,
    secret::ServerUrl,
};
use clerk_sync_projection::{
    MissingEmail, ProjectionConfig,
    change::Rules,
    config::{SessionArgs, database_url},
};

/// Applies Clerk's events from RabbitMQ to the database
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "clerk-sync-worker", version)]
pub struct Args {
    /// The application's database: postgres://… or sqlite:…
    #[arg(long, env, hide_env_values = true, value_name = "URL", value_parser = database_url)]
    pub database_url: ServerUrl,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment would become the help's heading")]
    pub session: SessionArgs,
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
    /// The only Clerk instance whose events are applied (ins_…); others are dead-lettered
    #[arg(long, env, value_name = "ID")]
    pub clerk_instance_id: Option<String>,
    /// Credits granted to a new user, once. 0 grants none
    #[arg(long, env, default_value_t = 0, value_name = "AMOUNT", value_parser = clap::value_parser!(i32).range(0..))]
    pub initial_credits: i32,
    /// A user without any address: dead-letter the event, or write `<clerk id>@no-email.invalid`
    #[arg(
        long,
        env,
        default_value = "dead-letter",
        value_enum,
        ignore_case = true
    )]
    pub missing_email: MissingEmail,
    /// How long the ledger remembers an event. Correctness does not depend on it
    #[arg(long, env, default_value = "30d", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub ledger_retention: Duration,
    /// Batches in hand at once, each with a database connection of its own
    #[arg(long, env, default_value_t = 2, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub worker_lanes: u16,
    /// Most deliveries in one transaction
    #[arg(long, env, default_value_t = 128, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub batch_events: u16,
    /// Longest wait for a batch to fill
    #[arg(long, env, default_value = "5ms", value_name = "TIME", value_parser = humantime::parse_duration)]
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

    /// How events become rows.
    #[must_use]
    pub fn projection(&self) -> ProjectionConfig {
        let rules = Rules {
            missing_email: self.missing_email,
            instance_id: self.clerk_instance_id.clone().filter(|id| !id.is_empty()),
        };
        ProjectionConfig {
            rules,
            initial_credits: self.initial_credits,
        }
    }

    /// Database connections: one for each lane, one to prune the ledger, one to answer `/readyz`.
    #[must_use]
    pub fn connections(&self) -> u32 {
        u32::from(self.worker_lanes) + 2
    }
}
