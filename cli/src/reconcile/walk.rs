//! The first look: who may have drifted. Each suspect is looked at again before it is reported.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use clerk_sync_api::fetch::present;
use clerk_sync_clerk::backend::User;
use clerk_sync_pipeline::Millis;
use clerk_sync_projection::{Snapshot, Standing};
use tokio::time::Instant;

use super::{Reconciliation, confirm::Suspect};
use crate::{
    pages::{Course, Everybody, Pages},
    sides::{BATCH, patiently},
};

/// Suspects that are held before they are looked at again: bounds the memory of a walk that finds
/// everybody missing.
const MOST_SUSPECTS: usize = 5_000;
/// Rows that are listed at once.
const ROWS: u64 = 2_000;

/// Whom Clerk has, by a hash of each id: 8 bytes a user, 8 MB for a million. That two of a million
/// share one, which would hide a ghost, has a probability of 1 : 30,000,000.
#[derive(Default)]
struct Seen(Vec<u64>);

impl Seen {
    fn add(&mut self, clerk_id: &str) {
        self.0.push(hash(clerk_id));
    }

    fn sorted(mut self) -> Self {
        self.0.sort_unstable();
        self
    }

    /// Once sorted.
    fn has(&self, clerk_id: &str) -> bool {
        self.0.binary_search(&hash(clerk_id)).is_ok()
    }
}

fn hash(clerk_id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    clerk_id.hash(&mut hasher);
    hasher.finish()
}

impl Reconciliation<'_> {
    /// Compares all users with their rows, then all rows with the users.
    pub(super) async fn walk_all(&mut self, everybody: Everybody) -> anyhow::Result<()> {
        let mut seen = Seen::default();
        // Which fails if Clerk has more than it has listed: a row of nobody seen is a suspect.
        self.walk_users(Course::All(everybody), |user| seen.add(&user.id))
            .await?;
        self.walk_rows(&seen.sorted()).await
    }

    /// Compares the users that changed since then with their rows.
    pub(super) async fn walk_changed(&mut self, since: Millis) -> anyhow::Result<()> {
        let walk = self.sides.backend.walk_changed(since.0);
        self.walk_users(Course::Changed(walk), |_| {}).await
    }

    async fn walk_users(
        &mut self,
        course: Course,
        mut saw: impl FnMut(&User),
    ) -> anyhow::Result<()> {
        let mut pages = Pages::along(course);
        while let Some(page) = pages.next().await {
            let users = page?;
            users.iter().for_each(&mut saw);
            for some in users.chunks(BATCH) {
                let told: Vec<Snapshot<'_>> = some.iter().map(present).collect();
                let projection = &self.sides.projection;
                let standings = patiently(|| projection.compare(&told)).await?;
                for (user, standing) in some.iter().zip(standings) {
                    if self.is_suspicious(&standing) {
                        self.suspects.push(Suspect::present(user));
                    }
                }
            }
            self.report.users += users.len() as u64;
            self.progress.set(self.report.users);
            if self.suspects.len() >= MOST_SUSPECTS {
                self.confirm().await?;
            }
        }
        Ok(())
    }

    fn is_suspicious(&mut self, standing: &Standing) -> bool {
        match standing {
            Standing::Current | Standing::Newer => false,
            Standing::MissingEmail => {
                self.report.without_address += 1;
                false
            }
            Standing::Refused(_) => {
                self.report.unwritable += 1;
                false
            }
            Standing::Missing
            | Standing::Buried
            | Standing::Stale
            | Standing::Ghost
            | Standing::Unmanaged => true,
        }
    }

    async fn walk_rows(&mut self, seen: &Seen) -> anyhow::Result<()> {
        let mut after = String::new();
        loop {
            let projection = &self.sides.projection;
            let rows = patiently(|| projection.rows_after(&after, ROWS)).await?;
            let Some(last) = rows.last() else {
                return Ok(());
            };
            after.clone_from(&last.clerk_id);
            let noticed = Instant::now();
            for row in rows {
                self.report.rows += 1;
                self.managed += u64::from(row.managed);
                if seen.has(&row.clerk_id) {
                    continue;
                }
                if row.managed {
                    self.suspects.push(Suspect {
                        clerk_id: row.clerk_id,
                        updated_at: None,
                        noticed,
                    });
                } else {
                    // Whatever Clerk says of it, it is left alone: no reason to ask.
                    self.report.strangers += 1;
                }
            }
            if self.suspects.len() >= MOST_SUSPECTS {
                self.confirm().await?;
            }
        }
    }
}
