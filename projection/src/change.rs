//! What one event asks for, read from its bytes. Pure: no clock, no database.

use std::borrow::Cow;

use clerk_sync_pipeline::{
    Event, Millis,
    queue::{Failure, Reason},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    user::{self, ClerkUser, MissingEmail, Snapshot},
    version::Version,
};

/// What an event asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Make the row so, if this is newer than what is held.
    Upsert(Box<Snapshot>, Version),
    /// Remove the user for good.
    Delete {
        /// Who.
        clerk_id: String,
    },
    /// Nothing: a type that is not projected, or a session without its user.
    Ignore,
}

/// An event that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The envelope's `timestamp`, if it has one.
    pub occurred_at: Option<Millis>,
    /// What to do.
    pub change: Change,
}

impl Read {
    /// Whether this is a user without an address, which can only be found out of date.
    #[must_use]
    pub fn lacks_email(&self) -> bool {
        matches!(&self.change, Change::Upsert(snapshot, _) if snapshot.email.is_none())
    }

    /// The user it is about.
    #[must_use]
    pub fn clerk_id(&self) -> Option<&str> {
        match &self.change {
            Change::Upsert(snapshot, _) => Some(&snapshot.clerk_id),
            Change::Delete { clerk_id } => Some(clerk_id),
            Change::Ignore => None,
        }
    }
}

/// How events are read.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// What a user without an address becomes.
    pub missing_email: MissingEmail,
    /// The only instance whose events are applied, when set.
    pub instance_id: Option<String>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "type")]
    event_type: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    timestamp: Option<i64>,
    instance_id: Option<String>,
}

#[derive(Deserialize)]
struct Session {
    user: Option<ClerkUser>,
}

#[derive(Deserialize)]
struct DeletedObject {
    id: String,
}

/// Reads an event.
///
/// # Errors
/// The event is poison: it can never be applied, whatever the database holds.
pub fn read(event: &Event, rules: &Rules) -> Result<Read, Failure> {
    let envelope: Envelope<'_> = parse(&event.body, "the envelope")?;
    if let (Some(wanted), Some(found)) = (&rules.instance_id, &envelope.instance_id)
        && wanted != found
    {
        let detail = "the event is of another Clerk instance than CLERK_INSTANCE_ID: is a \
                      development endpoint pointed here?";
        return Err(Failure::new(Reason::WrongInstance, detail));
    }
    let occurred_at = envelope.timestamp.map(in_millis);
    let data = || match envelope.data {
        Some(data) => Ok(data.get().as_bytes()),
        None => Err(Failure::new(Reason::Malformed, "the event has no `data`")),
    };
    let user = match &*envelope.event_type {
        "user.created" | "user.updated" => Some(parse(data()?, "`data`")?),
        "user.deleted" => {
            let deleted: DeletedObject = parse(data()?, "`data`")?;
            let clerk_id = user::indexed(deleted.id, "data.id")?;
            return Ok(Read {
                occurred_at,
                change: Change::Delete { clerk_id },
            });
        }
        session if session.starts_with("session.") => parse::<Session>(data()?, "`data`")?.user,
        _ => None,
    };
    let change = match user {
        Some(user) => {
            let version = Version {
                updated_at: Millis(user.updated_at),
                occurred_at: occurred_at.unwrap_or(Millis(0)),
                event_id: Some(event.id.clone()),
            };
            upsert(user, version, rules)?
        }
        None => Change::Ignore,
    };
    Ok(Read {
        occurred_at,
        change,
    })
}

/// Reads a user as the Backend API gives it, which no envelope came with.
///
/// # Errors
/// It can never be applied, whatever the database holds.
pub fn read_user(json: &[u8], rules: &Rules) -> Result<Read, Failure> {
    let user: ClerkUser = parse(json, "the user")?;
    let version = Version::undelivered(Millis(user.updated_at));
    Ok(Read {
        occurred_at: None,
        change: upsert(user, version, rules)?,
    })
}

/// Reads that a user is gone, by its id.
///
/// # Errors
/// It is no id that could be held.
pub fn read_gone(clerk_id: &str) -> Result<Read, Failure> {
    let clerk_id = user::indexed(clerk_id.to_owned(), "id")?;
    Ok(Read {
        occurred_at: None,
        change: Change::Delete { clerk_id },
    })
}

fn upsert(user: ClerkUser, version: Version, rules: &Rules) -> Result<Change, Failure> {
    let snapshot = user.into_snapshot(rules.missing_email)?;
    Ok(Change::Upsert(Box::new(snapshot), version))
}

/// The text of serde's errors can repeat a value, so only the place is kept.
fn parse<'a, T: Deserialize<'a>>(json: &'a [u8], what: &str) -> Result<T, Failure> {
    serde_json::from_slice(json).map_err(|error| {
        let kind = match error.classify() {
            serde_json::error::Category::Data => "lacks a field, or has one of another type,",
            _ => "is not JSON",
        };
        let detail = format!(
            "{what} {kind} at line {} column {}",
            error.line(),
            error.column()
        );
        Failure::new(Reason::Malformed, detail)
    })
}

