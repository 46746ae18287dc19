//! The Backend API of an instance that never was: what it would have answered at some moment.

use std::collections::BTreeMap;

use clerk_sync_pipeline::Millis;
use clerk_sync_projection::Snapshot;
use clerk_sync_simulator::Event;

use super::case::Damage;

/// A day.
const DAY: i64 = 86_400_000;

/// Each user that ever was, as the last of these events has it: its JSON, or that it is gone.
pub(super) struct Asked {
    users: BTreeMap<String, Option<String>>,
    asked_at: Millis,
}

impl Asked {
    /// Asked when these events had happened, and no more: not before the last of the changes.
    pub(super) fn after(events: &[Event]) -> Self {
        let mut users = BTreeMap::new();
        for event in events {
            let told = event.deletes() || event.user().is_some();
            let Some(clerk_id) = event.clerk_id.clone().filter(|_| told) else {
                continue;
            };
            // Who is gone stays gone, although a session that ends later still carries the user.
            if users.get(&clerk_id) != Some(&None) {
                users.insert(clerk_id, event.user());
            }
        }
        let changes = events.iter().filter_map(Event::updated_at);
        Self {
            users,
            asked_at: Millis(changes.max().unwrap_or_default()),
        }
    }

    /// Asked a day after the last of these events was sent. A session's may be sent long after its
    /// user's last change, and an answer older than what is known mends nothing.
    pub(super) fn long_after(events: &[Event]) -> Self {
        let last_sent = events.iter().map(Event::occurred_at).max();
        Self {
            asked_at: Millis(last_sent.unwrap_or_default() + DAY),
            ..Self::after(events)
        }
    }

    pub(super) fn snapshots(&self) -> Vec<Snapshot<'_>> {
        self.users
            .iter()
            .map(|(clerk_id, user)| match user {
                Some(user) => Snapshot::Present {
                    user: user.as_bytes(),
                    asked_at: self.asked_at,
                },
                None => Snapshot::Gone { clerk_id },
            })
            .collect()
    }
}

impl Damage {
    /// The statement that does it to a user's row.
    pub(super) fn sql(self, clerk_id: &str) -> String {
        let what = match self {
            Self::Removes => "DELETE FROM users".to_owned(),
            Self::Renames => "UPDATE users SET name = 'Somebody Else'".to_owned(),
            Self::Readdresses => format!("UPDATE users SET email = '{clerk_id}@drift.example'"),
            Self::TakesItsImage => r#"UPDATE users SET "imageUrl" = NULL"#.to_owned(),
        };
        format!(r#"{what} WHERE "clerkId" = '{clerk_id}'"#)
    }
}
