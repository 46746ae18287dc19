//! The sample webhooks that are part of the program: Clerk's exact shapes, made-up values.

use std::collections::HashMap;

use anyhow::Context as _;
use serde_json::Value;

/// Name and body of each sample.
pub(crate) const ALL: [(&str, &[u8]); 15] = [
    (
        "organizationMembership_created",
        include_bytes!("../../tests/fixtures/clerk/organizationMembership_created.json"),
    ),
    (
        "organizationMembership_deleted",
        include_bytes!("../../tests/fixtures/clerk/organizationMembership_deleted.json"),
    ),
    (
        "organization_created",
        include_bytes!("../../tests/fixtures/clerk/organization_created.json"),
    ),
    (
        "session_created",
        include_bytes!("../../tests/fixtures/clerk/session_created.json"),
    ),
    (
        "unknown_future_event",
        include_bytes!("../../tests/fixtures/clerk/unknown_future_event.json"),
    ),
    (
        "user_created_dashboard_test_event",
        include_bytes!("../../tests/fixtures/clerk/user_created_dashboard_test_event.json"),
    ),
    (
        "user_created_email_password",
        include_bytes!("../../tests/fixtures/clerk/user_created_email_password.json"),
    ),
    (
        "user_created_email_reused_after_delete",
        include_bytes!("../../tests/fixtures/clerk/user_created_email_reused_after_delete.json"),
    ),
    (
        "user_created_oauth_google_multi_email",
        include_bytes!("../../tests/fixtures/clerk/user_created_oauth_google_multi_email.json"),
    ),
    (
        "user_created_phone_only",
        include_bytes!("../../tests/fixtures/clerk/user_created_phone_only.json"),
    ),
    (
        "user_created_unicode_null_names_large_metadata",
        include_bytes!(
            "../../tests/fixtures/clerk/user_created_unicode_null_names_large_metadata.json"
        ),
    ),
    (
        "user_deleted",
        include_bytes!("../../tests/fixtures/clerk/user_deleted.json"),
    ),
    (
        "user_deleted_with_external_id",
        include_bytes!("../../tests/fixtures/clerk/user_deleted_with_external_id.json"),
    ),
    (
        "user_updated_email_changed",
        include_bytes!("../../tests/fixtures/clerk/user_updated_email_changed.json"),
    ),
    (
        "user_updated_email_removed",
        include_bytes!("../../tests/fixtures/clerk/user_updated_email_removed.json"),
    ),
];

/// The sample of that name.
///
/// # Errors
/// There is none; the text lists those there are.
pub(crate) fn find(name: &str) -> anyhow::Result<&'static [u8]> {
    let found = ALL
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, body)| *body);
    found.with_context(|| {
        let known: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
        format!(
            "`{name}` is no file and no sample; the samples are:\n  {}",
            known.join("\n  ")
        )
    })
}

/// The same event about other people: every user id and every address becomes that of round
/// `round`, one to one. Round 0 is the event as it is.
pub(crate) fn recast(body: &[u8], round: usize) -> anyhow::Result<Vec<u8>> {
    if round == 0 {
        return Ok(body.to_vec());
    }
    let mut event: Value = serde_json::from_slice(body).context("only JSON can be recast")?;
    recast_value(&mut event, round, &mut HashMap::new());
    Ok(serde_json::to_vec(&event)?)
}

fn recast_value(value: &mut Value, round: usize, ids: &mut HashMap<String, String>) {
    match value {
        Value::String(text) if is_user_id(text) => {
            let id = || format!("{}{round:06}", &text[..text.len() - 6]);
            *text = ids.entry(text.clone()).or_insert_with(id).clone();
        }
        Value::String(text) if is_address(text) => *text = format!("r{round}.{text}"),
        Value::Array(values) => values
            .iter_mut()
            .for_each(|value| recast_value(value, round, ids)),
        Value::Object(fields) => {
            fields
                .values_mut()
                .for_each(|value| recast_value(value, round, ids));
        }
        _ => {}
    }
}

fn is_user_id(text: &str) -> bool {
    const LENGTH: usize = "user_".len() + 27;
    text.starts_with("user_") && text.len() == LENGTH && text.is_ascii()
}

fn is_address(text: &str) -> bool {
    let domain = text.split_once('@').map(|(_, domain)| domain);
    domain.is_some_and(|domain| domain.contains('.')) && !text.contains([' ', '/', ':'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recast_event_is_about_other_people_and_the_same_story() {
        let before: Value =
            serde_json::from_slice(find("user_created_email_password").unwrap()).unwrap();
        let body = recast(find("user_created_email_password").unwrap(), 7).unwrap();
        let after: Value = serde_json::from_slice(&body).unwrap();
        assert_ne!(before["data"]["id"], after["data"]["id"]);
        let address = |event: &Value| event["data"]["email_addresses"][0]["email_address"].clone();
        assert_eq!(
            address(&after),
            format!("r7.{}", address(&before).as_str().unwrap())
        );
        assert_eq!(before["data"]["updated_at"], after["data"]["updated_at"]);
        let deleted: Value =
            serde_json::from_slice(&recast(find("user_deleted").unwrap(), 7).unwrap()).unwrap();
        assert_eq!(deleted["data"]["id"], after["data"]["id"]);
    }
}
