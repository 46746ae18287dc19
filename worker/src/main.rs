//! The worker's process: RabbitMQ on one side, the database on the other.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context as _;
use clap::Parser;
use clerk_sync_pipeline::{
    admin::{self, Readiness},
    config::{self, AmqpArgs, ProcessArgs},
    lifecycle::Shutdown,
    queue::amqp::AmqpConsumers,
    secret::ServerUrl,
    telemetry::Metrics,
};
use clerk_sync_projection::{Projection, database};
use clerk_sync_worker::config::{SessionArgs, WorkerArgs, database_url};

/// Applies Clerk's events from RabbitMQ to the database
#[derive(Parser)]
#[command(name = "clerk-sync-worker", version)]
struct Args {
    /// The application's database: postgres://… or sqlite:…
    #[arg(long, env, hide_env_values = true, value_name = "URL", value_parser = database_url)]
    database_url: ServerUrl,
    #[command(flatten)]
    session: SessionArgs,
    #[command(flatten)]
    amqp: AmqpArgs,
    #[command(flatten)]
    worker: WorkerArgs,
    #[command(flatten)]
    process: ProcessArgs,
}

impl AsRef<ProcessArgs> for Args {
    fn as_ref(&self) -> &ProcessArgs {
        &self.process
    }
}

fn main() -> ExitCode {
    config::run(work)
}

async fn work(args: Args, shutdown: Shutdown) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::new(0));
    let readiness = Readiness::default();
    let listener = args
        .process
        .bind_admin()
        .await
        .map_err(anyhow::Error::msg)?;
    let prepare = args.session.database_prepared_statements;
    let db = database::open(&args.database_url, args.worker.connections(), prepare)
        .await
        .context("DATABASE_URL")?;
    let projection = Projection::new(db, args.worker.projection(), metrics.clone());

    let server = args.amqp.server();
    let ladder = server.topology.ladder.clone();
    let lanes = args.worker.worker_lanes.into();
    let mut consumers =
        AmqpConsumers::start(server, lanes, args.worker.prefetch, &metrics, &readiness);
    let work = async {
        let lanes = consumers.take_lanes();
        clerk_sync_worker::run(
            lanes,
            projection,
            ladder,
            &args.worker,
            metrics.clone(),
            &readiness,
            shutdown.clone(),
        )
        .await;
        consumers.close().await;
    };
    admin::serve(
        listener,
        metrics.clone(),
        readiness.clone(),
        shutdown.clone(),
        work,
    )
    .await;
    Ok(())
}
