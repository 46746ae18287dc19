//! How far a backfill is, and what became of the users so far: kept in the database page by page,
//! so that a backfill that was killed goes on where it was.

use std::collections::BTreeMap;

use clerk_sync_pipeline::{Millis, telemetry::Label as _};
use clerk_sync_projection::SnapshotOutcome;
use serde::{Deserialize, Serialize};

/// Failed users that are remembered, to be tried again at the end: a few, among many who are not.
/// More than that have a common cause that does not go away meanwhile.
const MOST_FAILED: usize = 1_000;

/// A bookmark.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Tally {
    /// Of which instance.
    pub(super) instance: String,
    /// When it began, in milliseconds since 1970.
    pub(super) began_at: i64,
    /// The last user that is done.
    pub(super) after: Option<String>,
    pub(super) created: u64,
    pub(super) updated: u64,
    pub(super) current: u64,
    pub(super) missing_email: u64,
    /// Failed users that are not remembered.
    more_failed: u64,
    /// The others, with the reason.
    pub(super) failed: BTreeMap<String, String>,
}

impl Tally {
    pub(super) fn of(instance: &str) -> Self {
        Self {
            instance: instance.to_owned(),
            began_at: Millis::now().0,
            ..Self::default()
        }
    }

    /// `why_stale` is of no interest but for a stale snapshot: why that is no good sign, if it is
    /// none.
    pub(super) fn count(
        &mut self,
        clerk_id: &str,
        outcome: &SnapshotOutcome,
        why_stale: Option<&str>,
    ) {
        match outcome {
            SnapshotOutcome::Created => self.created += 1,
            SnapshotOutcome::Updated => self.updated += 1,
            SnapshotOutcome::Current | SnapshotOutcome::Deleted => self.current += 1,
            SnapshotOutcome::Stale => match why_stale {
                // Whatever is newer than Clerk's answer came from Clerk.
                None => self.current += 1,
                Some(why) => self.fail(clerk_id, why.to_owned()),
            },
            SnapshotOutcome::MissingEmail => self.missing_email += 1,
            SnapshotOutcome::Failed(failure) => {
                let why = format!("{}: {}", failure.reason.as_str(), failure.detail);
                self.fail(clerk_id, why);
            }
        }
    }

    fn fail(&mut self, clerk_id: &str, why: String) {
        if self.failed.len() < MOST_FAILED {
            self.failed.insert(clerk_id.to_owned(), why);
        } else {
            self.more_failed += 1;
        }
    }

    pub(super) fn failed(&self) -> u64 {
        self.failed.len() as u64 + self.more_failed
    }

    pub(super) fn total(&self) -> u64 {
        self.created + self.updated + self.current + self.missing_email + self.failed()
    }
}
