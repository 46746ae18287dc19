//! One user: the row, the version held, what touched it, and what Clerk says now.

use clerk_sync_api::fetch::FetchError;
use clerk_sync_entity::{
    accounts::{self, Related},
    bookmarks,
    processed_events::Wanted,
    user_versions, users,
};
use clerk_sync_pipeline::telemetry::Label as _;
use clerk_sync_projection::{SnapshotOutcome, Unavailable};
use maud::{Markup, html};
use sea_orm::FromQueryResult;

use crate::{
    answer::{Answer, page as answer, see_other},
    card::{self, Known},
    config::Clerk,
    form::{self, Fields},
    frame::{self, Room, hidden},
    ledger,
    reader::Reader,
    refusal::Refusal,
};

/// The page: the search, and the user of this id if one is named.
pub(crate) async fn page(
    reader: &Reader,
    can_fetch: bool,
    fields: &Fields,
    csrf: &str,
) -> Result<Markup, Refusal> {
    let main = match fields.get("q") {
        None => html! {
            div.page-head { h1 { "Users" } }
            (search(None, csrf))
            div.empty {
                h2 { "Look somebody up" }
                p { "By Clerk's id, or by the exact address. An address is not kept in this page's address." }
            }
        },
        Some(id) => {
            let known = known(reader, id).await?;
            html! {
                div.page-head { h1 { "Users" } }
                (search(Some(id), csrf))
                (fetched(fields.get("fetched")))
                (card::user(id, &known, can_fetch, csrf))
            }
        }
    };
    Ok(frame::framed(Room::Users, "Users", csrf, &main))
}

/// Looks somebody up: an address by a form's body, so that it is in no log of a proxy.
pub(crate) async fn find(reader: &Reader, fields: &Fields, csrf: &str) -> Result<Answer, Refusal> {
    let wanted = fields.get("q").unwrap_or_default();
    if wanted.is_empty() || !wanted.contains('@') {
        let wanted = Some(wanted).filter(|wanted| !wanted.is_empty());
        return Ok(see_other(&form::address("/users", &[("q", wanted)])));
    }
    // As it was typed, then as most are written.
    for email in [wanted.to_owned(), wanted.to_lowercase()] {
        let holder = users::by_email(&email);
        if let Some(Holder { clerk_id: Some(id) }) = reader.one(&holder).await? {
            return Ok(see_other(&form::address("/users", &[("q", Some(&id))])));
        }
    }
    let main = html! {
        div.page-head { h1 { "Users" } }
        (search(None, csrf))
        div.empty {
            h2 { "Nobody has this address" }
            p { "Addresses are compared letter by letter, as Clerk sends them. Whoever is not synced yet can be looked up by Clerk's id, and fetched." }
        }
    };
    Ok(answer(
        http::StatusCode::OK,
        frame::framed(Room::Users, "Users", csrf, &main),
    ))
}

#[derive(FromQueryResult)]
struct Holder {
    #[sea_orm(from_alias = "clerkId")]
    clerk_id: Option<String>,
}

/// Asks Clerk, and applies the answer by the projection's rules.
pub(crate) async fn fetch(
    reader: &Reader,
    clerk: Option<&Clerk>,
    fields: &Fields,
) -> Result<Answer, Refusal> {
    let clerk = clerk.ok_or(Refusal::NoSuchPath)?;
    let id = fields.get("id").filter(|id| is_id(id));
    let id = id.ok_or_else(|| Refusal::NotFound("That is no id of a user.".to_owned()))?;
    let instance = match &clerk.instance {
        Some(instance) => Some(instance.clone()),
        None => remembered(reader).await?,
    };
    let outcome = match clerk.fetcher.fetch(id, instance.as_deref()).await {
        Ok(SnapshotOutcome::Created) => "created",
        Ok(SnapshotOutcome::Updated) => "updated",
        Ok(SnapshotOutcome::Current) => "current",
        Ok(SnapshotOutcome::Stale) => "stale",
        Ok(SnapshotOutcome::Deleted) => "deleted",
        Ok(SnapshotOutcome::MissingEmail) => "missing_email",
        Ok(SnapshotOutcome::Failed(failure)) => failure.reason.as_str(),
        Err(FetchError::OtherInstance) => "other_instance",
        Err(FetchError::Unknown) => "unknown",
        Err(FetchError::Database(unavailable)) => return Err(unavailable.into()),
        Err(FetchError::Clerk(error)) => {
            tracing::warn!(%error, "no answer from Clerk");
            "no_answer"
        }
    };
    tracing::info!(user.id = id, outcome, "a user was fetched from the console");
    let parameters = [("q", Some(id)), ("fetched", Some(outcome))];
    Ok(see_other(&form::address("/users", &parameters)))
}

