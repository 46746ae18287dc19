//! The ledger: what became of each event, searched from new to old, and as it grows.

use clerk_sync_entity::processed_events::{Row, Wanted};
use clerk_sync_pipeline::telemetry::{EventKind, Label as _, Outcome};
use maud::{Markup, html};

use crate::{
    form::{self, Fields},
    frame::{self, Room},
    ledger::{self, Page},
    overview::stamp,
    reader::{Reader, now},
    refusal::Refusal,
    wording::{between, moment},
};

/// What is searched for.
#[derive(Debug, Default)]
pub(crate) struct Search {
    pub(crate) wanted: Wanted,
    id: Option<String>,
    before: Option<String>,
}

impl Search {
    pub(crate) fn of(fields: &Fields) -> Self {
        let field = |name| fields.get(name).map(str::to_owned);
        Self {
            wanted: Wanted {
                subject: field("user"),
                event_type: field("type"),
                outcome: field("outcome"),
            },
            id: field("id"),
            before: field("before"),
        }
    }

    fn address(&self, path: &str, before: Option<&str>) -> String {
        form::address(
            path,
            &[
                ("id", self.id.as_deref()),
                ("user", self.wanted.subject.as_deref()),
                ("type", self.wanted.event_type.as_deref()),
                ("outcome", self.wanted.outcome.as_deref()),
                ("before", before),
            ],
        )
    }
}

/// The page.
pub(crate) async fn page(reader: &Reader, fields: &Fields, csrf: &str) -> Result<Markup, Refusal> {
    let search = Search::of(fields);
    let found = match &search.id {
        Some(id) => Page {
            rows: ledger::event(reader, id).await?.into_iter().collect(),
            next: None,
            unfinished: false,
        },
        None => {
            let after = search.before.as_deref().and_then(ledger::read);
            ledger::search(reader, &search.wanted, after).await?
        }
    };
    let is_first = search.before.is_none() && search.id.is_none();
    let main = html! {
        div.page-head {
            h1 { "Events" }
            @if is_first {
                button.quiet #tail type="button" hidden aria-pressed="true"
                    data-stream=(search.address("/events/stream", None)) {
                    span.dot aria-hidden="true" {} span.tail-name { "Live" }
                }
            }
        }
        (search_form(&search))
        p.visually-hidden #said role="status" {}
        p.notice #flood hidden { "Events come faster than they can be shown: of each two seconds, the newest 100 appear here." }
        p.notice.bad #trouble hidden { "The ledger cannot be read at the moment; it is tried again." }
        @if found.rows.is_empty() && !found.unfinished {
            (nothing(&search))
        }
        div.table-scroll #ledger hidden[found.rows.is_empty()] {
            table.ledger {
                caption.visually-hidden { "Events, the newest first" }
                (columns())
                tbody #rows { @for row in &found.rows { (line(row)) } }
            }
        }
        @if found.unfinished {
            p.notice {
                "This search has no index of its own and looks through the newest events first"
                @if let Some(next) = &found.next {
                    ". So far it has come back to " (moment(next.processed_at, now())) " UTC"
                }
                "."
            }
        }
        nav.pager aria-label="More events" {
            @if !is_first { a.button href=(search.newest()) { "Newest" } }
            @if let Some(next) = &found.next {
                a.button href=(search.address("/events", Some(&ledger::write(next)))) {
                    @if found.unfinished { "Search further back" } @else { "Older" }
                }
            }
        }
    };
    Ok(frame::framed(Room::Events, "Events", csrf, &main))
}

impl Search {
    fn newest(&self) -> String {
        let all = Self {
            wanted: self.wanted.clone(),
            ..Self::default()
        };
        all.address("/events", None)
    }
}

fn search_form(search: &Search) -> Markup {
    let outcome = search.wanted.outcome.as_deref();
    html! {
        form.search method="get" action=(form::address("/events", &[])) role="search" aria-label="Events" {
            div.field {
                label for="user" { "User" }
                input #user name="user" value=[search.wanted.subject.as_deref()] placeholder="user_…"
                    spellcheck="false" autocapitalize="none" autocomplete="off";
            }
            div.field {
                label for="type" { "Type" }
                input #type name="type" value=[search.wanted.event_type.as_deref()] list="types"
                    placeholder="user.updated" spellcheck="false" autocapitalize="none" autocomplete="off";
                datalist #types {
                    @for kind in EventKind::ALL {
                        @if *kind != EventKind::Other { option value=(kind.as_str()) {} }
                    }
                }
            }
            div.field {
                label for="outcome" { "Outcome" }
                select #outcome name="outcome" {
                    option value="" { "Any" }
                    @for each in Outcome::ALL {
                        @if *each != Outcome::Duplicate {
                            option value=(each.as_str()) selected[outcome == Some(each.as_str())] {
                                (spoken(each.as_str()))
                            }
                        }
                    }
                }
            }
            div.field.wide {
                label for="id" { "Event" }
                input #id name="id" value=[search.id.as_deref()] placeholder="msg_…" spellcheck="false"
                    autocapitalize="none" autocomplete="off";
            }
            div.actions {
                button.primary type="submit" { "Search" }
                @if search.id.is_some() || !search.wanted.is_all() {
                    a.button href=(form::address("/events", &[])) { "Clear" }
                }
            }
        }
    }
}

fn nothing(search: &Search) -> Markup {
    html! {
        div.empty #empty {
            @if let Some(id) = &search.id {
                h2 { "The ledger does not know " code { (id) } }
                p { "It never arrived, or still waits in the queue, or is older than " code { "LEDGER_RETENTION" } "." }
            } @else if search.before.is_some() {
                h2 { "Nothing older" }
                p { "This is the ledger's end." }
            } @else if search.wanted.is_all() {
                h2 { "No event yet" }
                p { "Each event appears here as soon as a worker has handled it." }
            } @else {
                h2 { "No such event" }
                p { "Nothing in the ledger is like that. An event that still waits in the queue is not in the ledger yet." }
            }
        }
    }
}

/// The heads of the columns of a [`line`].
pub(crate) fn columns() -> Markup {
    html! {
        thead { tr {
            th scope="col" { "Handled, UTC" }
            th scope="col" { "Type" }
            th scope="col" { "Outcome" }
            th scope="col" { "User" }
            th.number scope="col" { "Latency" }
            th scope="col" { "Event" }
        } }
    }
}

/// A row of the table.
pub(crate) fn line(row: &Row) -> Markup {
    let event = form::address("/event", &[("id", Some(&row.event_id))]);
    html! {
        tr {
            td data-label="Handled" { (stamp(row.processed_at, now())) }
            td data-label="Type" { (row.event_type) }
            td data-label="Outcome" { (badge(&row.outcome)) }
            td data-label="User" {
                @match &row.subject {
                    Some(subject) => (subject_link(subject)),
                    None => span.none { "–" },
                }
            }
            td.number data-label="Latency" { (between(row.received_at, row.processed_at)) }
            td data-label="Event" { a.id href=(event) { (row.event_id) } }
        }
    }
}

/// Whom an event is about; a user can be looked up.
pub(crate) fn subject_link(subject: &str) -> Markup {
    html! {
        @if subject.starts_with("user_") {
            a.id href=(form::address("/users", &[("q", Some(subject))])) { (subject) }
        } @else {
            span.id { (subject) }
        }
    }
}

/// An outcome, as it is shown everywhere.
pub(crate) fn badge(outcome: &str) -> Markup {
    html! { span.badge data-outcome=(outcome) { (spoken(outcome)) } }
}

fn spoken(outcome: &str) -> String {
    outcome.replace('_', "-")
}
