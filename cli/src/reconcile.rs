//! `clerk-sync reconcile`: whether the rows are still as Clerk has them.
//!
//! All users are walked along, then all rows; both in pages, whatever their number. Who differs is
//! a suspect, who is looked at again before it is said. Writing, if it is asked for, goes through
//! the projection, as everything does.

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clerk_sync_pipeline::{
    Millis,
    config::{self, ProcessArgs},
    telemetry::Metrics,
};

use crate::{
    pages::Everybody,
    progress::Progress,
    sides::{Sides, SidesArgs},
};

mod confirm;
mod mend;
mod report;
mod walk;
mod watch;
mod wording;

use confirm::Suspect;
use mend::MaxDeletes;
use report::Report;

/// Exit code when rows have drifted.
const EXIT_DRIFT: u8 = 3;
/// What is added to `--since`: an `updated_at` is a little older than what it is read by.
const OVERLAP: Duration = Duration::from_secs(60);

/// Compare every row with Clerk, and mend what has drifted
///
/// It finds users without a row (missing), rows that are not as Clerk's user is (stale), rows of
/// users that Clerk has no more (ghost), and rows of Clerk's users that the sync has never written
/// (unmanaged). Each is looked at again before it is reported: what changes meanwhile is no drift.
#[derive(Clone, clap::Args)]
#[command(after_help = "\
Examples:
  clerk-sync reconcile
  clerk-sync reconcile --fix
  clerk-sync reconcile --since 25h --json
  clerk-sync reconcile --watch 1h --fix

Exit codes: 0 no drift, or none that is left, 3 drift, 1 failed, 64 not
configured.")]
pub(crate) struct ReconcileArgs {
    /// Mend it: write what is missing or stale, take over what is unmanaged, delete ghosts
    #[arg(long)]
    fix: bool,
    /// Most rows that --fix may delete, as a number or a share of those that the sync has written;
    /// with more ghosts than that, none is deleted
    #[arg(long, default_value = "1%", value_name = "ROWS")]
    max_deletes: MaxDeletes,
    /// Look only at users that changed in this time: 25h, 7days. Finds no ghosts
    #[arg(long, value_name = "TIME", value_parser = config::time)]
    since: Option<Duration>,
    /// How long a webhook may be on its way before its user counts as drifted
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = config::time)]
    settle: Duration,
    /// As JSON, whose shape docs/RECONCILE.md has
    #[arg(long, conflicts_with = "watch")]
    json: bool,
    /// Stay, and compare again after this time: 1h. With metrics on the admin port
    #[arg(long, value_name = "TIME", value_parser = some_time, conflicts_with = "adopt_instance")]
    watch: Option<Duration>,
    #[command(flatten)]
    sides: SidesArgs,
    #[command(flatten)]
    process: ProcessArgs,
}

/// So long before a moment.
fn before(moment: Millis, time: Duration) -> Millis {
    let time = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    Millis(moment.0.saturating_sub(time).max(0))
}

fn some_time(text: &str) -> Result<Duration, String> {
    let time = config::time(text)?;
    if time.is_zero() {
        return Err("use a time above 0".to_owned());
    }
    Ok(time)
}

pub(crate) fn run(args: ReconcileArgs) -> ExitCode {
    if let Some(every) = args.watch {
        return config::start(&args.process.clone(), |shutdown| {
            watch::watch(args, every, shutdown)
        });
    }
    crate::finish(async move {
        let sides = args.sides.open(Arc::new(Metrics::new(0))).await?;
        let sides = sides.check_aloud(args.fix).await?;
        let since = args.since.map(|time| before(Millis::now(), time));
        let report = Box::pin(reconcile(&sides, &args, since, true)).await?;
        if args.json {
            say!("{}", report.json()?);
        } else {
            wording::tell(&report, args.fix);
        }
        Ok(match report.left_in_all() {
            0 => ExitCode::SUCCESS,
            _ => EXIT_DRIFT.into(),
        })
    })
}

/// One comparison, under way.
struct Reconciliation<'a> {
    sides: &'a Sides,
    progress: Progress,
    report: Report,
    settle: Duration,
    mends: bool,
    max_deletes: MaxDeletes,
    /// Rows that the sync has written: what the share of [`MaxDeletes`] is of.
    managed: u64,
    /// Who is to be looked at again.
    suspects: Vec<Suspect>,
    /// Ghosts that are to be deleted.
    ghosts: Vec<String>,
}

/// Compares all, or those who changed since then.
async fn reconcile(
    sides: &Sides,
    args: &ReconcileArgs,
    since: Option<Millis>,
    shows_progress: bool,
) -> anyhow::Result<Report> {
    let started = Instant::now();
    let since = since.map(|since| before(since, OVERLAP));
    let mut reconciliation = Reconciliation {
        sides,
        progress: Progress::silent(),
        report: Report::new(&sides.instance.id, since),
        settle: args.settle,
        mends: args.fix,
        max_deletes: args.max_deletes,
        managed: 0,
        suspects: Vec::new(),
        ghosts: Vec::new(),
    };
    match since {
        None => {
            let everybody = Everybody::begin(&sides.backend, None, 0).await?;
            if shows_progress {
                reconciliation.progress = Progress::new(everybody.count, 0);
            }
            reconciliation.walk_all(everybody).await?;
        }
        Some(since) => reconciliation.walk_changed(since).await?,
    }
    reconciliation.confirm().await?;
    reconciliation.delete_ghosts().await?;
    reconciliation.progress.clear();
    let mut report = reconciliation.report;
    report.took = started.elapsed();
    Ok(report)
}
