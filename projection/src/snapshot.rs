//! Snapshots that no webhook brought: what Clerk's Backend API answered to somebody who asked.
//!
//! They go the way of events, without the ledger, which is about deliveries. A snapshot's version is
//! older than that of every webhook with the same `updated_at`, so none is buried. Where such a
//! webhook was applied already, the row should equal the snapshot; if it does not, somebody else
//! has changed or removed it, and it is written again, its version kept.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use clerk_sync_entity::users;
use clerk_sync_pipeline::{
    Millis,
    queue::{Failure, Reason},
    telemetry::Outcome,
};

use crate::{
    Projection,
    batch::{Batch, Verdict},
    change::{self, Change, Read, Rules},
    failure::{TransactionError, Unavailable},
    reduce::{self, Winner},
    standing::Standing,
    transaction::Tx,
};

/// What Clerk answered about a user.
#[derive(Clone, Copy, Debug)]
pub enum Snapshot<'a> {
    /// It is there.
    Present {
        /// The user's JSON, exactly as Clerk sent it.
        user: &'a [u8],
        /// When Clerk was asked, by our clock: of several attempts, the one that was answered.
        asked_at: Millis,
    },
    /// There is none, or no more: Clerk's 404. As final as `user.deleted`.
    Gone {
        /// Who was asked for.
        clerk_id: &'a str,
    },
}

/// What became of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotOutcome {
    /// A row was inserted.
    Created,
    /// A row was brought up to date, taken over from the application, or repaired.
    Updated,
    /// Nothing to do: the row says the same, or the user was known to be gone.
    Current,
    /// Something newer is known: a later change, or that the user was deleted.
    Stale,
    /// The user is gone, and remembered as gone.
    Deleted,
    /// Not written: the user has no address, and `MISSING_EMAIL=dead-letter`.
    MissingEmail,
    /// Not written, for this reason. Of [`Reason::EmailTaken`] and [`Reason::RowLocked`] time may
    /// cure it.
    Failed(Failure),
}

/// Clerk may change a user twice in one millisecond, and a snapshot from between the two looks like
/// the later one. One that was asked for so near to its own change repairs nothing, nor what an event
/// brought that occurred so shortly before the question, or after it. Clocks may differ by as much.
const SAME_MOMENT: i64 = 2_000;

impl Snapshot<'_> {
    pub(crate) fn read(&self, rules: &Rules) -> Result<Read, Failure> {
        match self {
            Self::Present { user, .. } => change::read_user(user, rules),
            Self::Gone { clerk_id } => change::read_gone(clerk_id),
        }
    }

    /// Of which events with the same `updated_at` it is later for certain: those that occurred until
    /// then; `None` of none.
    pub(crate) fn knows_until(&self, read: &Read) -> Option<Millis> {
        let (Self::Present { asked_at, .. }, Change::Upsert(_, version)) = (self, &read.change)
        else {
            return Some(Millis(i64::MAX));
        };
        match asked_at.0.saturating_sub(version.updated_at.0) {
            // Changed long after the question: of the clocks one is far off, and says nothing.
            after if after < -SAME_MOMENT => Some(Millis(i64::MAX)),
            after if after <= SAME_MOMENT => None,
            _ => Some(Millis(asked_at.0 - SAME_MOMENT)),
        }
    }
}

impl From<Verdict> for SnapshotOutcome {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Applied(Outcome::Created) => Self::Created,
            Verdict::Applied(Outcome::Updated) => Self::Updated,
            Verdict::Applied(Outcome::Deleted) => Self::Deleted,
            Verdict::Applied(Outcome::Duplicate) => Self::Current,
            Verdict::Applied(Outcome::Stale) => Self::Stale,
            Verdict::Applied(Outcome::Ignored | Outcome::Retried | Outcome::DeadLettered) => {
                unreachable!("a snapshot is about a user, and goes to no queue")
            }
            Verdict::Retry(failure) | Verdict::Postpone(failure) | Verdict::DeadLetter(failure) => {
                match failure.reason {
                    Reason::MissingEmail => Self::MissingEmail,
                    _ => Self::Failed(failure),
                }
            }
        }
    }
}

impl Projection {
    /// Applies what Clerk answered, in one transaction, by the three rules; what is refused does
    /// not keep its neighbours back. Returns what became of each, in their order. At most 256 at
    /// once keep the transaction short for others.
    ///
    /// # Errors
    /// The weather. Some may be committed; call again with all: what is done already is current.
    pub async fn apply_snapshots(
        &self,
        snapshots: &[Snapshot<'_>],
    ) -> Result<Vec<SnapshotOutcome>, Unavailable> {
        let mut batch = Batch::of_snapshots(snapshots, &self.config.rules);
        self.apply(&mut batch).await?;
        let verdicts = batch.into_verdicts().into_iter();
        Ok(verdicts.map(|(verdict, _)| verdict.into()).collect())
    }

    /// As for events, without the ledger. What equals the row is called a duplicate.
    pub(crate) async fn within_unrecorded(
        &self,
        tx: &Tx,
        batch: &Batch<'_>,
        indices: &[usize],
        now: DateTime<Utc>,
    ) -> Result<Vec<Outcome>, TransactionError> {
        let read = |index: &usize| (*index, batch.understood(*index));
        let candidates = reduce::winners(indices.iter().map(read));
        let alone = indices.len() == 1;
        let written = self.write(tx, batch, candidates, alone, now).await?;
        let outcomes: HashMap<usize, Outcome> = written.into_iter().collect();
        let outcome = |index: &usize| outcomes.get(index).copied().unwrap_or(Outcome::Stale);
        Ok(indices.iter().map(outcome).collect())
    }
}

/// Snapshots that are not newer than the version held, next to the rows.
#[derive(Default)]
pub(crate) struct Compared {
    /// Those that equal the row, by their index.
    pub(crate) current: Vec<usize>,
    /// Users whose rows are not as their version says.
    pub(crate) repairs: HashSet<String>,
}

impl Compared {
    /// `holders` are those of the claimed addresses. The versions of all candidates are locked, and
    /// with them what the sync writes to their rows.
    pub(crate) async fn with_held(
        tx: &Tx,
        batch: &Batch<'_>,
        candidates: &BTreeMap<&str, Winner<'_>>,
        won: &HashSet<String>,
        holders: &[users::Holder],
    ) -> Result<Self, TransactionError> {
        let mut compared = Self::default();
        let lost = || {
            let lost = |(clerk_id, _): &(&&str, &Winner<'_>)| !won.contains(**clerk_id);
            candidates.iter().filter(lost)
        };
        let held = tx
            .held(&lost().map(|(clerk_id, _)| *clerk_id).collect())
            .await?;
        for (clerk_id, Winner { index, goal }) in lost() {
            match held.standing(clerk_id, *goal, holders) {
                Standing::Current => compared.current.push(*index),
                // Whoever has no address is told so when written.
                Standing::Missing | Standing::Stale | Standing::Ghost | Standing::MissingEmail => {
                    if batch.is_later_than(*index, held.occurred_at(clerk_id)) {
                        compared.repairs.insert((*clerk_id).to_owned());
                    }
                }
                Standing::Newer | Standing::Buried | Standing::Unmanaged | Standing::Refused(_) => {
                }
            }
        }
        Ok(compared)
    }
}
