//! `clerk-sync reconcile --watch`: a service that compares again and again.

use std::time::Duration;

use clerk_sync_clerk::backend::ApiError;
use clerk_sync_pipeline::{
    Millis,
    lifecycle::Shutdown,
    telemetry::{DriftKind, Label as _, Metrics, whole_millis},
};
use clerk_sync_projection::Unavailable;
use tokio::time::{Instant, sleep_until};

use super::{ReconcileArgs, before, reconcile, report::Report};
use crate::sides::Unchecked;

/// After a comparison that failed, the next one comes at the latest after so long.
const SOON: Duration = Duration::from_secs(300);

/// Compares until shutdown is requested.
pub(super) async fn watch(
    args: ReconcileArgs,
    every: Duration,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let admin = args.process.bind_admin(Metrics::new(0)).await?;
    let sides = args.sides.open(admin.metrics.clone()).await?;
    clerk_sync_worker::watch_database(&sides.projection, &admin.readiness);
    let mut ended = Ok(());
    let watching = async {
        tokio::select! {
            // Whatever is under way is a question, or one transaction: nothing is left half done.
            () = shutdown.requested() => {}
            error = again_and_again(sides, &args, every, &admin.metrics) => ended = Err(error),
        }
    };
    admin.serve(shutdown.clone(), watching).await;
    ended
}

/// Returns why it never came to a comparison: a key that is refused, or of another instance, is
/// somebody's mistake, and to be seen at once. What comes later may pass, and is logged.
async fn again_and_again(
    sides: Unchecked,
    args: &ReconcileArgs,
    every: Duration,
    metrics: &Metrics,
) -> anyhow::Error {
    let mut succeeded = false;
    // When the last comparison began that has left nothing.
    let mut clean = None;
    loop {
        let began = Instant::now();
        // Checked each time: the key, or the database behind the URL, may become another one.
        let compared = async {
            let sides = sides.clone().check(args.fix).await?;
            let since = args
                .since
                .and_then(|time| since(clean, time, Millis::now()));
            reconcile(&sides, args, since, false).await
        };
        let next = match Box::pin(compared).await {
            Ok(report) => {
                succeeded = true;
                expose(&report, metrics);
                log(&report);
                if report.left_in_all() == 0 {
                    clean = Some(report.started_at);
                }
                every
            }
            Err(error) if !succeeded && !may_pass(&error) => return error,
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the comparison with Clerk has failed");
                every.min(SOON)
            }
        };
        sleep_until(began + next).await;
    }
}

/// Whether Clerk or the database may only be away.
fn may_pass(error: &anyhow::Error) -> bool {
    let of_clerk = error.downcast_ref::<ApiError>();
    of_clerk.is_some_and(ApiError::is_transient) || error.is::<Unavailable>()
}

/// From when on to look at changes: for the time that was asked for, and as far back as to the last
/// comparison that has left nothing. So neither an outage makes a gap, nor does drift that nobody
/// mends go out of sight. `None` where there was no such comparison: then at all users.
fn since(clean: Option<Millis>, time: Duration, now: Millis) -> Option<Millis> {
    clean.map(|clean| clean.min(before(now, time)))
}

fn expose(report: &Report, metrics: &Metrics) {
    for kind in DriftKind::ALL {
        // What was not looked for is as it was.
        if *kind == DriftKind::Ghost && report.since.is_some() {
            continue;
        }
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
    let duration_ms = whole_millis(report.took);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_an_outage_nor_drift_that_is_left_makes_a_gap() {
        let hour = Duration::from_secs(3_600);
        let at = |hours: i64| Millis(hours * 3_600_000);
        // Nothing was compared yet, or each time something was left.
        assert_eq!(since(None, hour, at(10)), None);
        assert_eq!(since(Some(at(9)), 2 * hour, at(10)), Some(at(8)));
        assert_eq!(since(Some(at(3)), 2 * hour, at(10)), Some(at(3)));
    }
}
