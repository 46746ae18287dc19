//! Everything at work, on either queue.

use std::{future::ready, sync::Arc};

use anyhow::Context as _;
use clerk_sync_api::{Api, ApiArgs};
use clerk_sync_clerk::backend::SecretKey;
use clerk_sync_console::{Clerk, ConsoleParts, Numbers, Queue, Token};
use clerk_sync_ingest::{Both, IngestArgs, verify::Verifier};
use clerk_sync_pipeline::{
    admin::Readiness,
    config::TopologyArgs,
    lifecycle::Shutdown,
    queue::{
        Consume, Publish, RetryLadder,
        amqp::{AmqpConsumers, AmqpPublisher, Server},
        embedded::EmbeddedQueue,
    },
    telemetry::Metrics,
};
use clerk_sync_projection::{Projection, database::Database};
use clerk_sync_worker::config::WorkerArgs;
use tokio::net::TcpListener;

use super::{demo::Demo, prepare};
use crate::data::DataFolder;

/// Everything that is there whatever the queue is.
pub(super) struct Parts {
    pub(super) ingest: IngestArgs,
    pub(super) worker: WorkerArgs,
    pub(super) api: Option<(SecretKey, ApiArgs)>,
    pub(super) console: Option<Token>,
    pub(super) verifier: Verifier,
    pub(super) listener: TcpListener,
    pub(super) db: Database,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shutdown: Shutdown,
    pub(super) demo: Option<Demo>,
}

pub(super) async fn with_rabbitmq(
    parts: Parts,
    server: Server,
    readiness: &Readiness,
) -> anyhow::Result<()> {
    // Tried once before anything connects. A broker that is away is waited for while webhooks are
    // answered 503, as they are whenever it is away.
    let declared = prepare::topology_now(&server).await?;
    let wanted = server.clone();
    let stopping = parts.shutdown.clone();
    let declaring = async move {
        if declared {
            Ok(true)
        } else {
            prepare::topology(&wanted, &stopping).await
        }
    };
    let queue = Queue::Rabbit(server.clone());
    let ladder = server.topology.ladder.clone();
    let told = readiness.told("queue_publish");
    let publisher = AmqpPublisher::start(server.clone(), parts.metrics.clone(), told);
    let lanes = parts.worker.worker_lanes.into();
    let mut consumers = AmqpConsumers::start(
        server,
        lanes,
        parts.worker.prefetch,
        &parts.metrics,
        readiness,
    );
    let lanes = consumers.take_lanes();
    let serving = serve(
        parts,
        publisher.clone(),
        lanes,
        (queue, ladder),
        readiness,
        declaring,
    );
    let result = Box::pin(serving).await;
    tokio::join!(publisher.close(), consumers.close());
    result
}

pub(super) async fn with_files(
    parts: Parts,
    topology: &TopologyArgs,
    folder: &DataFolder,
    readiness: &Readiness,
) -> anyhow::Result<()> {
    let queue = EmbeddedQueue::open_bounded(
        &folder.queue(),
        topology.retry_delays.clone(),
        parts.metrics.clone(),
        topology.queue_max_bytes,
    )?;
    let problem = queue.problem();
    readiness.asked("queue", move || {
        let problem = problem.borrow().clone();
        ready(problem.map_or(Ok(()), Err))
    });
    let lanes = (0..parts.worker.worker_lanes)
        .map(|_| queue.consumer())
        .collect();
    let ladder = topology.retry_delays.clone();
    let file = Queue::File {
        path: folder.queue(),
        ladder: ladder.clone(),
    };
    let serving = serve(
        parts,
        queue.publisher(),
        lanes,
        (file, ladder),
        readiness,
        ready(Ok(true)),
    );
    // Large, and only once.
    let result = Box::pin(serving).await;
    queue.close().await;
    result
}

/// Receives and applies until shutdown is requested. `declaring` makes the queue what it should be;
/// false when the process is stopping.
async fn serve<P: Publish, C: Consume>(
    parts: Parts,
    publisher: P,
    lanes: Vec<C>,
    (queue, ladder): (Queue, RetryLadder),
    readiness: &Readiness,
    declaring: impl Future<Output = anyhow::Result<bool>>,
) -> anyhow::Result<()> {
    let Parts {
        ingest,
        worker,
        api,
        console,
        verifier,
        listener,
        db,
        metrics,
        shutdown,
        demo,
    } = parts;
    let projection = Projection::new(db.clone(), worker.projection.config(), metrics.clone());
    clerk_sync_worker::watch_database(&projection, readiness);

    let key = api
        .as_ref()
        .map(|(key, api)| (key.clone(), api.clerk_api_url.clone()));
    let api: Option<Api> = api
        .map(|(key, api)| api.build(&key, db.clone(), projection.clone(), metrics.clone()))
        .transpose()?;
    if let Some(api) = &api {
        api.watch(readiness);
    }
    let console = match console {
        Some(token) => {
            let instance = worker.projection.instance();
            let clerk = key.map(|(key, url)| {
                Clerk::new(key, url, instance, projection.clone(), metrics.clone())
            });
            let parts = ConsoleParts {
                token,
                database: db.clone(),
                queue,
                numbers: Numbers::Own(metrics.clone()),
                readiness: readiness.clone(),
                clerk: clerk.transpose()?,
                shutdown: shutdown.clone(),
            };
            Some(parts.build()?)
        }
        None => None,
    };
    let (console, watch) = console.unzip();
    let ingester = tokio::spawn(clerk_sync_ingest::run_beside(
        ingest,
        verifier,
        listener,
        publisher,
        metrics.clone(),
        Some(Both(api.clone(), console.clone())),
        shutdown.clone(),
    ));
    // Webhooks are received from the first moment; applying begins when the database is there.
    let applying = async {
        let prepare =
            async { Ok(declaring.await? && prepare::tables(&db, &worker, &shutdown).await?) };
        match prepare.await {
            Ok(true) => {
                clerk_sync_worker::run(
                    lanes,
                    projection,
                    ladder,
                    &worker,
                    metrics.clone(),
                    readiness,
                    shutdown.clone(),
                )
                .await;
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(error) => {
                shutdown.request();
                Err(error)
            }
        }
    };
    let receiving = async {
        let received = ingester.await;
        if received.is_err() {
            shutdown.request();
        }
        if let Some(api) = &api {
            api.close().await;
        }
        if let Some(console) = &console {
            console.close().await;
        }
        received
    };
    let showing = async {
        match demo {
            Some(demo) => demo.show(&db.pool, &metrics, &shutdown).await,
            None => Ok(()),
        }
    };
    let watching = async {
        if let Some(watch) = watch {
            watch.run().await;
        }
    };
    let (received, applied, shown, ()) = tokio::join!(receiving, applying, showing, watching);
    received.context("the ingester failed")?;
    applied.and(shown)
}
