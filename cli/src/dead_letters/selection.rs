//! Which letters a command is about.

use std::{collections::BTreeSet, time::Duration};

use clerk_sync_pipeline::{
    Millis, config,
    queue::parked::{Fate, Interrupted, Letter, Parked, Place, Tally},
};

/// Letters by what they are.
#[derive(clap::Args)]
pub(super) struct Filter {
    /// Only with this error code; repeatable
    #[arg(long, value_name = "CODE")]
    code: Vec<String>,
    /// Only events of this type; repeatable
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Vec<String>,
    /// Only received longer ago than this: 30m, 12h, 7days
    #[arg(long, value_name = "AGE", value_parser = config::time)]
    older_than: Option<Duration>,
    /// Only received within this time
    #[arg(long, value_name = "AGE", value_parser = config::time)]
    newer_than: Option<Duration>,
}

impl Filter {
    /// Whether it leaves out any.
    pub(super) fn is_any(&self) -> bool {
        !self.code.is_empty()
            || !self.event_type.is_empty()
            || self.older_than.is_some()
            || self.newer_than.is_some()
    }

    /// A letter that does not know its age is neither older nor newer than anything.
    pub(super) fn matches(&self, letter: &Letter, now: Millis) -> bool {
        let age = letter
            .received_at
            .map(|received| Duration::from_secs_f64(now.seconds_since(received)));
        let is_one_of = |wanted: &[String], text: &str| {
            wanted.is_empty() || wanted.iter().any(|wanted| wanted == text)
        };
        is_one_of(&self.code, &letter.code)
            && is_one_of(&self.event_type, letter.event_type.as_str())
            && self
                .older_than
                .is_none_or(|least| age.is_some_and(|age| age > least))
            && self
                .newer_than
                .is_none_or(|most| age.is_some_and(|age| age <= most))
    }
}

/// Letters to do something to. Nothing is selected by saying nothing.
#[derive(clap::Args)]
pub(super) struct Selection {
    /// Ids of the letters (svix-id)
    #[arg(
        value_name = "ID",
        required_unless_present_any = ["code", "event_type", "older_than", "newer_than", "all"],
        conflicts_with_all = ["code", "event_type", "older_than", "newer_than", "all"]
    )]
    ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// Every letter
    #[arg(long, conflicts_with_all = ["code", "event_type", "older_than", "newer_than"])]
    all: bool,
}

/// What a selection has met.
pub(super) struct Selected<'a> {
    /// The letters.
    pub(super) tally: Tally,
    /// The ids that no letter had.
    pub(super) missing: BTreeSet<&'a str>,
    /// How many were replayed, where that was their fate.
    pub(super) replayed: u64,
}

impl Selection {
    /// Walks along a place. Each letter that is selected has this fate, and every other one stays.
    pub(super) async fn walk(
        &self,
        parked: &mut impl Parked,
        place: Place,
        fate: Fate,
    ) -> Result<Selected<'_>, Interrupted> {
        let now = Millis::now();
        let mut tally = Tally::default();
        let mut missing: BTreeSet<&str> = self.ids.iter().map(String::as_str).collect();
        let walk = parked.walk(place, |letter| {
            missing.remove(letter.id.as_str());
            if !self.takes(letter, now) {
                return Fate::Keep;
            }
            tally.add(&letter.code);
            fate
        });
        let replayed = walk.await?;
        Ok(Selected {
            tally,
            missing,
            replayed,
        })
    }

    fn takes(&self, letter: &Letter, now: Millis) -> bool {
        let Self { ids, filter, all } = self;
        if ids.is_empty() {
            *all || filter.matches(letter, now)
        } else {
            ids.iter().any(|id| id == letter.id.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use clerk_sync_pipeline::{EventId, EventType};

    use super::*;

    const NOW: Millis = Millis(1_800_000_000_000);

    fn letter(code: &str, event_type: &str, seconds_ago: Option<i64>) -> Letter {
        Letter {
            id: EventId::parse("msg_1").unwrap(),
            event_type: EventType::parse(event_type).unwrap(),
            code: code.to_owned(),
            detail: None,
            attempts: 1,
            first_failed_at: None,
            received_at: seconds_ago.map(|seconds| Millis(NOW.0 - seconds * 1000)),
            bytes: 1,
            headers: Vec::new(),
        }
    }

    fn filter() -> Filter {
        Filter {
            code: Vec::new(),
            event_type: Vec::new(),
            older_than: None,
            newer_than: None,
        }
    }

    #[test]
    fn every_condition_must_hold_and_one_of_each_kind_will_do() {
        let filter = Filter {
            code: vec!["malformed".to_owned(), "email_taken".to_owned()],
            event_type: vec!["user.created".to_owned()],
            ..filter()
        };
        assert!(filter.matches(&letter("email_taken", "user.created", None), NOW));
        assert!(!filter.matches(&letter("email_taken", "user.updated", None), NOW));
        assert!(!filter.matches(&letter("missing_email", "user.created", None), NOW));
    }

    #[test]
    fn an_age_is_older_or_newer_and_an_unknown_one_is_neither() {
        let hour = Some(Duration::from_secs(3600));
        let older = Filter {
            older_than: hour,
            ..filter()
        };
        let newer = Filter {
            newer_than: hour,
            ..filter()
        };
        for (seconds_ago, expected) in [
            (Some(3601), (true, false)),
            (Some(3600), (false, true)),
            (Some(0), (false, true)),
            // A clock that runs ahead of ours.
            (Some(-60), (false, true)),
            (None, (false, false)),
        ] {
            let letter = letter("malformed", "user.created", seconds_ago);
            let found = (older.matches(&letter, NOW), newer.matches(&letter, NOW));
            assert_eq!(found, expected, "{seconds_ago:?}");
        }
        assert!(filter().matches(&letter("malformed", "user.created", None), NOW));
    }
}
