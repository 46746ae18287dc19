//! The ingester's process: the webhook port on one side, RabbitMQ on the other.

use std::{process::ExitCode, sync::Arc};

use clap::Parser;
use clerk_sync_ingest::{
    IngestArgs,
    config::{older_signing_secret, signing_secret},
    verify::Verifier,
};
use clerk_sync_pipeline::{
    admin::{self, Readiness},
    config::{self, AmqpArgs, ProcessArgs},
    lifecycle::Shutdown,
    queue::amqp::AmqpPublisher,
    telemetry::Metrics,
};

/// Receives Clerk's webhooks: verifies each, queues its exact bytes in RabbitMQ, answers 204
#[derive(Parser)]
#[command(name = "clerk-sync-ingest", version)]
struct Args {
    /// The Clerk endpoint's Signing Secret (whsec_…), from the dashboard: Configure, Webhooks, the
    /// endpoint. Several, with commas between them, while it is rotated
    #[arg(
        long, env, hide_env_values = true, hide_default_value = true, value_name = "SECRETS",
        value_parser = signing_secret, default_value = older_signing_secret(),
        required = older_signing_secret().is_none()
    )]
    clerk_webhook_signing_secret: Verifier,
    #[command(flatten)]
    ingest: IngestArgs,
    #[command(flatten)]
    amqp: AmqpArgs,
    #[command(flatten)]
    process: ProcessArgs,
}

impl AsRef<ProcessArgs> for Args {
    fn as_ref(&self) -> &ProcessArgs {
        &self.process
    }
}

fn main() -> ExitCode {
    config::run(receive)
}

async fn receive(args: Args, shutdown: Shutdown) -> Result<(), String> {
    let verifier = args.clerk_webhook_signing_secret;
    let listener = config::bind("LISTEN", args.ingest.listen).await?;
    let admin_listener = args.process.bind_admin().await?;
    let metrics = Arc::new(Metrics::new(verifier.secrets()));
    let readiness = Readiness::default();
    let queue = readiness.told("queue");
    let publisher = AmqpPublisher::start(args.amqp.server(), metrics.clone(), queue);
    let stopping = shutdown.clone();
    let counted = metrics.clone();
    let work = async {
        let queue = publisher.clone();
        clerk_sync_ingest::run(args.ingest, verifier, listener, queue, counted, stopping).await;
        publisher.close().await;
    };
    admin::serve(admin_listener, metrics, readiness, shutdown, work).await;
    Ok(())
}
