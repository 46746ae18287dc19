//! What can be done to letters: counted and asked first, then done to exactly those.

use http::StatusCode;
use maud::{Markup, html};

use crate::{
    advice,
    answer::{Answer, page, see_other},
    errand::Which,
    form::{self, Fields},
    frame::{self, Room, again, hidden},
    letters::{events, from, group_address, letter_address, place},
    plans::{Deed, Plan},
    refusal::Refusal,
    shelf::Shelf,
    wording::count,
    works::Work,
};

/// The page that counts, and asks.
pub(crate) async fn plan(shelf: &Shelf, fields: &Fields, csrf: &str) -> Result<Markup, Refusal> {
    let place = place(fields);
    let deed = match fields.get("do") {
        Some("replay") => Deed::Replay,
        Some("discard") => Deed::Discard,
        _ => return Err(Refusal::NoSuchPath),
    };
    let which = match (fields.get("id"), fields.get("code")) {
        (Some(id), _) => Which::Id(id.to_owned()),
        (None, Some(code)) => Which::Code(code.to_owned()),
        (None, None) => Which::All,
    };
    let (name, plan) = shelf.plan(deed, place, which).await?;
    let main = question(&name, &plan, csrf);
    let title = match deed {
        Deed::Replay => "Replay",
        Deed::Discard => "Discard",
    };
    Ok(frame::framed(Room::DeadLetters, title, csrf, &main))
}

fn question(name: &str, plan: &Plan, csrf: &str) -> Markup {
    let total = plan.tally.total();
    let back = match &plan.which {
        Which::All => form::address("/dead-letters", &[("from", from(plan.place))]),
        Which::Code(code) => group_address(plan.place, code),
        Which::Id(id) => letter_address(plan.place, id),
    };
    let (verb, action) = match plan.deed {
        Deed::Replay => ("Replay", "/dead-letters/replay"),
        Deed::Discard => ("Discard", "/dead-letters/discard"),
    };
    html! {
        section.question {
            @if total == 0 {
                h1 { "Nothing to do" }
                p { "There is no such letter any more." }
                p { a.button href=(back) { "Back" } }
            } @else {
                h1 { (verb) " " (events(total)) "?" }
                ul.tally { @for (code, number) in plan.tally.codes() {
                    li { span.count { (count(number)) } " " (advice::name(code)) }
                } }
                @if plan.left_out > 0 {
                    p.notice { "These are the first; " (count(plan.left_out)) " more are left for another time." }
                }
                @match plan.deed {
                    Deed::Replay => p { "Each goes back with its own bytes and id, and is applied as if it had just come. What is newer in the database stays. Letters that come meanwhile are left alone." },
                    Deed::Discard => p { "They are gone for good: clerk-sync keeps no copy. Clerk may still have them: its dashboard can replay a message for some days. Letters that come meanwhile are left alone." },
                }
                form method="post" action=(form::address(action, &[])) {
                    (hidden(csrf))
                    input type="hidden" name="plan" value=(name);
                    @if plan.deed == Deed::Discard {
                        p.check {
                            input #sure type="checkbox" name="sure" value="yes" required;
                            label for="sure" { "Yes, for good" }
                        }
                    }
                    div.actions {
                        @if plan.deed == Deed::Discard {
                            button.danger type="submit" { (verb) " " (events(total)) }
                        } @else {
                            button.primary type="submit" { (verb) " " (events(total)) }
                        }
                        a.button href=(back) { "Cancel" }
                    }
                }
            }
        }
    }
}

/// Begins what was planned.
pub(crate) async fn carry_out(
    shelf: &Shelf,
    fields: &Fields,
    deed: Deed,
) -> Result<Answer, Refusal> {
    let name = fields.get("plan").unwrap_or_default();
    let sure = deed == Deed::Replay || fields.get("sure") == Some("yes");
    let begun = if sure {
        shelf.carry_out(name, deed).await
    } else {
        None
    };
    match begun {
        Some(work) => Ok(ended(&work)?.unwrap_or_else(|| see_other(&work_address(name)))),
        None => Err(Refusal::NotFound(
            "What was planned was done already, or is too long ago. Nothing was done now."
                .to_owned(),
        )),
    }
}

/// The page of a deed that goes on; of one that has ended, where it was done.
pub(crate) fn work(shelf: &Shelf, fields: &Fields, csrf: &str) -> Result<Answer, Refusal> {
    let name = fields.get("plan").unwrap_or_default();
    let work = shelf.work(name).ok_or_else(|| {
        Refusal::NotFound("This is too long ago, or the process was started again.".to_owned())
    })?;
    if let Some(ended) = ended(&work)? {
        return Ok(ended);
    }
    let main = going(name, &work);
    let title = doing(work.deed);
    let framed = frame::framed(Room::DeadLetters, title, csrf, &main);
    Ok(page(StatusCode::OK, framed))
}

fn going(name: &str, work: &Work) -> Markup {
    html! {
        section.question {
            h1 { (doing(work.deed)) " " (events(work.letters)) }
            @match work.progress.now() {
                Some((seen, total)) => {
                    p role="status" { (count(seen)) " of " (count(total)) " letters looked at." }
                    progress aria-label="Letters looked at" max=(total) value=(seen) {}
                }
                None => p role="status" { "It waits until another request has gone through the letters." },
            }
            p.hint { "It goes on without this page, which shows the end by itself." }
            (again(&work_address(name)))
        }
    }
}

/// Where its end leads to; `None` while it goes on.
fn ended(work: &Work) -> Result<Option<Answer>, Refusal> {
    let Some(ended) = work.ended() else {
        return Ok(None);
    };
    let number = ended.map_err(Refusal::Unavailable)?.to_string();
    let done = match work.deed {
        Deed::Replay => "replayed",
        Deed::Discard => "discarded",
    };
    let parameters = [("from", from(work.place)), (done, Some(number.as_str()))];
    Ok(Some(see_other(&form::address(
        "/dead-letters",
        &parameters,
    ))))
}

fn doing(deed: Deed) -> &'static str {
    match deed {
        Deed::Replay => "Replaying",
        Deed::Discard => "Discarding",
    }
}

fn work_address(name: &str) -> String {
    form::address("/dead-letters/work", &[("plan", Some(name))])
}
