//! What can be done to letters: counted and asked first, then done to exactly those.

use http::StatusCode;
use maud::{Markup, html};

use crate::{
    advice,
    answer::{Answer, page, see_other},
    errand::Which,
    form::{self, Fields},
    frame::{self, Room, again, hidden},
    jobs::Job,
    letters::{events, from, group_address, letter_address, place},
    plans::{Deed, Plan},
    refusal::Refusal,
    shelf::Shelf,
    wording::count,
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
    // One that was begun by an answer that got lost has its page.
    let begun = begun.or_else(|| shelf.job(name).filter(|job| sure && job.deed == deed));
    match begun {
        Some(job) => Ok(ended(&job)?.unwrap_or_else(|| see_other(&job_address(name)))),
        None => Err(Refusal::NotFound(
            "What was planned was done already, or is too long ago. Nothing was done now."
                .to_owned(),
        )),
    }
}

/// The page of a deed that goes on; of one that has ended, where it was done.
pub(crate) fn job(shelf: &Shelf, fields: &Fields, csrf: &str) -> Result<Answer, Refusal> {
    let name = fields.get("plan").unwrap_or_default();
    let job = shelf.job(name).ok_or_else(|| {
        Refusal::NotFound("This is too long ago, or the process was started again.".to_owned())
    })?;
    if let Some(ended) = ended(&job)? {
        return Ok(ended);
    }
    let main = going(name, &job);
    let title = doing(job.deed);
    let framed = frame::framed(Room::DeadLetters, title, csrf, &main);
    Ok(page(StatusCode::OK, framed))
}

fn going(name: &str, job: &Job) -> Markup {
    html! {
        section.question {
            h1 { (doing(job.deed)) " " (events(job.letters)) }
            @match job.progress.so_far() {
                Some((seen, total)) => {
                    p role="status" { (count(seen)) " of " (count(total)) " letters looked at." }
                    progress aria-label="Letters looked at" max=(total) value=(seen) {}
                }
                None => p role="status" { "It has not begun: it waits for its turn, or for the queue." },
            }
            p.hint { "It goes on without this page, which shows the end by itself." }
            (again(&job_address(name)))
        }
    }
}

/// Where its end leads to; `None` while it goes on.
fn ended(job: &Job) -> Result<Option<Answer>, Refusal> {
    let Some(ended) = job.ended() else {
        return Ok(None);
    };
    let number = ended.map_err(Refusal::Unavailable)?.to_string();
    let done = match job.deed {
        Deed::Replay => "replayed",
        Deed::Discard => "discarded",
    };
    let parameters = [("from", from(job.place)), (done, Some(number.as_str()))];
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

fn job_address(name: &str) -> String {
    form::address("/dead-letters/job", &[("plan", Some(name))])
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use crate::jobs::Jobs;

    use super::*;

    #[tokio::test]
    async fn the_page_of_a_deed_says_how_far_it_is_and_leads_to_its_end() {
        let plan = Plan::example(Deed::Discard);
        let (job, end) = Jobs::default().begin("a&b", &plan, Instant::now());
        let waiting = going("a&b", &job).into_string();
        assert!(waiting.contains("Discarding 1 event<"), "{waiting}");
        assert!(waiting.contains("It has not begun"), "{waiting}");
        let again = r#"href="/console/dead-letters/job?plan=a%26b" data-again"#;
        assert!(waiting.contains(again), "{waiting}");

        job.progress.start(1200);
        job.progress.one_more();
        let begun = going("a&b", &job).into_string();
        assert!(begun.contains("1 of 1,200 letters"), "{begun}");
        assert!(begun.contains(r#"max="1200" value="1""#), "{begun}");
        assert!(ended(&job).unwrap().is_none());

        end.send_replace(Some(Ok(1)));
        let end = ended(&job).unwrap().unwrap();
        let location = end.headers()[http::header::LOCATION].to_str();
        assert_eq!(location.unwrap(), "/console/dead-letters?discarded=1");
    }
}
