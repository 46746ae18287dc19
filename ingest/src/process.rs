//! The ingester's process: the webhook port on one side, RabbitMQ on the other.

use std::sync::Arc;

use clerk_sync_pipeline::{
    admin::{self, Readiness},
    config,
    lifecycle::Shutdown,
    queue::amqp::AmqpPublisher,
    telemetry::Metrics,
};

use crate::config::Args;

/// Receives until shutdown is requested.
///
/// # Errors
/// A port cannot be had; the text names the setting.
pub async fn receive(args: Args, shutdown: Shutdown) -> Result<(), String> {
    let verifier = args.clerk_webhook_signing_secret;
    let listener = config::bind("LISTEN", args.ingest.listen).await?;
    let admin_listener = args.process.bind_admin().await?;
    let metrics = Arc::new(Metrics::new(verifier.secrets()));
    let readiness = Readiness::default();
    let queue = readiness.told("queue_publish");
    let publisher = AmqpPublisher::start(args.amqp.server(), metrics.clone(), queue);
    let receiving = crate::run(
        args.ingest,
        verifier,
        listener,
        publisher.clone(),
        metrics.clone(),
        shutdown.clone(),
    );
    let work = async {
        receiving.await;
        publisher.close().await;
    };
    admin::serve(admin_listener, metrics, readiness, shutdown, work).await;
    Ok(())
}
