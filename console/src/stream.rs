//! Server-sent events: what all streams share, and the overview's numbers.
//!
//! Each stream ends after a minute, and the browser comes again with its session and the number of
//! the last event that it has: so a session that has ended sees nothing more, and a broken
//! connection is forgotten.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use clerk_sync_pipeline::lifecycle::Shutdown;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::{Either, StreamBody};
use hyper::body::Frame;
use serde_json::json;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, sleep_until},
};

use crate::{answer::Answer, board::Board, overview};

/// How long a stream goes on.
pub(crate) const LASTS: Duration = Duration::from_secs(55);
/// When a browser comes again, in milliseconds.
pub(crate) const AGAIN: &str = "retry: 2000\n";

/// What every stream needs.
pub(crate) struct Line {
    pub(crate) shutdown: Shutdown,
    /// One of few.
    pub(crate) _place: OwnedSemaphorePermit,
    /// This run of the process: numbers of another one mean nothing here.
    pub(crate) run: Arc<str>,
}

/// The overview's numbers: all of the last hour first, as soon as there are any, then each sample.
pub(crate) fn numbers(
    line: Line,
    mut boards: watch::Receiver<Arc<Board>>,
    headers: &HeaderMap,
) -> Answer {
    let seen = last_seen(headers, &line.run);
    if boards.borrow().newest().is_some() {
        boards.mark_changed();
    }
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

/// The number of the last event that the browser has, if it was of this run.
fn last_seen(headers: &HeaderMap, run: &str) -> Option<u64> {
    let (of_run, number) = last_event_id(headers)?.split_once('-')?;
    (of_run == run).then(|| number.parse().ok())?
}

/// The id of the last event that the browser has of this stream.
pub(crate) fn last_event_id(headers: &HeaderMap) -> Option<&str> {
    headers.get("last-event-id")?.to_str().ok()
}

/// Events as they are made.
pub(crate) fn answer(events: impl futures_util::Stream<Item = String> + Send + 'static) -> Answer {
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
