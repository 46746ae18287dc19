//! The overview: is it well, in one glance, and the last hour.

use std::time::Duration;

use chrono::DateTime;
use maud::{Markup, html};
use serde_json::{Map, Value, json};

use crate::{
    board::Board,
    delta::{BOUNDS, float},
    frame::{self, Room},
    health::{Finding, Level, judge},
    reader::{Time, now},
    wording::{between, count, exact, iso, percent, rate, span},
};

/// A number that the page shows, and what is said below it.
struct Figure {
    key: &'static str,
    name: &'static str,
    value: String,
    note: String,
}

/// The page.
pub(crate) fn page(board: &Board, csrf: &str) -> Markup {
    let (level, findings) = judge(board);
    let main = html! {
        div.page-head {
            h1 { "Overview" }
            p.live #live hidden { span.dot aria-hidden="true" {} span { "Live" } }
        }
        section.verdict #verdict data-level=(level.name()) aria-label="How it is" {
            (verdict(level, &findings, board))
        }
        // Only when another word is said: counts change every few seconds.
        p.visually-hidden #said role="status" {}
        dl.figures {
            @for figure in figures(board) {
                div {
                    dt { (figure.name) }
                    dd.value data-now=(figure.key) { (figure.value) }
                    dd.note data-note=(figure.key) { (figure.note) }
                }
            }
        }
        section.hour #charts aria-labelledby="hour" data-stream=(crate::form::address("/stream", &[])) {
            div.hour-head {
                h2 #hour { "The last hour" }
                p.hint { "Times are UTC" }
            }
            div.charts {
                (chart("rate", "Events per second", "Over the minute before"))
                (chart("latency", "Sync latency", "From Clerk's time of an event to its commit"))
                (chart("queue", "Events waiting", "In the queue, or for another try"))
                (chart("failures", "Failures per minute", "Put off, given up, or refused at the door"))
            }
        }
        noscript { p.notice { "The charts need JavaScript. The numbers above are those of this moment; load the page again for newer ones." } }
    };
    frame::framed(Room::Overview, "Overview", csrf, &main)
}

fn chart(key: &str, name: &str, what: &str) -> Markup {
    let heading = format!("chart-{key}");
    html! {
        figure.chart data-chart=(key) aria-labelledby=(heading) {
            figcaption {
                h3 #(heading) { (name) }
                p { (what) }
            }
            div.plot {}
            details {
                summary { "As a table" span.visually-hidden { ": " (name) } }
                div.table-scroll tabindex="0" role="region" aria-label={ (name) ", as a table" } {}
            }
        }
    }
}

fn verdict(level: Level, findings: &[Finding], board: &Board) -> Markup {
    html! {
        p.word { span.sign aria-hidden="true" {} (level.word()) }
        @if findings.is_empty() {
            p { (calm(board)) }
        } @else {
            ul {
                @for finding in findings {
                    li data-level=(finding.level.name()) {
                        (finding.text)
                        @if let Some(room) = finding.see { " " a href=(room.path()) { (room.name()) } }
                    }
                }
            }
        }
    }
}

/// What to say where nothing speaks against it.
fn calm(board: &Board) -> &'static str {
    match (board.newest(), board.hour().handled()) {
        (None, _) => "The first numbers come when everything has started, within seconds.",
        (Some(_), 0) => "Nothing has come since the console began to watch; nothing waits.",
        (Some(_), _) => "Events come in and are applied; nothing waits for a person.",
    }
}

/// What the page shows of this moment, for pages that are open.
pub(crate) fn news(board: &Board) -> Value {
    let (level, findings) = judge(board);
    let (mut now, mut notes) = (Map::new(), Map::new());
    for figure in figures(board) {
        now.insert(figure.key.to_owned(), figure.value.into());
        notes.insert(figure.key.to_owned(), figure.note.into());
    }
    json!({
        "level": level.name(),
        "word": level.word(),
        "verdict": verdict(level, &findings, board).into_string(),
        "now": now,
        "notes": notes,
    })
}

