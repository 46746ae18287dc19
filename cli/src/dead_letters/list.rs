//! `clerk-sync dead-letters list`.

use std::{collections::BTreeMap, process::ExitCode};

use clerk_sync_pipeline::{
    Millis,
    queue::parked::{Fate, Letter, Parked, Place, Tally},
    wording::{age, cut, letters, number, rfc3339},
};
use serde::Serialize;

use super::{Errand, QueueArgs, selection::Filter};

/// Count the letters by error code, and show the newest
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  clerk-sync dead-letters list
  clerk-sync dead-letters list --code email_taken --newer-than 1day --limit 200
  clerk-sync dead-letters list --json | jq -r '.letters[].id'")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    filter: Filter,
    /// Most letters to show; all are counted
    #[arg(long, default_value_t = 50, value_name = "COUNT")]
    limit: usize,
    /// As JSON, whose shape docs/DEAD_LETTERS.md has
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) queue: QueueArgs,
}

/// What was seen: counts of all, and the newest of them.
struct Seen {
    now: Millis,
    limit: usize,
    total: u64,
    tally: Tally,
    /// By age, then in the order of the walk.
    newest: BTreeMap<(Option<Millis>, u64), Letter>,
}

impl Seen {
    fn add(&mut self, filter: &Filter, letter: &Letter) {
        self.total += 1;
        if !filter.matches(letter, self.now) {
            return;
        }
        self.tally.add(&letter.code);
        // What is no time must not be newer than everything.
        let known = letter.received_at.filter(|at| rfc3339(*at).is_some());
        self.newest.insert((known, self.total), letter.clone());
        if self.newest.len() > self.limit {
            self.newest.pop_first();
        }
    }

    fn newest(&self) -> impl Iterator<Item = &Letter> {
        self.newest.values().rev()
    }
}

impl Errand for ListArgs {
    async fn run(&self, parked: &mut impl Parked) -> anyhow::Result<ExitCode> {
        let place = self.queue.place();
        let mut seen = Seen {
            now: Millis::now(),
            limit: self.limit,
            total: 0,
            tally: Tally::default(),
            newest: BTreeMap::new(),
        };
        let walk = parked.walk(place, |letter| {
            seen.add(&self.filter, letter);
            Fate::Keep
        });
        walk.await?;
        // Beside the point: a user with no right to look there is told nothing of it.
        let elsewhere = parked.count(place.other()).await.ok();
        let queue = parked.name(place);
        if self.json {
            let report = Report::new(place, &queue, &seen, elsewhere);
            say!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            self.show(&queue, &seen);
            mention(parked, place.other(), elsewhere);
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl ListArgs {
    fn show(&self, queue: &str, seen: &Seen) {
        let matching = seen.tally.total();
        match (seen.total, self.filter.is_any()) {
            (0, _) => say!("no letters in {queue}"),
            (total, false) => say!("{} in {queue}", letters(total)),
            (total, true) => {
                let of = number(matching);
                say!("{of} of {} in {queue}", letters(total));
            }
        }
        let columns = Columns::of(seen);
        for (code, count) in seen.tally.codes() {
            say!("\n{code}: {}", letters(count));
            let mut shown = 0;
            for letter in seen.newest().filter(|letter| letter.code == code) {
                say!("{}", columns.line(letter));
                shown += 1;
            }
            if shown < count {
                say!("       and {} more", number(count - shown));
            }
        }
        if (seen.newest.len() as u64) < matching {
            say!("\nThe newest are shown; --limit {matching} shows all.");
        }
    }
}

fn mention(parked: &impl Parked, other: Place, count: Option<u64>) {
    if let Some(count) = count.filter(|count| *count > 0) {
        let from = name(other);
        say!(
            "\n{} in {}: --from {from}",
            letters(count),
            parked.name(other)
        );
    }
}

fn name(place: Place) -> &'static str {
    match place {
        Place::Dead => "dead",
        Place::Unrouted => "unrouted",
    }
}

/// Widths for lines that fit a terminal of 80 columns, unless ids are very long: an id is to be
/// copied, and never cut.
struct Columns {
    now: Millis,
    id: usize,
    event_type: usize,
}

impl Columns {
    const WIDTH: usize = 80;
    /// Age, attempts and the gaps between all.
    const REST: usize = 2 + 4 + 2 + 2 + 2 + "99 attempts".len();

    fn of(seen: &Seen) -> Self {
        let widest = |width: fn(&Letter) -> usize| seen.newest().map(width).max().unwrap_or(0);
        let id = widest(|letter| letter.id.as_str().len());
        let left = Self::WIDTH.saturating_sub(Self::REST + id).max(12);
        let event_type = widest(|letter| letter.event_type.as_str().len()).min(left);
        Self {
            now: seen.now,
            id,
            event_type,
        }
    }

    fn line(&self, letter: &Letter) -> String {
        let age = age(letter.received_at, self.now);
        let event_type = cut(letter.event_type.as_str(), self.event_type);
        let plural = if letter.attempts == 1 { "" } else { "s" };
        format!(
            "  {age:>4}  {id:<id_width$}  {event_type:<type_width$}  {attempts} attempt{plural}",
            id = letter.id.as_str(),
            id_width = self.id,
            type_width = self.event_type,
            attempts = letter.attempts,
        )
    }
}

/// The shape of `--json`: a promise to scripts. Fields may come, none changes or goes.
#[derive(Serialize)]
struct Report<'a> {
    from: &'static str,
    queue: &'a str,
    total: u64,
    matching: u64,
    codes: Vec<Code<'a>>,
    letters: Vec<Line<'a>>,
    elsewhere: Option<u64>,
}

#[derive(Serialize)]
struct Code<'a> {
    code: &'a str,
    count: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    r#type: &'a str,
    code: &'a str,
    detail: Option<&'a str>,
    attempts: u32,
    received_at: Option<String>,
    first_failed_at: Option<String>,
    bytes: u64,
}

