//! The worker's process: RabbitMQ on one side, the database on the other.

use anyhow::Context as _;
use clerk_sync_pipeline::{lifecycle::Shutdown, queue::amqp::AmqpConsumers, telemetry::Metrics};
use clerk_sync_projection::Projection;

use crate::config::Args;

/// Works until shutdown is requested.
///
/// # Errors
/// The admin port cannot be had, or the database's URL cannot be understood.
pub async fn work(args: Args, shutdown: Shutdown) -> anyhow::Result<()> {
    let admin = args.process.bind_admin(Metrics::new(0)).await?;
    let (metrics, readiness) = (&admin.metrics, &admin.readiness);
    let connections = args.worker.connections();
    let db = args.database.open(connections).await;
    let config = args.worker.projection.config();
    let projection = Projection::new(db.context("DATABASE_URL")?, config, metrics.clone());

    let server = args.amqp.server();
    let ladder = server.topology.ladder.clone();
    let lanes = args.worker.worker_lanes.into();
    let mut consumers =
        AmqpConsumers::start(server, lanes, args.worker.prefetch, metrics, readiness);
    let work = async {
        let lanes = consumers.take_lanes();
        crate::run(
            lanes,
            projection,
            ladder,
            &args.worker,
            metrics.clone(),
            readiness,
            shutdown.clone(),
        )
        .await;
        consumers.close().await;
    };
    admin.serve(shutdown.clone(), work).await;
    Ok(())
}
