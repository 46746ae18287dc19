//! The second look: only what has not changed meanwhile, and still differs, has drifted.
//!
//! While Clerk is walked along, its users go on changing, and their webhooks are on the way. So a
//! suspect is asked for again by its id, after a time in which its webhook should have arrived, and
//! its row is read after Clerk's answer.

use clerk_sync_api::fetch::present;
use clerk_sync_clerk::backend::{MAX_IDS, User};
use clerk_sync_pipeline::telemetry::DriftKind;
use clerk_sync_projection::{Snapshot, Standing};
use tokio::time::{Instant, sleep_until};

use super::Reconciliation;
use crate::sides::patiently;

/// How far ahead of ours Clerk's clock may be.
const CLOCKS_MS: i64 = 5_000;

/// A user who may have drifted.
pub(super) struct Suspect {
    pub(super) clerk_id: String,
    /// Clerk's `updated_at` when it was noticed; `None` when there was a row, and nobody at Clerk. A
    /// user of Clerk's without one cannot be written, and is no suspect.
    pub(super) updated_at: Option<i64>,
    pub(super) noticed: Instant,
}

impl Suspect {
    pub(super) fn present(user: &User) -> Self {
        Self {
            clerk_id: user.id.clone(),
            updated_at: user.updated_at,
            noticed: Instant::now(),
        }
    }
}

/// A user who has.
pub(super) struct Drifted {
    pub(super) clerk_id: String,
    pub(super) kind: DriftKind,
    /// What to add for a person.
    pub(super) detail: &'static str,
    /// Clerk's answer; `None` for a ghost.
    pub(super) user: Option<User>,
}

impl Reconciliation<'_> {
    /// Looks again at the suspects so far, and takes those that have drifted on record.
    pub(super) async fn confirm(&mut self) -> anyhow::Result<()> {
        let suspects = std::mem::take(&mut self.suspects);
        for some in suspects.chunks(MAX_IDS) {
            if let Some(last) = some.last() {
                sleep_until(last.noticed + self.settle).await;
            }
            let ids: Vec<&str> = some.iter().map(|it| it.clerk_id.as_str()).collect();
            let answers = self.sides.ask_again(&ids).await?;
            let told: Vec<Snapshot<'_>> = some
                .iter()
                .zip(&answers)
                .map(|(suspect, answer)| match answer {
                    Some(user) => present(user),
                    None => Snapshot::Gone {
                        clerk_id: &suspect.clerk_id,
                    },
                })
                .collect();
            let projection = &self.sides.projection;
            let standings = patiently(|| projection.compare(&told)).await?;
            let mut drifted = Vec::new();
            let mut changed = Vec::new();
            for ((suspect, user), standing) in some.iter().zip(answers).zip(standings) {
                if self.changed_meanwhile(suspect, user.as_ref()) {
                    changed.extend(user);
                } else {
                    drifted.extend(self.judge(suspect, user, &standing));
                }
            }
            self.take_on_record(drifted).await?;
            // No drift, and brought up to date all the same: whoever changes in each run would else
            // never be. What is current already stays as it is.
            if self.mends {
                self.sides.apply(&changed).await?;
            }
        }
        Ok(())
    }

    fn changed_meanwhile(&self, suspect: &Suspect, user: Option<&User>) -> bool {
        match (suspect.updated_at, user) {
            // Deleted since.
            (Some(_), None) => true,
            (Some(before), Some(user)) if user.updated_at != Some(before) => true,
            (_, Some(user)) => {
                let run = self.report.started_at.0..=user.asked_at + CLOCKS_MS;
                user.updated_at.is_some_and(|at| run.contains(&at))
            }
            (None, None) => false,
        }
    }

    fn judge(
        &mut self,
        suspect: &Suspect,
        user: Option<User>,
        standing: &Standing,
    ) -> Option<Drifted> {
        let (kind, detail) = match standing {
            Standing::Missing => (DriftKind::Missing, ""),
            Standing::Buried => (
                DriftKind::Missing,
                "remembered as deleted: will not come back",
            ),
            Standing::Stale => (DriftKind::Stale, ""),
            Standing::Ghost => (DriftKind::Ghost, ""),
            Standing::Unmanaged if user.is_some() => (DriftKind::Unmanaged, ""),
            Standing::Unmanaged => {
                self.report.strangers += 1;
                return None;
            }
            Standing::Current | Standing::Newer | Standing::MissingEmail | Standing::Refused(_) => {
                return None;
            }
        };
        Some(Drifted {
            clerk_id: suspect.clerk_id.clone(),
            kind,
            detail,
            user,
        })
    }
}