fn figures(board: &Board) -> [Figure; 7] {
    let (minute, seconds) = board.minute();
    let hour = board.hour();
    let watched = since(board.watched());
    let figure = |key, name, value: String, note: String| Figure {
        key,
        name,
        value,
        note,
    };
    [
        success(board),
        figure(
            "rate",
            "Events per second",
            rate(float(minute.handled()) / seconds),
            match minute.accepted() {
                Some(accepted) => {
                    format!(
                        "handled; {} received, last minute",
                        rate(float(accepted) / seconds)
                    )
                }
                None => "handled, last minute".to_owned(),
            },
        ),
        queue(board),
        latency(board),
        figure(
            "retries",
            "Retries",
            count(hour.outcome("retried")),
            watched.clone(),
        ),
        figure(
            "dead",
            "Dead letters",
            board
                .stock()
                .map_or("–".to_owned(), |stock| count(stock.dead)),
            format!(
                "wait now; {} new, {watched}",
                count(hour.outcome("dead_lettered"))
            ),
        ),
        heard(board),
    ]
}

fn success(board: &Board) -> Figure {
    let hour = board.hour();
    let (value, note) = match (hour.accepted(), hour.refused()) {
        (Some(0), Some(0)) => ("–".to_owned(), "no webhook yet".to_owned()),
        (Some(accepted), Some(refused)) => {
            let all = accepted + refused;
            let share = float(accepted) / float(all);
            let note = format!("of {} webhooks, {}", count(all), since(board.watched()));
            (percent(share), note)
        }
        _ if board.knows_requests => ("–".to_owned(), "no webhook yet".to_owned()),
        _ => (
            "unknown".to_owned(),
            "the ledger does not know refusals; set CONSOLE_SCRAPE".to_owned(),
        ),
    };
    Figure {
        key: "success",
        name: "Delivery success",
        value,
        note,
    }
}

fn queue(board: &Board) -> Figure {
    let (value, note) = match board.stock() {
        Some(stock) => {
            let waiting = stock.ready + stock.in_flight.unwrap_or(0);
            let later = match stock.delayed {
                0 => "none waits for another try".to_owned(),
                delayed => format!("{} wait for another try", count(delayed)),
            };
            (count(waiting), later)
        }
        None => ("–".to_owned(), "not seen yet".to_owned()),
    };
    Figure {
        key: "queue",
        name: "In the queue",
        value,
        note,
    }
}

fn latency(board: &Board) -> Figure {
    let (recent, hour) = (board.five_minutes(), board.hour());
    let (latencies, time) = match recent.latencies.quantile(0.5) {
        Some(_) => (&recent.latencies, "last 5 min".to_owned()),
        None => (&hour.latencies, since(board.watched())),
    };
    let (value, note) = match (latencies.quantile(0.5), latencies.quantile(0.99)) {
        (Some(p50), Some(p99)) => (
            latency_text(p50),
            format!("median; p99 {}, {time}", latency_text(p99)),
        ),
        _ => ("–".to_owned(), "nothing applied yet".to_owned()),
    };
    Figure {
        key: "latency",
        name: "Sync latency",
        value,
        note,
    }
}

/// Longer ones than the last bound are only known to be longer.
fn latency_text(seconds: f64) -> String {
    let is_over = BOUNDS.last().is_some_and(|last| seconds >= *last);
    let over = if is_over { "over " } else { "" };
    format!("{over}{}", span(seconds))
}

fn heard(board: &Board) -> Figure {
    let (value, note) = match board.last_verified.and_then(time) {
        Some(at) if (now() - at).num_milliseconds() < 1000 => ("just now".to_owned(), exact(at)),
        Some(at) => (format!("{} ago", between(at, now())), exact(at)),
        None => ("–".to_owned(), "none since this process began".to_owned()),
    };
    Figure {
        key: "heard",
        name: if board.knows_requests {
            "Last verified event"
        } else {
            "Last event applied"
        },
        value,
        note,
    }
}

/// Seconds since 1970 as a moment.
#[expect(
    clippy::cast_possible_truncation,
    reason = "milliseconds of our age are exact"
)]
fn time(seconds: f64) -> Option<Time> {
    DateTime::from_timestamp_millis((seconds * 1000.0) as i64)
}

/// What the numbers are about.
fn since(watched: Duration) -> String {
    if watched >= Duration::from_secs(3540) {
        "last hour".to_owned()
    } else {
        match watched.as_secs().div_ceil(60) {
            0 | 1 => "last minute".to_owned(),
            minutes => format!("last {minutes} min"),
        }
    }
}

/// A moment, short; the exact one for who wants to know.
pub(crate) fn stamp(at: Time, now: Time) -> Markup {
    html! {
        time datetime=(iso(at)) title=(exact(at)) { (crate::wording::moment(at, now)) }
    }
}