/// Whether it can be an id of Clerk's: it is asked for, and logged. An address is not.
pub(crate) fn is_id(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    !text.is_empty() && text.len() <= 255 && text.bytes().all(plain)
}

/// The instance that the rows are known to be of.
async fn remembered(reader: &Reader) -> Result<Option<String>, Unavailable> {
    for name in [bookmarks::INSTANCE, bookmarks::FIRST_INSTANCE] {
        let rows = reader
            .rows(&bookmarks::find(reader.backend(), name))
            .await?;
        if let Some(row) = rows.first() {
            let id = row.try_get_by_index(0);
            return id.map(Some).map_err(|error| Unavailable(error.to_string()));
        }
    }
    Ok(None)
}

async fn known(reader: &Reader, id: &str) -> Result<Known, Unavailable> {
    let related: Option<Related> = reader.one(&accounts::related(reader.backend())).await?;
    let related = related.filter(|related| related.users);
    let related = related.ok_or_else(|| Unavailable("the tables are not there yet".to_owned()))?;
    let wanted = Wanted {
        subject: Some(id.to_owned()),
        ..Wanted::default()
    };
    Ok(Known {
        account: reader.one(&accounts::by_clerk_id(id, related)).await?,
        version: reader.one(&user_versions::of(reader.backend(), id)).await?,
        events: ledger::search(reader, &wanted, None).await?,
    })
}

fn search(id: Option<&str>, csrf: &str) -> Markup {
    html! {
        form.search method="post" action=(form::address("/users/find", &[])) role="search" aria-label="Users" {
            (hidden(csrf))
            div.field.wide {
                label for="q" { "Clerk id or address" }
                input #q name="q" value=[id] required placeholder="user_… or name@example.com"
                    spellcheck="false" autocapitalize="none" autocomplete="off";
            }
            div.actions { button.primary type="submit" { "Look up" } }
        }
    }
}

fn fetched(outcome: Option<&str>) -> Markup {
    let Some(outcome) = outcome else {
        return html! {};
    };
    let (kind, text) = match outcome {
        "created" => ("good", "Fetched from Clerk: a row was made."),
        "updated" => (
            "good",
            "Fetched from Clerk: the row was brought up to date.",
        ),
        "current" => (
            "good",
            "Fetched from Clerk: the row says already what Clerk says.",
        ),
        "stale" => (
            "good",
            "Fetched from Clerk: something newer was known already.",
        ),
        "deleted" => (
            "good",
            "Clerk has no such user: the row is gone, and is remembered as gone.",
        ),
        "unknown" => (
            "good",
            "Clerk has no such user, and neither is there a row: nothing was changed.",
        ),
        "missing_email" => (
            "bad",
            "Clerk has no address for this user, and MISSING_EMAIL=dead-letter: nothing was written.",
        ),
        "other_instance" => (
            "bad",
            "The key's instance has no such user, and it is not known to be the instance of these rows: nothing was changed.",
        ),
        "no_answer" => (
            "bad",
            "Clerk gave no answer that could be used; the log says why. Nothing was changed.",
        ),
        reason => ("bad", crate::advice::cure(reason)),
    };
    html! { p class={ "notice " (kind) } role="status" tabindex="-1" autofocus { (text) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_no_id() {
        assert!(is_id("user_2b3CdEfGhIjKlMnOpQrStUvWxYz"));
        for text in [
            "",
            "a@b.example",
            "../organizations",
            "user_a\n",
            &"u".repeat(256),
        ] {
            assert!(!is_id(text), "{text}");
        }
    }
}
