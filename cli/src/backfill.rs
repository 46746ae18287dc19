//! `clerk-sync backfill`: every user of the instance into the database.
//!
//! Users come oldest first, so that whoever signs up meanwhile comes at the end. Webhooks go on
//! beside it: each user is a snapshot with its own version, and the newer one wins. How far it is,
//! is kept in the database after each page. Going over what is done already would be right too,
//! and at most 500 users of it are: but a million take Clerk some quarter of an hour.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use clerk_sync_api::fetch::present;
use clerk_sync_clerk::backend::{MAX_IDS, User};
use clerk_sync_entity::bookmarks;
use clerk_sync_pipeline::{Millis, lifecycle::Shutdown, telemetry::Metrics};
use clerk_sync_projection::{Snapshot, SnapshotOutcome, Standing};
use indicatif::HumanCount;
use tokio::time::sleep;

use crate::{
    pages::{Course, Everybody, Pages},
    progress::{Progress, in_words},
    sides::{BATCH, Sides, SidesArgs, patiently},
};

mod tally;

use tally::Tally;

/// A backfill goes on where a former one was, if that began at most a day ago: in a longer time too
/// much may have happened to what it did first, and all of it again takes minutes.
const RESUMABLE_MS: i64 = 24 * 3_600_000;
/// How long to wait before failed users are tried again: a change must be some seconds old before a
/// snapshot with its time is believed to be the only one.
const SETTLE: Duration = Duration::from_secs(3);
/// Failed users that are shown.
const MOST_SHOWN: usize = 10;

/// Bring every user of a Clerk instance into the database
///
/// For users who signed up before there was a webhook. It can run while webhooks arrive, and again
/// at any time; when it was interrupted, it goes on where it was.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  clerk-sync backfill
  clerk-sync backfill --missing-email placeholder
  CLERK_SECRET_KEY=sk_live_… DATABASE_URL=postgres://… clerk-sync backfill

Exit codes: 0 every user is done, 1 some are not or it was interrupted, 64 not
configured.")]
pub(crate) struct BackfillArgs {
    /// Begin with the first user, also when a former backfill was interrupted
    #[arg(long)]
    restart: bool,
    #[command(flatten)]
    sides: SidesArgs,
}

pub(crate) fn run(args: BackfillArgs) -> ExitCode {
    crate::finish_itself(async move {
        let shutdown = Shutdown::on_signals()?;
        let begin = async {
            let sides = args.sides.open(Arc::new(Metrics::new(0))).await?;
            Backfill::begin(sides.check_aloud(true).await?, args.restart).await
        };
        let backfill = crate::unless_stopped(&shutdown, begin).await?;
        Box::pin(backfill.run(&shutdown)).await
    })
}

struct Backfill {
    sides: Sides,
    pages: Pages,
    tally: Tally,
    progress: Progress,
}

impl Backfill {
    async fn begin(sides: Sides, restart: bool) -> anyhow::Result<Self> {
        let mut tally = Tally::of(&sides.instance.id);
        if !restart && let Some((after, left)) = left_behind(&sides).await? {
            match obstacle(&sides, &after, &left).await? {
                None => tally = left,
                Some(why) => {
                    say!("a former backfill is not gone on with, this one begins anew:\n{why}");
                }
            }
        }
        let before = tally.total();
        let (id, kind) = (&sides.instance.id, sides.instance.kind);
        let everybody = Everybody::begin(&sides.backend, tally.after.clone(), before).await?;
        let all = everybody.count;
        say!("{} users in instance {id} ({kind})", HumanCount(all));
        if before > 0 {
            say!("going on after {} that are done", HumanCount(before));
        }
        Ok(Self {
            sides,
            pages: Pages::along(Course::All(everybody)),
            tally,
            progress: Progress::new(all, before),
        })
    }

