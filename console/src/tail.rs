//! The ledger's tail: what was handled since, as rows of the page's table.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use clerk_sync_entity::processed_events::Wanted;
use futures_util::stream;
use http::HeaderMap;
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};

use crate::{
    answer::Answer,
    events::{Search, line},
    form::Fields,
    ledger,
    reader::{Reader, Time, now},
    stream::{AGAIN, LASTS, Line, answer, last_event_id},
    wording::iso,
};

/// Time between two looks at the ledger.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How far back each look goes: a row is there only after its commit.
const LOOK_BACK: TimeDelta = TimeDelta::seconds(12);
/// How far back the first look goes at most, for a page that has paused.
const CATCH_UP: TimeDelta = TimeDelta::minutes(10);
/// Most rows that are shown of one look.
const MOST_ROWS: usize = 100;

/// Wanted rows that are handled from now on; and before, those since the last one that the page has.
pub(crate) fn tail(line: Line, reader: Reader, fields: &Fields, headers: &HeaderMap) -> Answer {
    // A stream that comes again by itself knows better than the address that it first had.
    let since = last_event_id(headers).or(fields.get("since"));
    let state = Tail {
        line,
        reader,
        wanted: Search::of(fields).wanted,
        sent: HashMap::new(),
        since: since.and_then(moment),
        ends: Instant::now() + LASTS,
        is_first: true,
    };
    let events = stream::unfold(state, |mut tail| async move {
        if !tail.is_first {
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = tail.line.shutdown.requested() => return None,
            }
        }
        if Instant::now() >= tail.ends {
            return None;
        }
        let event = tail.next().await;
        tail.is_first = false;
        Some((event, tail))
    });
    answer(events)
}

struct Tail {
    line: Line,
    reader: Reader,
    wanted: Wanted,
    /// Ids with the moments of their rows: an event may be handled again.
    sent: HashMap<String, Time>,
    /// The newest row that the page has, when it says so.
    since: Option<Time>,
    ends: Instant,
    is_first: bool,
}

impl Tail {
    async fn next(&mut self) -> String {
        let now = now();
        let mut from = now - LOOK_BACK;
        if let Some(since) = self.since.filter(|_| self.is_first) {
            from = from.min((since - LOOK_BACK).max(now - CATCH_UP));
        }
        let looked = ledger::since(&self.reader, &self.wanted, from, MOST_ROWS as u64).await;
        let Ok(mut rows) = looked else {
            return "event: trouble\ndata: {}\n\n".to_owned();
        };
        self.sent.retain(|_, at| *at >= from);
        let is_full = rows.len() == MOST_ROWS;
        rows.retain(|row| {
            let before = self.sent.insert(row.event_id.clone(), row.processed_at);
            before != Some(row.processed_at)
        });
        let Some(newest) = rows.first() else {
            // So that a browser that is gone is noticed.
            return format!("{AGAIN}:\n\n");
        };
        let id = iso(newest.processed_at);
        // Between these and those before, there may be some that nobody is shown.
        let knows_before = !self.is_first || self.since.is_some();
        let more = is_full && rows.len() == MOST_ROWS && knows_before;
        let html: String = rows.iter().map(|row| line(row).into_string()).collect();
        let data = json!({ "rows": html, "count": rows.len(), "more": more });
        format!("{AGAIN}id: {id}\nevent: rows\ndata: {data}\n\n")
    }
}

fn moment(text: &str) -> Option<Time> {
    let moment = DateTime::parse_from_rfc3339(text).ok()?;
    Some(moment.with_timezone(&Utc))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_what_the_page_says_or_nothing() {
        let at = moment("2026-11-28T20:41:04.378Z").unwrap();
        assert_eq!(iso(at), "2026-11-28T20:41:04.378Z");
        assert_eq!(moment("yesterday"), None);
        assert_eq!(moment("a1-17"), None);
    }
}
