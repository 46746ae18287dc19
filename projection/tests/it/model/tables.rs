//! What the workers said, and what is in the tables, against what the simulator says.

use std::collections::{BTreeMap, BTreeSet};

use chrono::DateTime;
use clerk_sync_entity::users;
use clerk_sync_pipeline::{
    queue::Reason,
    telemetry::{Label as _, Outcome},
};
use clerk_sync_projection::Verdict;
use clerk_sync_simulator::{Addressless, DeadLetters};
use proptest::{prop_assert, prop_assert_eq, test_runner::TestCaseError};

use super::{
    case::Story,
    workers::{CREDITS, Told},
};
use crate::database::{Db, Held, Row};

/// Everything but the ledger.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tables {
    users: Vec<users::Model>,
    versions: BTreeMap<String, Held>,
    credits: Vec<(String, i32)>,
}

impl Tables {
    pub(super) async fn of(db: &Db) -> Self {
        Self {
            users: db.users().await,
            versions: db.versions().await,
            credits: db.credits().await,
        }
    }

    /// Whose rows can be told from Clerk's answer alone: no address depends on who came first, and
    /// what Clerk says in the end is what is held.
    pub(super) fn mendable(&self, story: &Story) -> Vec<String> {
        let in_the_end = story.history.last_words(Addressless::Placeholder);
        let told = |user: &&users::Model| match &self.versions[&user.clerk_id] {
            Held::Version(_, _, id) => Story::id(in_the_end[&*user.clerk_id]) == *id,
            Held::Tombstone => false,
        };
        if self
            .users
            .iter()
            .any(|user| user.email.ends_with("@reassigned.invalid"))
        {
            return Vec::new();
        }
        let told = self.users.iter().filter(told);
        told.map(|user| user.clerk_id.clone()).collect()
    }

    /// They equal the instance: users in every column, versions, tombstones, and one grant each.
    pub(super) fn check(
        &self,
        story: &Story,
        addressless: Addressless,
    ) -> Result<(), TestCaseError> {
        let expected = story.history.table(addressless);
        let found: Vec<Row> = self.users.iter().cloned().map(Row::from).collect();
        let who =
            |rows: &[Row]| -> Vec<String> { rows.iter().map(|row| row.clerk_id.clone()).collect() };
        let expected_who: Vec<String> = expected.iter().map(|row| row.clerk_id.clone()).collect();
        prop_assert_eq!(
            who(&found),
            expected_who,
            "who is there, found and expected"
        );
        for (found, expected) in found.into_iter().zip(expected) {
            prop_assert!(
                expected.email.admits(&found.email),
                "{} instead of {:?}",
                found.email,
                expected.email
            );
            let row = Row {
                clerk_id: expected.clerk_id,
                email: found.email.clone(),
                name: expected.name,
                image_url: expected.image_url,
                created_at: time(expected.created_at),
                updated_at: time(expected.updated_at),
            };
            prop_assert_eq!(found, row, "a row, found and expected");
        }

        let held = story.history.last_words(addressless).into_iter();
        let held = held.map(|(clerk_id, event)| {
            let updated_at = event.updated_at().expect("a last word carries its user");
            let held = Held::Version(updated_at, event.occurred_at(), Story::id(event));
            (clerk_id, held)
        });
        let gone = story.history.deleted().into_iter();
        let versions: BTreeMap<String, Held> = held
            .chain(gone.map(|clerk_id| (clerk_id, Held::Tombstone)))
            .map(|(clerk_id, held)| (clerk_id.to_owned(), held))
            .collect();
        prop_assert_eq!(&self.versions, &versions, "versions, found and expected");

        let mut ids: Vec<&str> = self.users.iter().map(|user| user.id.as_str()).collect();
        ids.sort_unstable();
        let granted = ids.into_iter().map(|id| (id.to_owned(), CREDITS));
        let granted: Vec<_> = granted.collect();
        prop_assert_eq!(&self.credits, &granted, "credits, found and expected");
        Ok(())
    }
}