/// Clerk documents and sends milliseconds, but its own examples have seconds: below 10^11 (the year
/// 5138 in seconds, March 1973 in milliseconds) it must be seconds.
fn in_millis(timestamp: i64) -> Millis {
    const SECONDS_BELOW: i64 = 100_000_000_000;
    let in_seconds = (0..SECONDS_BELOW).contains(&timestamp);
    Millis(if in_seconds {
        timestamp * 1000
    } else {
        timestamp
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use clerk_sync_pipeline::{EventId, EventType};

    use super::*;

    fn event(body: &[u8]) -> Event {
        Event {
            id: EventId::parse("msg_1").unwrap(),
            event_type: EventType::unparsable(),
            received_at: Millis(0),
            attempted_at: 0,
            traceparent: None,
            body: Bytes::copy_from_slice(body),
        }
    }

    fn fixture(name: &str) -> Event {
        let path = format!(
            "{}/../tests/fixtures/clerk/{name}.json",
            env!("CARGO_MANIFEST_DIR")
        );
        event(&std::fs::read(path).unwrap())
    }

    fn read_fixture(name: &str) -> Result<Read, Failure> {
        read(&fixture(name), &Rules::default())
    }

    fn snapshot(name: &str) -> Snapshot {
        match read_fixture(name).unwrap().change {
            Change::Upsert(snapshot, _) => *snapshot,
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn every_fixture_is_mapped_as_the_design_says() {
        let maren = snapshot("user_created_email_password");
        assert_eq!(maren.clerk_id, "user_3EWpvnWz8VE5MENqTOz3e2cYDnl");
        assert_eq!(maren.email.as_deref(), Some("maren.holt@quayside.example"));
        assert_eq!(maren.name.as_deref(), Some("Maren Holt"));
        assert!(
            maren
                .image_url
                .as_deref()
                .unwrap()
                .starts_with("https://img.clerk.com/")
        );
        assert!(maren.created_at < maren.updated_at);

        let signed_in = snapshot("session_created");
        assert_eq!(signed_in.clerk_id, maren.clerk_id);
        assert_eq!(signed_in.email, maren.email);
        assert!(signed_in.updated_at > maren.updated_at);

        let renamed = snapshot("user_updated_email_changed");
        assert_ne!(
            renamed.email, maren.email,
            "the primary is the second address"
        );

        for name in [
            "user_updated_email_removed",
            "user_created_phone_only",
            "user_created_dashboard_test_event",
        ] {
            assert_eq!(snapshot(name).email, None, "{name}");
            let rules = Rules {
                missing_email: MissingEmail::Placeholder,
                ..Rules::default()
            };
            let Change::Upsert(kept, _) = read(&fixture(name), &rules).unwrap().change else {
                panic!("{name}");
            };
            let placeholder = format!("{}@no-email.invalid", kept.clerk_id);
            assert_eq!(kept.email, Some(placeholder));
        }

        let deleted = read_fixture("user_deleted").unwrap();
        assert_eq!(
            deleted.change,
            Change::Delete {
                clerk_id: maren.clerk_id.clone()
            }
        );
        assert_eq!(deleted.occurred_at, Some(Millis(1_780_567_218_374)));
        assert!(matches!(
            read_fixture("user_deleted_with_external_id")
                .unwrap()
                .change,
            Change::Delete { .. }
        ));

        assert_eq!(
            snapshot("user_created_email_reused_after_delete").email,
            maren.email
        );
        let unicode = snapshot("user_created_unicode_null_names_large_metadata");
        assert_eq!(unicode.clerk_id.len(), "user_".len() + 27);
        snapshot("user_created_oauth_google_multi_email");

        for name in [
            "organization_created",
            "organizationMembership_created",
            "organizationMembership_deleted",
            "unknown_future_event",
        ] {
            assert_eq!(read_fixture(name).unwrap().change, Change::Ignore, "{name}");
        }
    }

    #[test]
    fn seconds_and_milliseconds_are_told_apart() {
        assert_eq!(in_millis(1_780_650_000), Millis(1_780_650_000_000));
        assert_eq!(in_millis(1_780_567_218_374), Millis(1_780_567_218_374));
        let rules = Rules {
            missing_email: MissingEmail::Placeholder,
            ..Rules::default()
        };
        let read = read(&fixture("user_created_dashboard_test_event"), &rules).unwrap();
        assert_eq!(read.occurred_at, Some(Millis(1_780_650_000_000)));
    }

    #[test]
    fn what_cannot_be_understood_is_poison_and_not_repeated() {
        for body in [
            &b"maren.holt@quayside.example"[..],
            b"{\"type\":\"user.created\"}",
            b"{\"type\":\"user.created\",\"data\":{\"id\":\"maren\"}}",
            b"{\"type\":\"user.deleted\",\"data\":{\"deleted\":true}}",
            b"{\"type\":\"user.created\",\"data\":\"maren\"}",
            b"\xff\xfe",
            b"",
            b"{\"type\":\"user.deleted\",\"data\":{\"id\":\"\\ud800\"}}",
        ] {
            let failure = read(&event(body), &Rules::default()).unwrap_err();
            assert_eq!(failure.reason, Reason::Malformed);
            assert!(!failure.detail.contains("maren"), "{}", failure.detail);
        }
    }

    #[test]
    fn an_event_of_another_instance_is_refused_when_one_is_configured() {
        let ours = |id: &str| Rules {
            instance_id: Some(id.to_owned()),
            ..Rules::default()
        };
        let event = fixture("user_created_email_password");
        assert!(read(&event, &ours("ins_37dGaoGwOSfyBmSM0pBr10zx7PA")).is_ok());
        let refused = read(&event, &ours("ins_production")).unwrap_err();
        assert_eq!(refused.reason, Reason::WrongInstance);
    }

    #[test]
    fn a_session_without_its_user_is_ignored() {
        let body = b"{\"type\":\"session.ended\",\"data\":{\"user\":null},\"timestamp\":1}";
        assert_eq!(
            read(&event(body), &Rules::default()).unwrap().change,
            Change::Ignore
        );
    }
}
