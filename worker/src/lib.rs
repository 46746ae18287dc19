//! The worker: takes deliveries from the queue in batches, has the projection apply them, and
//! settles each.
//!
//! Enters: deliveries, of any age and order, any number of times. Leaves: committed rows, and for
//! every delivery an acknowledgement, a rung of the retry ladder, or a dead letter with its reason.
//! Guaranteed: a delivery is acknowledged only after its transaction is committed, or after the
//! broker has confirmed that it was moved on. Never here: SQL, payloads, HTTP.

pub mod config;
mod lane;
mod ledger;
pub mod process;

use std::{future::Future, sync::Arc};

use clerk_sync_pipeline::{
    admin::Readiness,
    lifecycle::Shutdown,
    queue::{Consume, RetryLadder},
    telemetry::Metrics,
};
use clerk_sync_projection::Projection;
use tokio::task::JoinSet;

use crate::{
    config::WorkerArgs,
    lane::{Applier, Lane},
};

/// Works until shutdown is requested: one task for each consumer, and one that prunes the ledger.
///
/// Returns when every batch in hand is settled or handed back. The caller owns the connections and
/// closes them afterwards.
///
/// # Panics
/// When a task panics: a lane that is gone would leave its deliveries waiting for ever.
pub async fn run<C: Consume>(
    consumers: Vec<C>,
    projection: Projection,
    ladder: RetryLadder,
    settings: &WorkerArgs,
    metrics: Arc<Metrics>,
    readiness: &Readiness,
    shutdown: Shutdown,
) {
    let mut tasks = JoinSet::new();
    watch_database(&projection, readiness);
    let applying = readiness.told("apply");
    applying.ready();
    let applier = Applier {
        projection: projection.clone(),
        ladder,
        metrics,
        logged: Arc::default(),
        readiness: applying,
        shutdown: shutdown.clone(),
    };
    for consumer in consumers {
        let lane = Lane {
            consumer,
            limits: settings.limits(),
            applier: applier.clone(),
        };
        tasks.spawn(lane.run());
    }
    tasks.spawn(ledger::prune(
        projection,
        settings.ledger_retention,
        shutdown,
    ));
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

/// Makes the database a part of readiness, asked for each `/readyz`.
pub fn watch_database(projection: &Projection, readiness: &Readiness) {
    let projection = projection.clone();
    readiness.asked("database", move || {
        let projection = projection.clone();
        async move {
            projection
                .is_fit()
                .await
                .map_err(|unavailable| unavailable.0)
        }
    });
}

/// Resolves with `future`, or with `None` as soon as stopping was asked for.
async fn unless_stopping<T>(shutdown: &Shutdown, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = shutdown.requested() => None,
        value = future => Some(value),
    }
}
