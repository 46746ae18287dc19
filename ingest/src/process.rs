//! The ingester's process: the webhook port on one side, RabbitMQ on the other.

use clerk_sync_pipeline::{
    config::{self, BindError},
    lifecycle::Shutdown,
    queue::amqp::AmqpPublisher,
    telemetry::Metrics,
};

use crate::config::Args;

/// Receives until shutdown is requested.
///
/// # Errors
/// A port cannot be had.
pub async fn receive(args: Args, shutdown: Shutdown) -> Result<(), BindError> {
    let verifier = args.clerk_webhook_signing_secret;
    let listener = config::bind("LISTEN", args.ingest.listen).await?;
    let metrics = Metrics::new(verifier.secrets());
    let admin = args.process.bind_admin(metrics).await?;
    let queue = admin.readiness.told("queue_publish");
    let publisher = AmqpPublisher::start(args.amqp.server(), admin.metrics.clone(), queue);
    let receiving = crate::run(
        args.ingest,
        verifier,
        listener,
        publisher.clone(),
        admin.metrics.clone(),
        shutdown.clone(),
    );
    let work = async {
        receiving.await;
        publisher.close().await;
    };
    admin.serve(shutdown, work).await;
    Ok(())
}
