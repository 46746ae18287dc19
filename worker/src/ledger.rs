//! The ledger is kept for a while only.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use clerk_sync_pipeline::lifecycle::Shutdown;
use clerk_sync_projection::Projection;
use tokio::time::sleep;

use crate::unless_stopping;

/// Between two looks: an hour of rows is little beside a month of them.
const INTERVAL: Duration = Duration::from_hours(1);
/// Before the first look, spread so that replicas started together do not prune together.
const FIRST: Duration = Duration::from_mins(1);

/// Removes rows older than `retention`, until shutdown is requested. Several may run at once.
pub(crate) async fn prune(projection: Projection, retention: Duration, shutdown: Shutdown) {
    let mut pause = FIRST.mul_f64(rand::random_range(0.5..1.5));
    while unless_stopping(&shutdown, sleep(pause)).await.is_some() {
        pause = INTERVAL;
        let retention = TimeDelta::from_std(retention).unwrap_or(TimeDelta::MAX);
        let Some(before) = Utc::now().checked_sub_signed(retention) else {
            continue;
        };
        match unless_stopping(&shutdown, projection.prune(before)).await {
            Some(Ok(0)) | None => {}
            Some(Ok(rows)) => tracing::info!(rows, "the ledger was pruned"),
            // The next look will do. Told all the same: what only pruning needs, nobody else misses.
            Some(Err(error)) => tracing::warn!(%error, "the ledger was not pruned"),
        }
    }
}
