//! Is all well? One word, and what speaks against it.

use std::time::Duration;

use crate::{
    board::Board,
    delta::float,
    frame::Room,
    wording::{count, percent, span},
};

/// How it is, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Nothing was looked at yet.
    Unknown,
    Well,
    Look,
    Trouble,
}

impl Level {
    /// As a person says it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Unknown => "Starting",
            Self::Well => "All is well",
            Self::Look => "Needs a look",
            Self::Trouble => "In trouble",
        }
    }

    /// As style sheets know it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Well => "well",
            Self::Look => "look",
            Self::Trouble => "trouble",
        }
    }
}

/// Something that speaks against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    pub(crate) text: String,
    /// Where more is said of it.
    pub(crate) see: Option<Room>,
}

impl Finding {
    fn new(level: Level, text: String) -> Self {
        let see = None;
        Self { level, text, see }
    }

    fn see(self, room: Room) -> Self {
        let see = Some(room);
        Self { see, ..self }
    }
}

/// Share of deliveries that may fail before it is worth a look, and before it is trouble.
const FEW: f64 = 0.001;
const MANY: f64 = 0.01;
/// Refusals that make trouble at least: one scanner at the door of a quiet night is none.
const SOME: u64 = 5;
/// Events that may wait while none is handled: the last batch is still on its way.
const WAITING: u64 = 1;
/// Silence that is worth a look. Clerk gives an event up after some 28 hours.
const SILENT: Duration = Duration::from_secs(24 * 3600);

/// The worst of the findings, and all of them, the worst first.
pub(crate) fn judge(board: &Board) -> (Level, Vec<Finding>) {
    if board.newest().is_none() {
        return (Level::Unknown, Vec::new());
    }
    let problems = board.problems.iter();
    let mut findings: Vec<_> = problems
        .map(|problem| Finding::new(Level::Trouble, sentence(problem)))
        .collect();
    if board.connected == Some(false) && findings.is_empty() {
        let text = "A connection to the queue is down.".to_owned();
        findings.push(Finding::new(Level::Trouble, text));
    }
    findings.extend(refusals(board));
    findings.extend(silence(board));
    findings.extend(waiting(board));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let worst = findings.first();
    let worst = worst.map_or(Level::Well, |finding| finding.level);
    (worst, findings)
}

/// What was refused at the door.
fn refusals(board: &Board) -> Option<Finding> {
    let recent = board.five_minutes();
    let (accepted, refused) = (recent.accepted()?, recent.refused()?);
    let share = float(refused) / float((accepted + refused).max(1));
    if share <= FEW {
        return None;
    }
    let codes = recent.refusals()?;
    let codes: Vec<_> = codes
        .map(|(code, number)| format!("{} {code}", count(number)))
        .collect();
    let level = if share > MANY && refused >= SOME {
        Level::Trouble
    } else {
        Level::Look
    };
    let text = format!(
        "{} of the last 5 minutes' requests were refused: {}.",
        percent(share),
        codes.join(", ")
    );
    Some(Finding::new(level, text))
}

/// That nothing comes any more.
fn silence(board: &Board) -> Option<Finding> {
    let silent = float(u64::try_from(board.at()?.0).ok()?) / 1000.0 - board.last_verified?;
    let text = format!(
        "No event has come for {}: does Clerk still send here?",
        span(silent)
    );
    (silent > SILENT.as_secs_f64()).then(|| Finding::new(Level::Look, text))
}

/// What lies in the queue.
fn waiting(board: &Board) -> Vec<Finding> {
    let Some(stock) = board.stock() else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    if stock.unrouted > 0 {
        let text = format!(
            "{} found no queue and wait to be moved back.",
            events(stock.unrouted)
        );
        findings.push(Finding::new(Level::Trouble, text).see(Room::DeadLetters));
    }
    if stock.ready > WAITING && board.minute().0.handled() == 0 {
        let text = format!(
            "{} wait, and none was handled in the last minute: is a worker running?",
            events(stock.ready)
        );
        findings.push(Finding::new(Level::Trouble, text));
    }
    if stock.dead > 0 {
        let text = format!(
            "{} could not be applied and wait for a person.",
            events(stock.dead)
        );
        findings.push(Finding::new(Level::Look, text).see(Room::DeadLetters));
    }
    if stock.delayed > 0 {
        let text = format!(
            "{} are to be tried again by themselves.",
            events(stock.delayed)
        );
        findings.push(Finding::new(Level::Look, text));
    }
    findings
}

