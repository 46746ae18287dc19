//! What is known of one user, as it is shown.

use clerk_sync_entity::{accounts::Account, processed_events::Row, user_versions, users};
use maud::{Markup, html};

use crate::{
    events::{columns, line},
    form,
    frame::hidden,
    ledger,
    users::is_id,
    wording::{count, exact, iso},
};

/// What is known of a user.
pub(crate) struct Known {
    pub(crate) account: Option<Account>,
    pub(crate) version: Option<user_versions::Row>,
    pub(crate) events: ledger::Page,
}

/// The user, and what can be done.
pub(crate) fn user(id: &str, known: &Known, can_fetch: bool, csrf: &str) -> Markup {
    let deleted_at = known
        .version
        .as_ref()
        .and_then(|version| version.deleted_at);
    html! {
        section.user {
            div.user-head {
                h2.id { (id) }
                @match (&known.account, deleted_at) {
                    (Some(_), None) => span.badge data-outcome="created" { "present" },
                    (_, Some(_)) => span.badge data-outcome="deleted" { "deleted" },
                    (None, None) => span.badge data-outcome="stale" { "no row" },
                }
            }
            @match &known.account {
                Some(account) => (row(account, known.version.is_some())),
                None => p.lead {
                    @match deleted_at {
                        Some(_) => { "Deleted, and remembered: no late event brings this user back." },
                        None => "There is no row, and nothing is held of this user.",
                    }
                },
            }
            @if let Some(version) = &known.version { (held(version)) }
            @if !is_id(id) {
                p.hint { "That is no id of Clerk's." }
            } @else if can_fetch {
                form.actions method="post" action=(form::address("/users/fetch", &[])) {
                    (hidden(csrf))
                    input type="hidden" name="id" value=(id);
                    button type="submit" { "Fetch from Clerk now" }
                }
            } @else {
                p.hint { "With " code { "CLERK_SECRET_KEY" } ", a user can be fetched from Clerk here." }
            }
        }
        section {
            h2 { "Events that touched it" }
            @if known.events.rows.is_empty() {
                p.hint { "None in the ledger, which remembers for " code { "LEDGER_RETENTION" } "." }
            } @else {
                (table(&known.events.rows))
            }
            @if known.events.unfinished || known.events.next.is_some() {
                p { a.button href=(form::address("/events", &[("user", Some(id)), ("before", known.events.next.as_ref().map(ledger::write).as_deref())])) { "Search further back" } }
            }
        }
    }
}

fn table(rows: &[Row]) -> Markup {
    html! {
        div.table-scroll {
            table.ledger.of-one {
                caption.visually-hidden { "Events of this user, the newest first" }
                (columns())
                tbody { @for row in rows { (line(row)) } }
            }
        }
    }
}

fn row(account: &Account, managed: bool) -> Markup {
    let optional = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
    html! {
        @if !managed {
            p.notice { "The sync has never written this row: it is somebody else's, and is left alone." }
        }
        @if account.email.ends_with(users::REASSIGNED) {
            p.notice { "The address is a placeholder: a newer user has this one's old address. It is replaced by this user's next event, or by a fetch." }
        }
        dl.facts.panel {
            div { dt { "Address" } dd { (account.email) } }
            div { dt { "Name" } dd { (optional(&account.name)) } }
            div { dt { "Row" } dd { code { (account.id) } } }
            div { dt { "Made" } dd { (exact(account.created_at.and_utc())) } }
            div { dt { "Changed" } dd { (exact(account.updated_at.and_utc())) } }
            div { dt { "Image" } dd.detail { (optional(&account.image_url)) } }
            @for (name, number) in [("Credits", account.credits), ("Projects", account.projects), ("Designs", account.designs)] {
                @if let Some(number) = number {
                    div { dt { (name) } dd { @if number < 0 { "-" } (count(number.unsigned_abs())) } }
                }
            }
        }
    }
}

fn held(version: &user_versions::Row) -> Markup {
    let moment = |ms: i64| {
        let at = chrono::DateTime::from_timestamp_millis(ms).filter(|_| ms >= 0);
        at.map(exact)
    };
    html! {
        h3 { @if version.deleted_at.is_some() { "Tombstone" } @else { "Version held" } }
        dl.facts.panel {
            @if let Some(at) = version.deleted_at {
                div { dt { "Deleted" } dd { time datetime=(iso(at)) { (exact(at)) } } }
            } @else {
                div { dt { "Changed at Clerk" } dd { (moment(version.updated_at_ms).as_deref().unwrap_or("unknown")) } }
                @if version.event_id.is_empty() {
                    div { dt { "Told by" } dd { "Clerk, when it was asked" } }
                } @else {
                    div { dt { "Told by" } dd { a.id href=(form::address("/event", &[("id", Some(&version.event_id))])) { (version.event_id) } } }
                    div { dt { "At" } dd { (moment(version.occurred_at_ms).as_deref().unwrap_or("unknown")) } }
                }
            }
        }
    }
}
