//! What an instance sent, in the order in which it happened.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde_json::Value;

use crate::Change;

/// Everything that an instance sent.
#[derive(Clone, PartialEq, Eq)]
pub struct History {
    /// The instance's id, in every envelope.
    pub instance_id: String,
    /// Its events, in the order in which they happened, which is that of their ids.
    pub events: Vec<Event>,
    /// How often each kind of change happened.
    pub changes: BTreeMap<Change, usize>,
}

/// One webhook.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    /// The `svix-id`: `msg_` and 27 characters, ascending bytewise in the order of the events.
    pub id: String,
    /// The envelope's `type`.
    pub event_type: &'static str,
    /// The user it is about, if it tells of one: it carries the whole user, or that it is gone.
    pub clerk_id: Option<String>,
    /// The exact JSON that Clerk would send.
    pub body: Vec<u8>,
    /// Second part of the version: the envelope's `timestamp`, in milliseconds.
    pub(crate) occurred_at: i64,
    pub(crate) told: Told,
}

/// What an event says about its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nothing that is projected.
    Nothing,
    /// All there is to know.
    User(Snapshot),
    /// That it is deleted.
    Gone,
}

/// A user at one moment, as far as it is projected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) email: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) image_url: String,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
}

impl History {
    /// The same instance, had it sent only these of its events, by their index: for a failure to
    /// be told with as few of them as it takes. [`History::table`] and its like hold for whatever
    /// is left, also where an address now seems to have two owners.
    #[must_use]
    pub fn only(mut self, mut kept: impl FnMut(usize) -> bool) -> Self {
        let mut index = 0;
        self.events.retain(|_| {
            index += 1;
            kept(index - 1)
        });
        self
    }

    /// Who was there after the first so many events, by Clerk id: the users as the Backend API gave
    /// them at that moment.
    #[must_use]
    pub fn users_after(&self, events: usize) -> BTreeMap<&str, String> {
        let happened = &self.events[..events.min(self.events.len())];
        let mut last = BTreeMap::new();
        let mut gone = BTreeSet::new();
        for event in happened {
            let Some(clerk_id) = event.clerk_id.as_deref() else {
                continue;
            };
            // A session that ends after its user still carries it.
            if event.deletes() {
                gone.insert(clerk_id);
                last.remove(clerk_id);
            } else if event.snapshot().is_some() && !gone.contains(clerk_id) {
                last.insert(clerk_id, event);
            }
        }
        let user = |(clerk_id, event): (_, &Event)| event.user().map(|user| (clerk_id, user));
        last.into_iter().filter_map(user).collect()
    }

    /// How many events there are of each type.
    #[must_use]
    pub fn events_by_type(&self) -> BTreeMap<&'static str, usize> {
        let mut counted = BTreeMap::new();
        for event in &self.events {
            *counted.entry(event.event_type).or_default() += 1;
        }
        counted
    }
}

impl Event {
    /// Clerk's `updated_at` of the user it carries, in milliseconds: the first part of a version.
    /// The others are [`Event::occurred_at`] and the id.
    #[must_use]
    pub fn updated_at(&self) -> Option<i64> {
        self.snapshot().map(|snapshot| snapshot.updated_at)
    }

    /// The envelope's `timestamp` in milliseconds, whatever the instance's unit: the second part
    /// of a version.
    #[must_use]
    pub fn occurred_at(&self) -> i64 {
        self.occurred_at
    }

    /// The user that it carries, as the Backend API gives it: the same JSON.
    ///
    /// # Panics
    /// Never: what a history holds is what a simulated instance sent.
    #[must_use]
    pub fn user(&self) -> Option<String> {
        self.snapshot()?;
        let mut envelope: Value = serde_json::from_slice(&self.body).expect("an event is JSON");
        let data = envelope["data"].take();
        let user = match data["object"].as_str() {
            Some("session") => &data["user"],
            _ => &data,
        };
        Some(user.to_string())
    }

    /// Whether it tells that its user is gone.
    #[must_use]
    pub fn deletes(&self) -> bool {
        self.told == Told::Gone
    }

    pub(crate) fn snapshot(&self) -> Option<&Snapshot> {
        match &self.told {
            Told::User(snapshot) => Some(snapshot),
            Told::Nothing | Told::Gone => None,
        }
    }
}

impl fmt::Debug for History {
    /// The events in words, one a line: their bodies are long and say little.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.instance_id)?;
        for (index, event) in self.events.iter().enumerate() {
            write!(f, "\n  {index}: {event:?}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.id, self.event_type)?;
        if let Some(clerk_id) = &self.clerk_id {
            write!(f, " {clerk_id}")?;
        }
        if let Told::User(user) = &self.told {
            let email = user.email.as_deref().unwrap_or("no address");
            write!(f, " <{email}> {:?} as of {}", user.name, user.updated_at)?;
        }
        write!(f, " sent {}", self.occurred_at)
    }
}
