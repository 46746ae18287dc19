//! Is all well? One word, and what speaks against it.

use crate::{
    board::Board,
    delta::float,
    wording::{count, percent},
};

/// How it is, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Well,
    Look,
    Trouble,
}

impl Level {
    /// As a person says it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Well => "All is well",
            Self::Look => "Needs a look",
            Self::Trouble => "In trouble",
        }
    }

    /// As style sheets know it.
    pub(crate) fn name(self) -> &'static str {
        match self {
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
}

/// Share of deliveries that may fail before it is worth a look, and before it is trouble.
const FEW: f64 = 0.001;
const MANY: f64 = 0.01;
/// Events that may wait while none is handled: the last batch is still on its way.
const WAITING: u64 = 1;

/// The worst of the findings, and all of them, the worst first.
pub(crate) fn judge(board: &Board) -> (Level, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut find = |level, text| findings.push(Finding { level, text });
    for problem in &board.problems {
        find(Level::Trouble, sentence(problem));
    }
    if board.connected == Some(false) && board.problems.is_empty() {
        find(
            Level::Trouble,
            "A connection to the queue is down.".to_owned(),
        );
    }
    let recent = board.five_minutes();
    if let (Some(accepted), Some(refused)) = (recent.accepted(), recent.refused())
        && refused > 0
    {
        let share = float(refused) / float(accepted + refused);
        let codes: Vec<_> = recent
            .refusals()
            .into_iter()
            .flatten()
            .map(|(code, number)| format!("{} {code}", count(number)))
            .collect();
        let level = if share > MANY {
            Level::Trouble
        } else {
            Level::Look
        };
        if share > FEW {
            let text = format!(
                "{} of the last 5 minutes' requests were refused: {}.",
                percent(share),
                codes.join(", ")
            );
            find(level, text);
        }
    }
    if let Some(stock) = board.stock() {
        if stock.unrouted > 0 {
            let text = format!(
                "{} found no queue and wait to be moved back.",
                events(stock.unrouted)
            );
            find(Level::Trouble, text);
        }
        if stock.ready > WAITING && board.minute().0.handled() == 0 {
            let text = format!(
                "{} wait, and none was handled in the last minute: is a worker running?",
                events(stock.ready)
            );
            find(Level::Trouble, text);
        }
        if stock.dead > 0 {
            let text = format!(
                "{} could not be applied and wait for a person.",
                events(stock.dead)
            );
            find(Level::Look, text);
        }
        if stock.delayed > 0 {
            let text = format!(
                "{} are to be tried again by themselves.",
                events(stock.delayed)
            );
            find(Level::Look, text);
        }
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let worst = findings
        .first()
        .map_or(Level::Well, |finding| finding.level);
    (worst, findings)
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
        assert_eq!(
            findings[2].text,
            "2 events could not be applied and wait for a person."
        );
    }
}
