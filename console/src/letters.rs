//! Dead letters: by cause, one opened, a group replayed or discarded.

use clerk_sync_pipeline::{
    EventId, Millis,
    queue::parked::{Letter, Place},
};
use maud::{Markup, html};

use crate::{
    advice,
    form::{self, Fields},
    frame::{self, Room, hidden},
    indent::indented,
    inventory::Inventory,
    overview::stamp,
    reader::{Time, now},
    refusal::Refusal,
    shelf::Shelf,
    wording::{count, exact, iso, span},
};

/// Where the letters lie that a page is about.
pub(crate) fn place(fields: &Fields) -> Place {
    match fields.get("from") {
        Some("unrouted") => Place::Unrouted,
        _ => Place::Dead,
    }
}

pub(crate) fn from(place: Place) -> Option<&'static str> {
    match place {
        Place::Dead => None,
        Place::Unrouted => Some("unrouted"),
    }
}

/// The page of all, or of one code.
pub(crate) async fn page(
    shelf: &Shelf,
    fields: &Fields,
    unrouted: u64,
    csrf: &str,
) -> Result<Markup, Refusal> {
    let place = place(fields);
    let seen = shelf.look(place).await?;
    let code = fields.get("code");
    let main = html! {
        div.page-head {
            h1 { @if place == Place::Dead { "Dead letters" } @else { "Unrouted" } }
            p.aside-note { "Seen at " (stamp(time(seen.at), now())) " UTC" }
        }
        @if place == Place::Unrouted {
            p.back { a href=(Room::DeadLetters.path()) { "Dead letters" } }
        } @else if unrouted > 0 {
            p.notice.bad {
                (events(unrouted)) " found no queue. "
                a href=(form::address("/dead-letters", &[("from", Some("unrouted"))])) { "Look at them" }
            }
        }
        (done(fields))
        @match code {
            Some(code) => (of_code(place, &seen, code)),
            None => (by_code(place, &seen)),
        }
    };
    Ok(frame::framed(
        Room::DeadLetters,
        "Dead letters",
        csrf,
        &main,
    ))
}

fn done(fields: &Fields) -> Markup {
    html! {
        @if let Some(number) = fields.number("replayed") {
            p.notice.good role="status" tabindex="-1" autofocus { (events(number)) " replayed: each is applied as if it had just come, after the first retry delay at the latest." }
        }
        @if let Some(number) = fields.number("discarded") {
            p.notice.good role="status" tabindex="-1" autofocus { (events(number)) " discarded." }
        }
    }
}

fn by_code(place: Place, seen: &Inventory) -> Markup {
    let codes = seen.tally.codes();
    html! {
        @if codes.is_empty() {
            div.empty {
                h2 { "None" }
                p { "Every event that came was applied, or is still on its way." }
            }
        } @else {
            p.lead { (events(seen.tally.total())) " could not be applied. Each lies here unchanged until somebody replays or discards it." }
            ul.groups {
                @for (code, number) in codes {
                    li.panel {
                        div.group-head {
                            h2 { a href=(group_address(place, code)) { (advice::name(code)) } }
                            span.count { (count(number)) }
                        }
                        p.code-name { code { (code) } @if let Some(at) = newest(seen, code) { ", the newest received " (stamp(at, now())) " UTC" } }
                        p { (advice::cure(code)) }
                        div.actions {
                            a.button href=(group_address(place, code)) { "Look at them" }
                            (deeds(place, Some(code), None))
                        }
                    }
                }
            }
        }
    }
}

