//! Server-sent events: the overview's numbers, and the ledger's tail.
//!
//! Each stream ends after a minute, and the browser comes again with its session and the number of
//! the last event that it has: so a session that has ended sees nothing more, and a broken
//! connection is forgotten.

use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use clerk_sync_pipeline::lifecycle::Shutdown;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::{Either, StreamBody};
use hyper::body::Frame;
use serde_json::json;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    answer::Answer,
    board::Board,
    events::{Search, line},
    ledger, overview,
    reader::{Reader, now},
};

/// How long a stream goes on.
const LASTS: Duration = Duration::from_secs(55);
/// When a browser comes again, in milliseconds.
const AGAIN: &str = "retry: 2000\n";
/// Time between two looks at the ledger.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How far back each look goes: a row is there only after its commit.
const LOOK_BACK: chrono::TimeDelta = chrono::TimeDelta::seconds(12);
/// Most rows that are shown of one look.
const MOST_ROWS: u64 = 100;

/// What every stream needs.
pub(crate) struct Line {
    pub(crate) shutdown: Shutdown,
    /// One of few.
    pub(crate) _place: OwnedSemaphorePermit,
    /// This run of the process: numbers of another one mean nothing here.
    pub(crate) run: Arc<str>,
}

/// The overview's numbers: all of the last hour first, then each sample.
pub(crate) fn numbers(
    line: Line,
    mut boards: watch::Receiver<Arc<Board>>,
    headers: &HeaderMap,
) -> Answer {
    let seen = last_seen(headers, &line.run);
    boards.mark_changed();
    let state = (line, boards, seen, Instant::now() + LASTS);
    let events = stream::unfold(state, |(line, mut boards, seen, ends)| async move {
        tokio::select! {
            changed = boards.changed() => changed.ok()?,
            () = sleep_until(ends) => return None,
            () = line.shutdown.requested() => return None,
        }
        let board = boards.borrow_and_update().clone();
        let data = json!({
            "whole": seen.is_none(),
            "points": board.points_after(seen),
            "news": overview::news(&board),
        });
        let newest = board.newest();
        let id = newest.map(|number| format!("id: {}-{number}\n", line.run));
        let event = format!("{AGAIN}{}data: {data}\n\n", id.unwrap_or_default());
        Some((event, (line, boards, newest.or(seen), ends)))
    });
    answer(events)
}

/// New rows of the ledger, as rows of the page's table.
pub(crate) fn tail(line: Line, reader: Reader, search: Search) -> Answer {
    let state = Tail {
        line,
        reader,
        search,
        sent: HashMap::new(),
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
        tail.is_first = false;
        if Instant::now() >= tail.ends {
            return None;
        }
        Some((tail.next().await, tail))
    });
    answer(events)
}

struct Tail {
    line: Line,
    reader: Reader,
    search: Search,
    /// Ids with the moments of their rows: an event may be handled again.
    sent: HashMap<String, chrono::DateTime<chrono::Utc>>,
    ends: Instant,
    is_first: bool,
}

impl Tail {
    async fn next(&mut self) -> String {
        let from = now() - LOOK_BACK;
        let rows = match ledger::since(&self.reader, from, MOST_ROWS).await {
            Ok(rows) => rows,
            Err(_) => return "event: trouble\ndata: {}\n\n".to_owned(),
        };
        self.sent.retain(|_, at| *at >= from);
        let all = rows.len() as u64 == MOST_ROWS;
        let mut fresh = rows;
        fresh.retain(|row| {
            let before = self.sent.insert(row.event_id.clone(), row.processed_at);
            before != Some(row.processed_at) && self.search.takes(row)
        });
        if fresh.is_empty() {
            // So that a browser that is gone is noticed.
            return format!("{AGAIN}:\n\n");
        }
        let html: String = fresh.iter().map(|row| line(row).into_string()).collect();
        let data = json!({ "rows": html, "count": fresh.len(), "more": all });
        format!("{AGAIN}event: rows\ndata: {data}\n\n")
    }
}

/// The number of the last event that the browser has, if it was of this run.
fn last_seen(headers: &HeaderMap, run: &str) -> Option<u64> {
    let id = headers.get("last-event-id")?.to_str().ok()?;
    let (of_run, number) = id.split_once('-')?;
    (of_run == run).then(|| number.parse().ok())?
}

fn answer(events: impl futures_util::Stream<Item = String> + Send + 'static) -> Answer {
    let frames = events.map(|event| Ok::<_, Infallible>(Frame::data(Bytes::from(event))));
    let mut answer = Response::new(Either::Right(StreamBody::new(frames.boxed())));
    let headers = answer.headers_mut();
    let kind = HeaderValue::from_static("text/event-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    // For proxies that would wait for more.
    let at_once = HeaderValue::from_static("no");
    headers.insert("x-accel-buffering", at_once);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_another_run_mean_nothing() {
        let mut headers = HeaderMap::new();
        assert_eq!(last_seen(&headers, "a1"), None);
        headers.insert("last-event-id", HeaderValue::from_static("a1-17"));
        assert_eq!(last_seen(&headers, "a1"), Some(17));
        assert_eq!(last_seen(&headers, "b2"), None);
    }
}
