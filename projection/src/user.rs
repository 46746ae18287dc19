//! Clerk's user as it travels in `user.created`, `user.updated`, inside `session.*`, and from the
//! Backend API: one tolerant reader for all of them.

use chrono::{DateTime, NaiveDateTime};
use clerk_sync_pipeline::queue::{Failure, Reason};
use serde::Deserialize;

/// What to do with a user that has no address: `users.email` is NOT NULL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum MissingEmail {
    /// The event goes to the dead letters as `missing_email`; the row stays as it was.
    #[default]
    DeadLetter,
    /// The row gets `<clerk id>@no-email.invalid`.
    Placeholder,
}

/// A user's row, as one snapshot has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// `users."clerkId"`
    pub clerk_id: String,
    /// The primary address. `None` is a user without one that is not to be made up: the snapshot
    /// can still be found out of date, but it cannot be written.
    pub email: Option<String>,
    /// First and last name joined by a space.
    pub name: Option<String>,
    /// Clerk's `image_url`.
    pub image_url: Option<String>,
    /// Clerk's `created_at`, UTC.
    pub created_at: NaiveDateTime,
    /// Clerk's `updated_at`, UTC.
    pub updated_at: NaiveDateTime,
}

/// The fields of Clerk's User that are projected. Everything else is skipped unread: Clerk adds
/// fields without notice.
#[derive(Debug, Deserialize)]
pub struct ClerkUser {
    /// `user_…`
    pub id: String,
    first_name: Option<String>,
    last_name: Option<String>,
    image_url: Option<String>,
    primary_email_address_id: Option<String>,
    #[serde(default)]
    email_addresses: Option<Vec<EmailAddress>>,
    /// Milliseconds.
    pub created_at: i64,
    /// Milliseconds: the first part of the version.
    pub updated_at: i64,
}

#[derive(Debug, Deserialize)]
struct EmailAddress {
    id: Option<String>,
    email_address: String,
    verification: Option<Verification>,
}

#[derive(Debug, Deserialize)]
struct Verification {
    status: Option<String>,
}

/// Longest text in an indexed column, in bytes. A PostgreSQL B-tree takes 2,704; an address has at
/// most 254 characters.
pub const MAX_INDEXED_TEXT: usize = 1024;

/// The last millisecond of the year 9999: what four digits of a year can hold.
const LAST_MILLI: i64 = 253_402_300_799_999;

impl ClerkUser {
    /// The row that this user makes.
    ///
    /// # Errors
    /// A value that no database would take.
    pub fn into_snapshot(self, missing_email: MissingEmail) -> Result<Snapshot, Failure> {
        let clerk_id = indexed(self.id, "data.id")?;
        let primary = self.primary_email_address_id.as_deref();
        let email = primary_email(self.email_addresses.unwrap_or_default(), primary);
        let email = match (email, missing_email) {
            (Some(email), _) => Some(indexed(email, "email_address")?),
            (None, MissingEmail::Placeholder) => Some(no_email(&clerk_id)),
            (None, MissingEmail::DeadLetter) => None,
        };
        let name = join_names(self.first_name, self.last_name);
        Ok(Snapshot {
            name: name.map(|name| storable(name, "name")).transpose()?,
            image_url: self
                .image_url
                .map(|url| storable(url, "image_url"))
                .transpose()?,
            created_at: time(self.created_at, "created_at")?,
            updated_at: time(self.updated_at, "updated_at")?,
            clerk_id,
            email,
        })
    }
}

/// The address whose id is the primary one; if that points at nothing, the first verified one. The
/// list's order means nothing.
fn primary_email(addresses: Vec<EmailAddress>, primary: Option<&str>) -> Option<String> {
    let is_primary = |address: &EmailAddress| primary.is_some() && address.id.as_deref() == primary;
    let verified = |address: &EmailAddress| {
        let verification = address.verification.as_ref();
        verification.and_then(|verification| verification.status.as_deref()) == Some("verified")
    };
    let chosen = addresses
        .iter()
        .position(is_primary)
        .or_else(|| addresses.iter().position(verified))?;
    addresses
        .into_iter()
        .nth(chosen)
        .map(|address| address.email_address)
}

fn join_names(first: Option<String>, last: Option<String>) -> Option<String> {
    let given = |name: Option<String>| name.filter(|name| !name.is_empty());
    match (given(first), given(last)) {
        (Some(first), Some(last)) => Some(format!("{first} {last}")),
        (one, other) => one.or(other),
    }
}

/// The placeholder of a user that has no address.
#[must_use]
pub fn no_email(clerk_id: &str) -> String {
    format!("{clerk_id}@no-email.invalid")
}

/// The placeholder of a user whose address a newer user holds.
#[must_use]
pub fn reassigned(clerk_id: &str) -> String {
    format!("{clerk_id}{}", clerk_sync_entity::users::REASSIGNED)
}