/// What nothing newer follows and has no address is refused, on every delivery; what depends on
/// the order may be; all else is applied, once.
pub(super) fn check_verdicts(
    story: &Story,
    addressless: Addressless,
    told: &Told,
) -> Result<(), TestCaseError> {
    let letters = dead_letters(story, addressless);
    let mut applied = BTreeSet::new();
    for (index, verdict) in told {
        let event = &story.history.events[*index];
        let id = event.id.as_str();
        match verdict {
            Verdict::Applied(outcome) => {
                prop_assert!(!letters.must.contains(id), "{outcome:?}: {event:?}");
                let first = *outcome == Outcome::Duplicate || applied.insert(index);
                prop_assert!(first, "applied a second time: {event:?}");
            }
            Verdict::DeadLetter(failure) => {
                prop_assert_eq!(failure.reason, Reason::MissingEmail);
                let expected = letters.must.contains(id) || letters.may.contains(id);
                prop_assert!(expected, "refused: {event:?}");
            }
            Verdict::Retry(failure) | Verdict::Postpone(failure) => {
                prop_assert!(false, "{failure:?}: {event:?}");
            }
        }
    }
    Ok(())
}

/// Everything that comes again is out of date, if it is about anybody.
pub(super) fn check_nothing_is_new(told: &Told) -> Result<(), TestCaseError> {
    for (index, verdict) in told {
        if let Verdict::Applied(outcome) = verdict {
            let old = matches!(outcome, Outcome::Stale | Outcome::Ignored);
            prop_assert!(old, "{outcome:?} again: event {index}");
        }
    }
    Ok(())
}

/// The ledger has every event, and says of each what must have become of it.
pub(super) fn check_ledger(
    story: &Story,
    addressless: Addressless,
    ledger: &BTreeMap<String, String>,
) -> Result<(), TestCaseError> {
    let letters = dead_letters(story, addressless);
    let last_words = story.history.last_words(addressless);
    let asked = story.is_asked_for();
    let mut created: BTreeMap<&str, usize> = BTreeMap::new();
    for event in &story.history.events {
        let Some(outcome) = ledger.get(&Story::id(event)) else {
            return Err(TestCaseError::fail(format!("not in the ledger: {event:?}")));
        };
        let clerk_id = event.clerk_id.as_deref().unwrap_or_default();
        let id = event.id.as_str();
        let is_last_word = last_words.get(clerk_id).is_some_and(|last| last.id == id);
        let possible: &[Outcome] = match event.event_type {
            _ if clerk_id.is_empty() => &[Outcome::Ignored],
            // Somebody who asked may have been told already.
            "user.deleted" if asked => &[Outcome::Deleted, Outcome::Stale],
            "user.deleted" => &[Outcome::Deleted],
            _ if is_last_word => &[Outcome::Created, Outcome::Updated],
            _ if letters.must.contains(id) => &[Outcome::DeadLettered],
            _ if letters.may.contains(id) => &[Outcome::DeadLettered, Outcome::Stale],
            _ => &[Outcome::Created, Outcome::Updated, Outcome::Stale],
        };
        let is_possible = possible.iter().any(|one| one.as_str() == outcome);
        prop_assert!(is_possible, "{outcome} instead of {possible:?}: {event:?}");
        if outcome == Outcome::Created.as_str() {
            *created.entry(clerk_id).or_default() += 1;
        }
    }
    prop_assert_eq!(ledger.len(), story.events.len(), "more than was delivered");
    for clerk_id in last_words.keys() {
        let times = created.remove(clerk_id);
        let as_often_as_can_be = times == Some(1) || (times.is_none() && asked);
        prop_assert!(as_often_as_can_be, "created {times:?} times: {clerk_id}");
    }
    // Whoever was deleted may have been there before.
    prop_assert!(created.values().all(|times| *times == 1), "{created:?}");
    Ok(())
}

fn dead_letters(story: &Story, addressless: Addressless) -> DeadLetters<'_> {
    match addressless {
        Addressless::Placeholder => DeadLetters::default(),
        Addressless::DeadLetter => story.history.dead_letters(),
    }
}

fn time(millis: i64) -> chrono::NaiveDateTime {
    DateTime::from_timestamp_millis(millis).unwrap().naive_utc()
}
