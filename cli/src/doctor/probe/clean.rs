//! After a probe: no row, and none that comes later.

use chrono::{TimeDelta, Utc};
use clerk_sync_pipeline::telemetry::Label as _;
use clerk_sync_projection::{Snapshot, SnapshotOutcome};

use super::{Line, Probe, made_up, stuck::Stuck};

/// How long a tombstone of a probe is kept: a second copy of its event is long gone then.
const KEPT: TimeDelta = TimeDelta::days(1);

const NAME: &str = "cleaned";
const DELETE_BY_HAND: &str =
    "delete it: DELETE FROM users WHERE \"clerkId\" LIKE 'user!_clerk!_sync!_%' ESCAPE '!'";

/// Why the user is not written down as deleted.
#[derive(Debug)]
pub(super) enum NotBuried {
    /// The database cannot be asked.
    Unavailable(String),
    /// It refuses to let go of the row, and so it will whoever asks.
    Refused(String),
}

impl Probe<'_> {
    /// After a probe that went well: forgets those of former days, where the role may.
    pub(super) async fn tidy(&self) -> Line {
        let Some(projection) = &self.projection else {
            return Line::ok(NAME, "user.deleted was accepted too: no row will be left");
        };
        // A worker's role may not; then they stay, a few bytes each.
        let _ = projection.forget_probes(Utc::now() - KEPT).await;
        Line::ok(NAME, "no row is left")
    }

    /// Writes the user down as deleted: in this database the event then makes no row whenever it is
    /// applied. Nothing where nothing can be under way.
    pub(super) async fn bury(&self) -> Option<Result<(), NotBuried>> {
        if !self.may_be_under_way {
            return None;
        }
        let Some(projection) = &self.projection else {
            let why = "the database cannot be reached".to_owned();
            return Some(Err(NotBuried::Unavailable(why)));
        };
        let gone = Snapshot::Gone {
            clerk_id: &self.user.id,
        };
        let outcomes = match projection.apply_snapshots(&[gone]).await {
            Ok(outcomes) => outcomes,
            Err(away) => return Some(Err(NotBuried::Unavailable(away.to_string()))),
        };
        Some(match outcomes.first() {
            Some(SnapshotOutcome::Deleted | SnapshotOutcome::Current) => Ok(()),
            Some(SnapshotOutcome::Failed(failure)) => {
                let why = format!("{}: {}", failure.reason.as_str(), failure.detail);
                Err(NotBuried::Refused(why))
            }
            other => Err(NotBuried::Unavailable(format!(
                "the database says {other:?}"
            ))),
        })
    }

    /// After a probe that got stuck, and was buried or not: what is left of it. A database that has
    /// not seen the event may not be the worker's, so `user.deleted` is sent after it.
    pub(super) async fn clean(&self, stuck: &Stuck, buried: Result<(), NotBuried>) -> Line {
        let user = &self.user.id;
        if buried.is_ok() && self.is_known_here {
            let text = "no row is left, and none will come of the event when it is applied";
            return Line::ok(NAME, text);
        }
        if let Err(NotBuried::Refused(why)) = buried {
            let text = format!("the row of {user} is left, the database refuses: {why}");
            return Line::problem(NAME, text, DELETE_BY_HAND);
        }
        let sent = match stuck {
            // One more try would be as one before, if that was not even answered.
            Stuck::NoAnswer(..) | Stuck::NotAccepted(..) => None,
            // It was sent; what has failed once may fail again.
            Stuck::NotApplied {
                kind: made_up::DELETED,
                outcome,
                ..
            } => Some(outcome.is_none()),
            Stuck::Interrupted | Stuck::NotApplied { .. } | Stuck::DatabaseLost(_) => {
                Some(self.send_deleted().await)
            }
        };
        match (buried, sent) {
            (Ok(()), Some(true)) => Line::ok(
                NAME,
                "no row is left, and none will come: user.deleted was sent after the event, too",
            ),
            (Ok(()), None) => Line::ok(
                NAME,
                "no row is left in this database, and none will come of the event",
            ),
            (Ok(()), Some(false)) => Line::warning(
                NAME,
                format!(
                    "no row is left in this database. If the worker writes to another, the row of \
                     {user} may appear there: user.deleted was not accepted"
                ),
                DELETE_BY_HAND,
            ),
            (Err(_), Some(true)) => {
                let text = "user.deleted was sent after the event: no row will be left";
                Line::ok(NAME, text)
            }
            (Err(NotBuried::Unavailable(why) | NotBuried::Refused(why)), _) => Line::problem(
                NAME,
                format!("the row of {user} may appear later: {why}"),
                DELETE_BY_HAND,
            ),
        }
    }

    async fn send_deleted(&self) -> bool {
        let deleted = self.user.deleted();
        let answer = self
            .poster
            .signed(&self.webhook, &deleted.id, &deleted.body);
        answer.await.is_ok_and(|answer| answer.status == 204)
    }
}