/// Checks a text for an indexed column. `field` is named in the failure, its value never is.
pub(crate) fn indexed(text: String, field: &str) -> Result<String, Failure> {
    if text.is_empty() {
        return Err(Failure::new(
            Reason::Malformed,
            format!("`{field}` is empty"),
        ));
    }
    if text.len() > MAX_INDEXED_TEXT {
        let detail = format!(
            "`{field}` has {} bytes, an index takes {MAX_INDEXED_TEXT}",
            text.len()
        );
        return Err(Failure::new(Reason::TextTooLong, detail));
    }
    storable(text, field)
}

fn storable(text: String, field: &str) -> Result<String, Failure> {
    if text.contains('\0') {
        let detail = format!("`{field}` holds a NUL character, which PostgreSQL cannot store");
        return Err(Failure::new(Reason::InvalidText, detail));
    }
    Ok(text)
}

fn time(millis: i64, field: &str) -> Result<NaiveDateTime, Failure> {
    (0..=LAST_MILLI)
        .contains(&millis)
        .then(|| DateTime::from_timestamp_millis(millis))
        .flatten()
        .map(|time| time.naive_utc())
        .ok_or_else(|| {
            let detail = format!("`{field}` is not in the years 1970 to 9999");
            Failure::new(Reason::InvalidTimestamp, detail)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(json: &serde_json::Value) -> Result<Snapshot, Failure> {
        let mut user = serde_json::json!({
            "id": "user_1", "first_name": null, "last_name": null, "image_url": null,
            "primary_email_address_id": null, "email_addresses": [],
            "created_at": 1_700_000_000_000_i64, "updated_at": 1_700_000_000_001_i64,
        });
        let fields = json.as_object().cloned().unwrap_or_default();
        user.as_object_mut().unwrap().extend(fields);
        let user: ClerkUser = serde_json::from_value(user).unwrap();
        user.into_snapshot(MissingEmail::DeadLetter)
    }

    fn address(id: &str, email: &str, status: &str) -> serde_json::Value {
        serde_json::json!({ "id": id, "email_address": email, "verification": { "status": status } })
    }

    #[test]
    fn the_primary_address_is_found_by_its_id_wherever_it_stands() {
        let addresses = [
            address("idn_1", "old@a.example", "verified"),
            address("idn_2", "new@a.example", "unverified"),
        ];
        let found = user(&serde_json::json!({
            "email_addresses": addresses, "primary_email_address_id": "idn_2",
        }));
        assert_eq!(found.unwrap().email.as_deref(), Some("new@a.example"));
    }

    #[test]
    fn a_primary_id_that_points_at_nothing_falls_back_to_a_verified_address() {
        let addresses = [
            address("idn_1", "guess@a.example", "unverified"),
            address("idn_2", "sure@a.example", "verified"),
        ];
        for primary in [serde_json::json!("idn_9"), serde_json::Value::Null] {
            let found = user(&serde_json::json!({
                "email_addresses": addresses, "primary_email_address_id": primary,
            }));
            assert_eq!(found.unwrap().email.as_deref(), Some("sure@a.example"));
        }
        let unverified = user(&serde_json::json!({ "email_addresses": [addresses[0]] }));
        assert_eq!(unverified.unwrap().email, None);
    }

    #[test]
    fn names_are_joined_and_absent_names_are_null() {
        let named = |first: serde_json::Value, last: serde_json::Value| {
            join_names(
                serde_json::from_value(first).unwrap(),
                serde_json::from_value(last).unwrap(),
            )
        };
        use serde_json::{Value::Null, json};
        assert_eq!(
            named(json!("Maren"), json!("Holt")).as_deref(),
            Some("Maren Holt")
        );
        assert_eq!(named(json!("Maren"), Null).as_deref(), Some("Maren"));
        assert_eq!(named(json!(""), json!("Holt")).as_deref(), Some("Holt"));
        assert_eq!(named(Null, json!("")), None);
    }

    #[test]
    fn values_no_database_takes_are_poison_and_are_not_repeated() {
        let with = |field: &str, value: serde_json::Value| {
            let addresses = [address("idn_1", "a@a.example", "verified")];
            let mut json = serde_json::json!({ "email_addresses": addresses });
            json[field] = value;
            user(&json).unwrap_err()
        };
        let nul = with("first_name", "Ma\0ren".into());
        assert_eq!(nul.reason, Reason::InvalidText);
        assert!(!nul.detail.contains("Ma"), "{}", nul.detail);
        assert_eq!(with("image_url", "\0".into()).reason, Reason::InvalidText);
        assert_eq!(
            with("id", "u".repeat(1025).into()).reason,
            Reason::TextTooLong
        );
        assert_eq!(
            with("created_at", i64::MAX.into()).reason,
            Reason::InvalidTimestamp
        );
        assert_eq!(
            with("updated_at", (-1).into()).reason,
            Reason::InvalidTimestamp
        );
    }
}