fn events(number: u64) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} event{plural}", count(number))
}

/// With a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters
        .next()
        .map(|first| first.to_uppercase().to_string());
    let stop = if text.ends_with(['.', '?', '!']) {
        ""
    } else {
        "."
    };
    format!("{}{}{stop}", first.unwrap_or_default(), characters.as_str())
}

#[cfg(test)]
mod tests {
    use clerk_sync_pipeline::{Millis, queue::stock::Stock};

    use super::*;
    use crate::{delta::Delta, source::Look};

    fn board(requests: &[(&str, u64)], handled: u64, stock: Stock) -> Board {
        let mut board = Board::new(true);
        let requests = requests
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count));
        let look = Look {
            delta: Delta {
                requests: Some(requests.collect()),
                outcomes: [("created".to_owned(), handled)].into(),
                ..Delta::default()
            },
            connected: Some(true),
            ..Look::default()
        };
        board.add(Millis(0), look, Ok(Some(stock)));
        board
    }

    fn level(requests: &[(&str, u64)], handled: u64, stock: Stock) -> Level {
        judge(&board(requests, handled, stock)).0
    }

    #[test]
    fn health_is_the_worst_of_what_was_found() {
        let empty = Stock::default();
        assert_eq!(level(&[("accepted", 100)], 100, empty), Level::Well);
        assert_eq!(level(&[], 0, empty), Level::Well, "quiet is well");
        let refused = [("accepted", 1000), ("signature_mismatch", 5)];
        assert_eq!(level(&refused, 1, empty), Level::Look);
        let refused = [("accepted", 100), ("queue_unavailable", 5)];
        assert_eq!(level(&refused, 1, empty), Level::Trouble);
        let scanner = [("missing_header", 1)];
        assert_eq!(level(&scanner, 0, empty), Level::Look, "one at night");
        let all_wrong = [("signature_mismatch", 5)];
        assert_eq!(level(&all_wrong, 0, empty), Level::Trouble);
        let stranger = [("accepted", 100), ("not_found", 500)];
        assert_eq!(level(&stranger, 1, empty), Level::Well);
        for (stock, handled, wanted) in [
            (Stock { dead: 1, ..empty }, 1, Level::Look),
            (
                Stock {
                    delayed: 1,
                    ..empty
                },
                1,
                Level::Look,
            ),
            (
                Stock {
                    unrouted: 1,
                    ..empty
                },
                1,
                Level::Trouble,
            ),
            (Stock { ready: 50, ..empty }, 50, Level::Well),
            (Stock { ready: 50, ..empty }, 0, Level::Trouble),
        ] {
            assert_eq!(level(&[], handled, stock), wanted, "{stock:?}");
        }
    }

    #[test]
    fn before_the_first_look_nothing_is_well() {
        assert_eq!(judge(&Board::new(true)).0, Level::Unknown);
    }

    #[test]
    fn a_day_of_silence_is_worth_a_look() {
        let hour = 3_600_000;
        for (silent, wanted) in [(23, Level::Well), (25, Level::Look)] {
            let mut board = Board::new(true);
            let look = Look {
                last_verified: Some(1.0),
                ..Look::default()
            };
            board.add(Millis(silent * hour + 1000), look, Ok(None));
            assert_eq!(judge(&board).0, wanted, "{silent} h");
        }
    }

    #[test]
    fn the_worst_comes_first_and_is_a_sentence() {
        let stock = Stock {
            dead: 2,
            unrouted: 1,
            ..Stock::default()
        };
        let mut board = board(&[], 1, stock);
        board
            .problems
            .push("database is not ready: away".to_owned());
        let (level, findings) = judge(&board);
        assert_eq!((level, findings.len()), (Level::Trouble, 3));
        assert_eq!(findings[0].text, "Database is not ready: away.");
        assert_eq!(findings[2].see, Some(Room::DeadLetters));
        assert_eq!(
            findings[2].text,
            "2 events could not be applied and wait for a person."
        );
    }
}
