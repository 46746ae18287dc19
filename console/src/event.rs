//! One event: what happened to it, step by step.

use clerk_sync_entity::processed_events::Row;
use clerk_sync_pipeline::queue::parked::{Letter, Place};
use maud::{Markup, html};

use crate::{
    advice,
    events::{badge, subject_link},
    form::Fields,
    frame::{self, Room},
    ledger,
    letters::{detail_rows, letter_address},
    reader::{Reader, Time, now},
    refusal::Refusal,
    shelf::Shelf,
    wording::{between, exact, iso},
};

/// The page.
pub(crate) async fn page(
    reader: &Reader,
    shelf: &Shelf,
    fields: &Fields,
    csrf: &str,
) -> Result<Markup, Refusal> {
    let id = fields.get("id").unwrap_or_default();
    let row = ledger::event(reader, id).await?;
    let row = row.ok_or_else(|| {
        Refusal::NotFound(format!(
            "The ledger does not know {id}: it never arrived, or still waits in the queue, or is \
             older than LEDGER_RETENTION."
        ))
    })?;
    // Why it lies there is known to the letter alone.
    let letter = if row.outcome == "dead_lettered" {
        Some(shelf.letters(Place::Dead, id).await)
    } else {
        None
    };
    let main = html! {
        p.back { a href=(Room::Events.path()) { "Events" } }
        div.page-head { h1.id { (row.event_id) } (badge(&row.outcome)) }
        dl.facts {
            div { dt { "Type" } dd { (row.event_type) } }
            div {
                dt { "User" }
                dd {
                    @match &row.subject {
                        Some(subject) => (subject_link(subject)),
                        None => "none",
                    }
                }
            }
        }
        h2 { "What happened" }
        ol.timeline {
            @for step in steps(&row) {
                li data-state=(step.state) {
                    div.when {
                        @match step.at {
                            Some(at) => time datetime=(iso(at)) { (exact(at)) },
                            None => "at an unknown time",
                        }
                    }
                    div.what {
                        h3 { (step.name) }
                        p { (step.text) }
                    }
                }
            }
        }
        @match letter {
            Some(Ok(letters)) => { @for letter in &letters { (why(letter)) } },
            Some(Err(refusal)) => p.notice { "Why it was dead-lettered cannot be seen now. " (refusal.to_string()) },
            None => {},
        }
    };
    Ok(frame::framed(Room::Events, id, csrf, &main))
}

struct Step {
    at: Option<Time>,
    state: &'static str,
    name: &'static str,
    text: String,
}

fn steps(row: &Row) -> Vec<Step> {
    let mut steps = vec![Step {
        at: row.occurred_at,
        state: "done",
        name: "Happened at Clerk",
        text: match row.occurred_at {
            Some(_) => "As the event itself says.".to_owned(),
            None => "The event does not say when.".to_owned(),
        },
    }];
    let on_the_way = row.occurred_at.map(|at| between(at, row.received_at));
    let later = on_the_way.map(|time| format!("{time} after it happened. "));
    steps.push(Step {
        at: Some(row.received_at),
        state: "done",
        name: "Received and queued",
        text: format!(
            "{}Its signature was right; it was on disk in the queue before Clerk had its 204.",
            later.unwrap_or_default()
        ),
    });
    let waited = between(row.received_at, row.processed_at);
    let (state, name) = match row.outcome.as_str() {
        "created" | "updated" | "deleted" => ("done", "Applied"),
        "retried" => ("waits", "Tried; will be tried again"),
        "dead_lettered" => ("bad", "Tried, and given up"),
        _ => ("skipped", "Looked at, nothing to do"),
    };
    steps.push(Step {
        at: Some(row.processed_at),
        state,
        name,
        text: format!(
            "{waited} after it was received. {}",
            advice::outcome(&row.outcome)
        ),
    });
    steps
}

fn why(letter: &Letter) -> Markup {
    html! {
        section.panel {
            h2 { (advice::name(&letter.code)) }
            p { (advice::cure(&letter.code)) }
            dl.facts { (detail_rows(letter, now())) }
            p { a.button href=(letter_address(Place::Dead, letter.id.as_str())) { "Open the letter" } }
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, Utc};

    use super::*;

    fn row(outcome: &str) -> Row {
        let at = Utc::now();
        Row {
            event_id: "msg_1".to_owned(),
            event_type: "user.created".to_owned(),
            subject: None,
            occurred_at: Some(at),
            received_at: at + TimeDelta::seconds(2),
            processed_at: at + TimeDelta::milliseconds(2031),
            outcome: outcome.to_owned(),
        }
    }

    #[test]
    fn every_outcome_has_its_end() {
        for (outcome, state) in [
            ("created", "done"),
            ("stale", "skipped"),
            ("ignored", "skipped"),
            ("retried", "waits"),
            ("dead_lettered", "bad"),
        ] {
            let steps = steps(&row(outcome));
            assert_eq!(steps[2].state, state, "{outcome}");
            assert!(steps[1].text.starts_with("2.0 s after it happened."));
            assert!(steps[2].text.starts_with("31 ms after it was received."));
        }
    }
}
