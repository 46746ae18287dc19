//! Events that are applied together, and what became of each. Pure.

use std::collections::{HashMap, HashSet};

use clerk_sync_pipeline::{Event, Millis, queue::Failure, telemetry::Outcome};

use crate::{
    change::{self, Change, Read, Rules},
    reduce,
    snapshot::Snapshot,
};

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Committed, or nothing to do.
    Applied(Outcome),
    /// Time may cure it.
    Retry(Failure),
    /// Somebody else is in its way: later, and not its own failure.
    Postpone(Failure),
    /// Nothing will.
    DeadLetter(Failure),
}

/// Events that are applied together, and what has become of each so far. A batch that was
/// interrupted by the weather goes on where it stopped.
pub struct Batch<'a> {
    members: Vec<Member<'a>>,
}

struct Member<'a> {
    source: Source<'a>,
    read: Option<Read>,
    verdict: Option<Verdict>,
}

/// Where a member of a batch comes from. All of one batch come the same way.
enum Source<'a> {
    /// By a webhook, which the ledger has.
    Delivered(&'a Event),
    /// From the Backend API. Until when an event must have occurred for this to be later.
    Fetched { knows_until: Option<Millis> },
}

impl<'a> Member<'a> {
    fn of(source: Source<'a>, read: Result<Read, Failure>) -> Self {
        let (read, verdict) = match read {
            Ok(read) => (Some(read), None),
            Err(failure) => (None, Some(Verdict::DeadLetter(failure))),
        };
        Self {
            source,
            read,
            verdict,
        }
    }
}

impl<'a> Batch<'a> {
    /// Reads every event. What cannot be read has its verdict already.
    pub(crate) fn read(events: impl IntoIterator<Item = &'a Event>, rules: &Rules) -> Self {
        let member = |event| Member::of(Source::Delivered(event), change::read(event, rules));
        Self {
            members: events.into_iter().map(member).collect(),
        }
    }

    /// Reads snapshots, which the ledger does not know.
    pub(crate) fn of_snapshots(snapshots: &[Snapshot<'_>], rules: &Rules) -> Self {
        let member = |snapshot: &Snapshot<'_>| {
            let read = snapshot.read(rules);
            let knows_until = read.as_ref().ok();
            let knows_until = knows_until.and_then(|read| snapshot.knows_until(read));
            Member::of(Source::Fetched { knows_until }, read)
        };
        Self {
            members: snapshots.iter().map(member).collect(),
        }
    }

    /// The events, each with what has become of it so far.
    pub(crate) fn delivered(&self) -> impl Iterator<Item = (&'a Event, Option<&Verdict>)> {
        self.members
            .iter()
            .filter_map(|member| match member.source {
                Source::Delivered(event) => Some((event, member.verdict.as_ref())),
                Source::Fetched { .. } => None,
            })
    }

    /// Whether these are snapshots, not events.
    pub(crate) fn is_fetched(&self) -> bool {
        let fetched = |member: &Member<'_>| matches!(member.source, Source::Fetched { .. });
        // All are of one kind.
        self.members.first().is_some_and(fetched)
    }

    /// Whether a snapshot with the `updated_at` of the event that occurred then is of later.
    pub(crate) fn is_later_than(&self, index: usize, occurred_at: Millis) -> bool {
        match self.members[index].source {
            Source::Fetched { knows_until } => knows_until.is_some_and(|it| occurred_at <= it),
            Source::Delivered(_) => false,
        }
    }

    /// The verdicts, in the order of the events, with Clerk's time of each event.
    ///
    /// # Panics
    /// [`crate::Projection::apply`] has not succeeded.
    #[must_use]
    pub fn into_verdicts(self) -> Vec<(Verdict, Option<Millis>)> {
        let verdict = |member: Member<'_>| {
            let verdict = member.verdict.expect("an applied batch has every verdict");
            (verdict, member.read.and_then(|read| read.occurred_at))
        };
        self.members.into_iter().map(verdict).collect()
    }

    /// The open events: those to apply one by one, because a user of theirs is in `apart`, or has
    /// an event without an address, which is refused if it is the newest; and those to apply
    /// together.
    pub(crate) fn open_apart(&self, apart: &HashSet<String>) -> (Vec<usize>, Vec<usize>) {
        let open = self.open();
        let lacking: HashSet<&str> = open
            .iter()
            .map(|index| self.understood(*index))
            .filter(|read| read.lacks_email())
            .filter_map(Read::clerk_id)
            .collect();
        let of_lacking = |index: &usize| {
            let clerk_id = self.understood(*index).clerk_id();
            clerk_id.is_some_and(|id| lacking.contains(id) || apart.contains(id))
        };
        open.into_iter().partition(of_lacking)
    }

    pub(crate) fn open(&self) -> Vec<usize> {
        let is_open = |index: &usize| self.members[*index].verdict.is_none();
        (0..self.members.len()).filter(is_open).collect()
    }

    pub(crate) fn event(&self, index: usize) -> &'a Event {
        match self.members[index].source {
            Source::Delivered(event) => event,
            Source::Fetched { .. } => unreachable!("only deliveries are in the ledger"),
        }
    }

    pub(crate) fn decide(&mut self, index: usize, verdict: Verdict) {
        self.members[index].verdict = Some(verdict);
    }

    pub(crate) fn understood(&self, index: usize) -> &Read {
        self.members[index]
            .read
            .as_ref()
            .expect("an open event was understood")
    }
}

/// The first index of each event id: the same delivery twice in one batch is one event.
pub(crate) fn first_of_each_id(batch: &Batch<'_>, indices: &[usize]) -> Vec<usize> {
    let mut seen = HashSet::with_capacity(indices.len());
    let id = |index: &usize| batch.event(*index).id.as_str();
    let mut firsts: Vec<usize> = indices
        .iter()
        .copied()
        .filter(|index| seen.insert(id(index)))
        .collect();
    // Every worker claims in one order, so two with the same events wait for each other instead of
    // deadlocking.
    firsts.sort_unstable_by(|a, b| id(a).cmp(id(b)));
    firsts
}

/// What most likely becomes of each event: written with the claim, so that the ledger needs a
/// second statement only where the guess was wrong.
pub(crate) fn expected_outcomes(batch: &Batch<'_>, indices: &[usize]) -> HashMap<usize, Outcome> {
    let winners = reduce::winners(
        indices
            .iter()
            .map(|index| (*index, batch.understood(*index))),
    );
    let expect = |index: &usize| {
        let read = batch.understood(*index);
        let wins = read
            .clerk_id()
            .and_then(|clerk_id| winners.get(clerk_id))
            .is_some_and(|winner| winner.index == *index);
        let outcome = match (&read.change, wins) {
            (Change::Ignore, _) => Outcome::Ignored,
            (_, false) => Outcome::Stale,
            (Change::Delete { .. }, true) => Outcome::Deleted,
            (Change::Upsert(..), true) => match batch.event(*index).event_type.as_str() {
                "user.created" => Outcome::Created,
                _ => Outcome::Updated,
            },
        };
        (*index, outcome)
    };
    indices.iter().map(expect).collect()
}
