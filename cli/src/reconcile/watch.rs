//! `clerk-sync reconcile --watch`: a service that compares again and again.

use std::{sync::Arc, time::Duration};

use clerk_sync_pipeline::{
    Millis,
    admin::{self, Readiness},
    lifecycle::Shutdown,
    telemetry::{DriftKind, Label as _, Metrics},
};
use tokio::time::{Instant, sleep_until};

use super::{ReconcileArgs, reconcile, report::Report};
use crate::sides::Unchecked;

/// After a comparison that failed, the next one comes at the latest after so long.
const SOON: Duration = Duration::from_secs(300);

/// Compares until shutdown is requested.
pub(super) async fn watch(
    args: ReconcileArgs,
    every: Duration,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::new(0));
    let readiness = Readiness::default();
    let bound = args.process.bind_admin().await;
    let listener = bound.map_err(anyhow::Error::msg)?;
    let sides = args.sides.open(metrics.clone()).await?;
    clerk_sync_worker::watch_database(&sides.projection, &readiness);
    let watching = async {
        tokio::select! {
            // Whatever is under way is a question, or one transaction: nothing is left half done.
            () = shutdown.requested() => {}
            () = again_and_again(sides, &args, every, &metrics) => {}
        }
    };
    let (metrics, shutdown) = (metrics.clone(), shutdown.clone());
    admin::serve(listener, metrics, readiness, shutdown, watching).await;
    Ok(())
}

async fn again_and_again(
    sides: Unchecked,
    args: &ReconcileArgs,
    every: Duration,
    metrics: &Metrics,
) {
    loop {
        let began = Instant::now();
        // Checked each time: the key, or the database behind the URL, may become another one.
        let compared = async {
            let sides = sides.clone().check(args.fix).await?;
            reconcile(&sides, args, false).await
        };
        let next = match Box::pin(compared).await {
            Ok(report) => {
                expose(&report, metrics);
                log(&report);
                every
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the comparison with Clerk has failed");
                every.min(SOON)
            }
        };
        sleep_until(began + next).await;
    }
}

fn expose(report: &Report, metrics: &Metrics) {
    for kind in DriftKind::ALL {
        let left = i64::try_from(report.left(*kind)).unwrap_or(i64::MAX);
        metrics.drift_users.get(*kind).set(left);
    }
    let now = Millis::now().seconds_since(Millis(0));
    metrics.last_reconciliation.set(now);
}

fn log(report: &Report) {
    let (users, rows) = (report.users, report.rows);
    let [missing, stale, ghost, unmanaged] = [
        DriftKind::Missing,
        DriftKind::Stale,
        DriftKind::Ghost,
        DriftKind::Unmanaged,
    ]
    .map(|kind| report.found(kind));
    let left = report.left_in_all();
    let duration_ms = u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX);
    if let Some(allowed) = report.most_deletes {
        tracing::error!(
            ghost,
            allowed,
            "too many rows are of nobody at Clerk: none was deleted"
        );
    }
    if left > 0 {
        tracing::warn!(
            users,
            rows,
            missing,
            stale,
            ghost,
            unmanaged,
            left,
            duration_ms,
            "rows have drifted"
        );
    } else {
        tracing::info!(
            users,
            rows,
            missing,
            stale,
            ghost,
            unmanaged,
            left,
            duration_ms,
            "compared with Clerk"
        );
    }
}