impl<'a> Report<'a> {
    fn new(place: Place, queue: &'a str, seen: &'a Seen, elsewhere: Option<u64>) -> Self {
        let codes = seen.tally.codes().into_iter();
        let line = |letter: &'a Letter| Line {
            id: letter.id.as_str(),
            r#type: letter.event_type.as_str(),
            code: &letter.code,
            detail: letter.detail.as_deref(),
            attempts: letter.attempts,
            received_at: letter.received_at.and_then(rfc3339),
            first_failed_at: letter.first_failed_at.and_then(rfc3339),
            bytes: letter.bytes,
        };
        Self {
            from: name(place),
            queue,
            total: seen.total,
            matching: seen.tally.total(),
            codes: codes.map(|(code, count)| Code { code, count }).collect(),
            letters: seen.newest().map(line).collect(),
            elsewhere,
        }
    }
}

#[cfg(test)]
mod tests {
    use clerk_sync_pipeline::{EventId, EventType};

    use super::*;

    fn seen(limit: usize) -> Seen {
        Seen {
            now: Millis(1_800_000_000_000),
            limit,
            total: 0,
            tally: Tally::default(),
            newest: BTreeMap::new(),
        }
    }

    fn letter(id: &str, event_type: &str, received_at: Option<i64>) -> Letter {
        Letter {
            id: EventId::parse(id).unwrap(),
            event_type: EventType::parse(event_type).unwrap(),
            code: "foreign_key_violation".to_owned(),
            detail: None,
            attempts: 6,
            first_failed_at: None,
            received_at: received_at.map(Millis),
            bytes: 1,
            headers: Vec::new(),
        }
    }

    fn any() -> Filter {
        #[derive(clap::Parser)]
        struct Only {
            #[command(flatten)]
            filter: Filter,
        }
        <Only as clap::Parser>::parse_from(["x"]).filter
    }

    #[test]
    fn the_newest_are_kept_and_all_are_counted() {
        let mut seen = seen(3);
        for (id, at) in [
            ("msg_old", Some(1_000)),
            ("msg_new", Some(1_700_000_000_000)),
            ("msg_of_no_time", Some(i64::MAX)),
            ("msg_ageless", None),
            ("msg_newer", Some(1_700_000_000_001)),
        ] {
            seen.add(&any(), &letter(id, "user.created", at));
        }
        let kept: Vec<_> = seen.newest().map(|letter| letter.id.as_str()).collect();
        assert_eq!(kept, ["msg_newer", "msg_new", "msg_old"]);
        assert_eq!((seen.total, seen.tally.total()), (5, 5));
    }

    #[test]
    fn a_line_fits_80_columns_and_no_id_is_cut() {
        let mut seen = seen(10);
        let long = "organizationMembershipInvitation.created_by_somebody_else";
        let svix = "msg_2Lh9KRb0pzN4LePd3XiA4v12Axj";
        seen.add(&any(), &letter(svix, long, Some(0)));
        let line = Columns::of(&seen).line(seen.newest().next().unwrap());
        assert!(line.chars().count() <= 80, "{line}");
        assert!(line.contains(svix) && line.contains("organizationMember"));
        let id = "x".repeat(255);
        seen.add(&any(), &letter(&id, long, Some(1)));
        let line = Columns::of(&seen).line(seen.newest().next().unwrap());
        assert!(line.contains(&id), "{line}");
    }
}
