//! A batch reduced to one winner per user. Pure.

use std::collections::BTreeMap;

use crate::{
    change::{Change, Read},
    user::Snapshot,
    version::Version,
};

/// What is left to do for one user.
#[derive(Clone, Debug)]
pub(crate) struct Winner<'a> {
    /// Index of its event in the batch.
    pub(crate) index: usize,
    pub(crate) goal: Goal<'a>,
}

impl<'a> Winner<'a> {
    pub(crate) fn lacks_email(&self) -> bool {
        matches!(self.goal, Goal::Row(snapshot, _) if snapshot.email.is_none())
    }

    pub(crate) fn email(&self) -> Option<&'a str> {
        match self.goal {
            Goal::Row(snapshot, _) => snapshot.email.as_deref(),
            Goal::Gone => None,
        }
    }
}

/// How a user should end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal<'a> {
    Row(&'a Snapshot, &'a Version),
    Gone,
}

/// Who an event or a snapshot is about, and how that user should end.
pub(crate) fn goal(read: &Read) -> Option<(&str, Goal<'_>)> {
    match &read.change {
        Change::Upsert(snapshot, version) => {
            Some((snapshot.clerk_id.as_str(), Goal::Row(snapshot, version)))
        }
        Change::Delete { clerk_id } => Some((clerk_id.as_str(), Goal::Gone)),
        Change::Ignore => None,
    }
}

/// The last word on each user among these events, by Clerk id and so in the order in which every
/// worker locks. A delete is final; else the newest version wins.
pub(crate) fn winners<'a>(
    events: impl IntoIterator<Item = (usize, &'a Read)>,
) -> BTreeMap<&'a str, Winner<'a>> {
    let mut winners: BTreeMap<&str, Winner<'_>> = BTreeMap::new();
    for (index, read) in events {
        let Some((clerk_id, goal)) = goal(read) else {
            continue;
        };
        let beaten = match (winners.get(clerk_id).map(|held| held.goal), goal) {
            (None, _) => true,
            (Some(Goal::Gone), _) => false,
            (Some(Goal::Row(..)), Goal::Gone) => true,
            (Some(Goal::Row(_, held)), Goal::Row(_, version)) => held < version,
        };
        if beaten {
            winners.insert(clerk_id, Winner { index, goal });
        }
    }
    winners
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDateTime;
    use clerk_sync_pipeline::{EventId, Millis};

    use super::*;

    fn upsert(clerk_id: &str, updated_at: i64) -> Read {
        let snapshot = Snapshot {
            clerk_id: clerk_id.to_owned(),
            email: Some(format!("{updated_at}@a.example")),
            name: None,
            image_url: None,
            created_at: NaiveDateTime::default(),
            updated_at: NaiveDateTime::default(),
        };
        let version = Version {
            updated_at: Millis(updated_at),
            occurred_at: Millis(0),
            event_id: EventId::parse("msg"),
        };
        Read {
            occurred_at: None,
            change: Change::Upsert(Box::new(snapshot), version),
        }
    }

    fn delete(clerk_id: &str) -> Read {
        Read {
            occurred_at: None,
            change: Change::Delete {
                clerk_id: clerk_id.to_owned(),
            },
        }
    }

    #[test]
    fn the_newest_version_wins_in_any_order_and_a_delete_beats_all() {
        let newest_in_the_middle = [upsert("a", 1), upsert("a", 3), upsert("a", 2)];
        assert_eq!(
            winners(newest_in_the_middle.iter().enumerate())["a"].index,
            1
        );

        for batch in [[upsert("a", 9), delete("a")], [delete("a"), upsert("a", 9)]] {
            let winners = winners(batch.iter().enumerate());
            assert!(matches!(winners["a"].goal, Goal::Gone));
        }
    }

    #[test]
    fn winners_come_in_the_order_of_their_ids() {
        let batch = [upsert("c", 1), delete("b"), upsert("a", 1)];
        let order: Vec<_> = winners(batch.iter().enumerate()).into_keys().collect();
        assert_eq!(order, ["a", "b", "c"]);
    }
}
