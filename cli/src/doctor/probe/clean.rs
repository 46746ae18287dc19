//! After a probe: no row, and none that comes later.

use chrono::{TimeDelta, Utc};
use clerk_sync_projection::{Snapshot, SnapshotOutcome};

use super::{Line, Probe, stuck::Stuck};

/// How long a tombstone of a probe is kept: a second copy of its event is long gone then.
const KEPT: TimeDelta = TimeDelta::days(1);

const NAME: &str = "cleaned";

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

    /// After one that got stuck: the user is buried, so that the event makes no row whenever it is
    /// applied. Nothing where nothing can be under way.
    pub(super) async fn clean(&self, stuck: &Stuck) -> Option<Line> {
        if !self.may_be_under_way {
            return None;
        }
        let why_not = match self.bury().await {
            Ok(()) => {
                let text = "no row is left, and none will come of the event when it is applied";
                return Some(Line::ok(NAME, text));
            }
            Err(why_not) => why_not,
        };
        // One more try would be as one before, if that was not even answered.
        let sent = match stuck {
            Stuck::NoAnswer(..) | Stuck::NotAccepted(..) => false,
            Stuck::Interrupted | Stuck::NotApplied { .. } | Stuck::DatabaseLost(_) => {
                let deleted = self.user.deleted();
                let answer = self
                    .poster
                    .signed(&self.webhook, &deleted.id, &deleted.body);
                answer.await.is_ok_and(|answer| answer.status == 204)
            }
        };
        Some(if sent {
            Line::ok(NAME, "user.deleted was sent after it: no row will be left")
        } else {
            Line::problem(
                NAME,
                format!("the row of {} may appear later: {why_not}", self.user.id),
                "delete it then: DELETE FROM users WHERE \"clerkId\" LIKE 'user!_clerk!_sync!_%' \
                 ESCAPE '!'",
            )
        })
    }

    async fn bury(&self) -> Result<(), String> {
        let projection = self
            .projection
            .as_ref()
            .ok_or("the database cannot be reached")?;
        let gone = Snapshot::Gone {
            clerk_id: &self.user.id,
        };
        let outcomes = projection.apply_snapshots(&[gone]).await;
        match outcomes
            .map_err(|unavailable| unavailable.to_string())?
            .first()
        {
            Some(SnapshotOutcome::Deleted | SnapshotOutcome::Current) => Ok(()),
            other => Err(format!("the database says {other:?}")),
        }
    }
}