fn of_code(place: Place, seen: &Inventory, code: &str) -> Markup {
    let letters = seen.of_code(code);
    let total = seen
        .tally
        .codes()
        .into_iter()
        .find(|(known, _)| *known == code);
    let total = total.map_or(0, |(_, count)| count);
    html! {
        p.back { a href=(form::address("/dead-letters", &[("from", from(place))])) { "All causes" } }
        h2.title { (advice::name(code)) }
        p.lead { (advice::cure(code)) }
        @if total == 0 {
            div.empty { h2 { "None left" } p { "There is no letter with the code " code { (code) } "." } }
        } @else {
            div.actions { (deeds(place, Some(code), None)) }
            div.table-scroll {
                table.ledger {
                    caption { (count(letters.len() as u64)) " of " (count(total)) ", the newest first" }
                    thead { tr {
                        th scope="col" { "Received, UTC" }
                        th scope="col" { "Type" }
                        th scope="col" { "Detail" }
                        th.number scope="col" { "Attempts" }
                        th scope="col" { "Event" }
                    } }
                    tbody {
                        @for letter in letters {
                            tr {
                                td data-label="Received" {
                                    @match letter.received_at { Some(at) => (stamp(time(at), now())), None => "unknown" }
                                }
                                td data-label="Type" { (letter.event_type.as_str()) }
                                td.detail data-label="Detail" { (letter.detail.as_deref().unwrap_or("–")) }
                                td.number data-label="Attempts" { (letter.attempts) }
                                td data-label="Event" { a.id href=(letter_address(place, letter.id.as_str())) { (letter.id.as_str()) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Links to what can be done; each counts first, and asks.
fn deeds(place: Place, code: Option<&str>, id: Option<&str>) -> Markup {
    let address = |deed| {
        let parameters = [
            ("do", Some(deed)),
            ("from", from(place)),
            ("code", code),
            ("id", id),
        ];
        form::address("/dead-letters/plan", &parameters)
    };
    html! {
        a.button href=(address("replay")) { "Replay…" }
        a.button.danger href=(address("discard")) { "Discard…" }
    }
}

/// The page of one letter; with its body, if that was asked for.
pub(crate) async fn letter(
    shelf: &Shelf,
    fields: &Fields,
    with_body: bool,
    csrf: &str,
) -> Result<Markup, Refusal> {
    let (place, id) = (place(fields), fields.get("id").unwrap_or_default());
    let found = shelf.letters(place, id).await?;
    let first = found.first().ok_or_else(|| gone(id))?;
    let body = if with_body {
        Some(body(shelf, place, id).await?)
    } else {
        None
    };
    let main = html! {
        p.back { a href=(group_address(place, &first.code)) { (advice::name(&first.code)) } }
        div.page-head { h1.id { (id) } }
        @if found.len() > 1 {
            p.notice { "This event is here " (found.len()) " times. What is done to one is done to each." }
        }
        p.lead { (advice::cure(&first.code)) }
        @for letter in &found {
            dl.facts.panel { (detail_rows(letter, now())) }
        }
        div.actions { (deeds(place, None, Some(id))) }
        section.body {
            h2 { "Body" }
            @match body {
                Some(text) => {
                    p.hint { "The webhook as Clerk sent it, with line breaks. That it was opened is in the log." }
                    pre tabindex="0" role="region" aria-label="Body of the webhook" { code { (text) } }
                },
                None => {
                    p { "It holds a person's data, so it is shown only when you ask. That it was opened is logged, not what is in it." }
                    form method="post" action=(form::address("/dead-letters/body", &[])) {
                        (hidden(csrf))
                        input type="hidden" name="id" value=(id);
                        @if let Some(from) = from(place) { input type="hidden" name="from" value=(from); }
                        button type="submit" { "Show the body" }
                    }
                },
            }
        }
    };
    Ok(frame::framed(Room::DeadLetters, id, csrf, &main))
}

async fn body(shelf: &Shelf, place: Place, id: &str) -> Result<String, Refusal> {
    let event_id = EventId::parse(id).ok_or_else(|| gone(id))?;
    let body = shelf.body(place, event_id).await?.ok_or_else(|| gone(id))?;
    tracing::info!(
        event.id = id,
        "the body of a letter was opened in the console"
    );
    Ok(indented(&body).unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned()))
}

fn gone(id: &str) -> Refusal {
    Refusal::NotFound(format!("There is no letter {id} any more."))
}

/// What is known of a letter, without its body.
pub(crate) fn detail_rows(letter: &Letter, now: Time) -> Markup {
    let when = |at: Option<Millis>| match at {
        Some(at) => {
            let at = time(at);
            let ago = span((now - at).to_std().unwrap_or_default().as_secs_f64());
            html! { time datetime=(iso(at)) { (exact(at)) } " (" (ago) " ago)" }
        }
        None => html! { "unknown" },
    };
    html! {
        div { dt { "Code" } dd { code { (letter.code) } } }
        div { dt { "Detail" } dd.detail { (letter.detail.as_deref().unwrap_or("none")) } }
        div { dt { "Type" } dd { (letter.event_type.as_str()) } }
        div { dt { "Attempts" } dd { (letter.attempts) } }
        div { dt { "Received" } dd { (when(letter.received_at)) } }
        div { dt { "First failed" } dd { (when(letter.first_failed_at)) } }
        div { dt { "Size" } dd { (count(letter.bytes)) " bytes" } }
    }
}

pub(crate) fn letter_address(place: Place, id: &str) -> String {
    form::address(
        "/dead-letters/letter",
        &[("from", from(place)), ("id", Some(id))],
    )
}

pub(crate) fn group_address(place: Place, code: &str) -> String {
    form::address(
        "/dead-letters",
        &[("from", from(place)), ("code", Some(code))],
    )
}

fn newest(seen: &Inventory, code: &str) -> Option<Time> {
    seen.of_code(code).first()?.received_at.map(time)
}

fn time(at: Millis) -> Time {
    chrono::DateTime::from_timestamp_millis(at.0).unwrap_or_default()
}

pub(crate) fn events(number: u64) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} event{plural}", count(number))
}