    async fn run(mut self, shutdown: &Shutdown) -> anyhow::Result<ExitCode> {
        let walked = crate::unless_stopped(shutdown, self.bring_all()).await;
        self.progress.clear();
        let done = HumanCount(self.tally.total());
        walked.with_context(|| {
            format!("interrupted after {done} users; run it again, and it goes on there")
        })?;
        self.summarize();
        let done = self.tally.missing_email + self.tally.failed() == 0;
        Ok(if done {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    async fn bring_all(&mut self) -> anyhow::Result<()> {
        self.walk().await?;
        self.try_failed_again().await?;
        let projection = &self.sides.projection;
        patiently(|| projection.set_bookmark(bookmarks::BACKFILL, None)).await?;
        Ok(())
    }

    async fn walk(&mut self) -> anyhow::Result<()> {
        while let Some(page) = self.pages.next().await {
            let users = page?;
            self.bring(&users).await?;
            if let Some(last) = users.last() {
                self.tally.after = Some(last.id.clone());
            }
            // Only now: what is bookmarked as done is committed.
            let bookmark = serde_json::to_string(&self.tally)?;
            let projection = &self.sides.projection;
            let name = bookmarks::BACKFILL;
            patiently(|| projection.set_bookmark(name, Some(&bookmark))).await?;
            self.progress.set(self.tally.total());
        }
        Ok(())
    }

    /// An address may have become free since: of a row that the sync had not written before its own
    /// user's turn came.
    async fn try_failed_again(&mut self) -> anyhow::Result<()> {
        let failed = std::mem::take(&mut self.tally.failed);
        let ids: Vec<&str> = failed.keys().map(String::as_str).collect();
        if !ids.is_empty() {
            sleep(SETTLE).await;
        }
        for some in ids.chunks(MAX_IDS) {
            let answers = self.sides.ask_again(some).await?;
            let users: Vec<User> = answers.into_iter().flatten().collect();
            self.bring(&users).await?;
            // Of whoever was deleted meanwhile there is nothing to bring.
            self.tally.current += (some.len() - users.len()) as u64;
        }
        Ok(())
    }

    /// Applies users, and counts what became of them.
    async fn bring(&mut self, users: &[User]) -> anyhow::Result<()> {
        let outcomes = self.sides.apply(users).await?;
        let stale = users.iter().zip(&outcomes);
        let stale = stale.filter(|(_, outcome)| **outcome == SnapshotOutcome::Stale);
        let stale: Vec<Snapshot<'_>> = stale.map(|(user, _)| present(user)).collect();
        let mut standings = Vec::new();
        for some in stale.chunks(BATCH) {
            standings.extend(patiently(|| self.sides.projection.compare(some)).await?);
        }
        let mut standings = standings.iter();
        for (user, outcome) in users.iter().zip(&outcomes) {
            let why_stale = match outcome {
                SnapshotOutcome::Stale => standings.next().and_then(why_stale),
                _ => None,
            };
            self.tally.count(&user.id, outcome, why_stale);
        }
        Ok(())
    }

    fn summarize(&self) {
        let tally = &self.tally;
        let total = tally.total();
        let (took, rate) = (self.progress.took(), self.progress.rate(total));
        for (what, count) in [
            ("created", tally.created),
            ("updated", tally.updated),
            ("already current", tally.current),
            ("missing address", tally.missing_email),
            ("failed", tally.failed()),
            ("total", total),
        ] {
            say!("  {what:<15} {:>11}", HumanCount(count).to_string());
        }
        say!("in {}, {rate:.0} users/s", in_words(took));
        for (clerk_id, why) in tally.failed.iter().take(MOST_SHOWN) {
            say!("\nfailed: {clerk_id}\n  {why}");
        }
        if tally.missing_email > 0 {
            say!(
                "\nUsers without an address have no row. To give them one, with a placeholder as\n\
                 their address, set MISSING_EMAIL=placeholder for the worker too."
            );
        }
        if tally.failed() > 0 {
            say!("\nRun it again when the cause is gone: what is done is passed over quickly.");
        }
    }
}

/// Why a row is not as Clerk's user is, although nothing was written.
fn why_stale(standing: &Standing) -> Option<&'static str> {
    match standing {
        Standing::Current | Standing::Newer => None,
        Standing::Buried => Some("remembered as deleted: will not come back"),
        Standing::Missing
        | Standing::Stale
        | Standing::Ghost
        | Standing::Unmanaged
        | Standing::MissingEmail
        | Standing::Refused(_) => Some("changed at this moment, and its row is not as it is now"),
    }
}

/// How far a former backfill of this instance came, and after whom to go on.
async fn left_behind(sides: &Sides) -> anyhow::Result<Option<(String, Tally)>> {
    let left = patiently(|| sides.projection.bookmark(bookmarks::BACKFILL)).await?;
    let left = left.and_then(|json| serde_json::from_str::<Tally>(&json).ok());
    let left = left.filter(|left| left.instance == sides.instance.id);
    Ok(left.and_then(|left| Some((left.after.clone()?, left))))
}

/// Why a former backfill cannot be gone on with, if it cannot: what it has done must still be there.
async fn obstacle(
    sides: &Sides,
    after: &str,
    left: &Tally,
) -> anyhow::Result<Option<&'static str>> {
    if Millis::now().0.saturating_sub(left.began_at) > RESUMABLE_MS {
        return Ok(Some("it began more than a day ago"));
    }
    let Some(user) = sides.backend.user(after).await? else {
        return Ok(Some("Clerk has the last user no more that it has done"));
    };
    let last = [present(&user)];
    let standings = patiently(|| sides.projection.compare(&last)).await?;
    Ok(match standings[..] {
        [Standing::Missing] => Some("the row of the last user that it has done is gone"),
        _ => None,
    })
}
