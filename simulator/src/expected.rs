//! What a receiver must hold once every event has arrived: the oracle.
//!
//! It knows nothing of transactions, batches or queues. It sees all events at once, in the order in
//! which they happened, and takes each user's last one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::history::{Event, History, Snapshot, Told};

/// What a receiver makes of a user without an address (the product's `MISSING_EMAIL`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressless {
    /// A row with `<clerk id>@no-email.invalid`.
    Placeholder,
    /// Nothing: the event is refused as `missing_email`, the row stays as it was before.
    DeadLetter,
}

/// A row of `users`, all columns but `id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// `clerkId`
    pub clerk_id: String,
    /// `email`
    pub email: Email,
    /// `name`: first and last name joined by a space; an empty one counts as absent.
    pub name: Option<String>,
    /// `imageUrl`
    pub image_url: Option<String>,
    /// `createdAt`, Clerk's, in milliseconds since 1970.
    pub created_at: i64,
    /// `updatedAt`, Clerk's, in milliseconds since 1970.
    pub updated_at: i64,
}

/// An address, as far as the events determine it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Email {
    /// This one, however the events arrived.
    Is(String),
    /// One of these, depending on the order in which they arrived; see [`History::table`].
    OneOf(Vec<String>),
}

impl Email {
    /// Whether a row may have this address.
    #[must_use]
    pub fn admits(&self, email: &str) -> bool {
        match self {
            Self::Is(only) => only == email,
            Self::OneOf(several) => several.iter().any(|one| one == email),
        }
    }
}

/// Events of users without an address, by id, as [`Addressless::DeadLetter`] treats them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetters<'a> {
    /// Those refused on every delivery: nothing newer is ever held of their user.
    pub must: BTreeSet<&'a str>,
    /// Those refused, or found out of date, depending on what arrived before: their user was
    /// deleted, or had an address again.
    pub may: BTreeSet<&'a str>,
}

impl History {
    /// The rows of `users` in the end, by Clerk id.
    ///
    /// Every column is exact, with one exception. The argument, for any events whatsoever: call
    /// *final* the last snapshot of each user that is not deleted (with
    /// [`Addressless::DeadLetter`]: the last one with an address, since others are never held).
    /// A final snapshot is never out of date, so it is written sooner or later, and after it only
    /// the email of its row can change: to a placeholder, when somebody's newer snapshot with the
    /// same address is written. Let V have the newest final snapshot with the address X.
    ///
    /// - Nobody has a newer snapshot with X. Once V's is written, V has X for good: older holders
    ///   give way, older claimants come too late. Whoever else has X in a final snapshot has a
    ///   placeholder in the end: V took X away, or was there already.
    /// - Somebody has: in a snapshot that is not final, so it is either written for a while or
    ///   found out of date. When it was written, X is taken from whoever held it; when its writer
    ///   has moved on since, the next one to come with X finds it free. So each of the users with
    ///   X in a final snapshot has either X or a placeholder: [`Email::OneOf`].
    ///
    /// With [`Addressless::Placeholder`] the second case cannot be: the final snapshots are the
    /// present, whoever has X now got it last, and everything is exact. With `DeadLetter` it is
    /// the user that lost X as its last address before another one had it for a while.
    #[must_use]
    pub fn table(&self, addressless: Addressless) -> Vec<Row> {
        let finals = self.finals(addressless);
        let mut claimed: HashMap<&str, usize> = HashMap::new();
        for (index, event) in self.events.iter().enumerate() {
            if let Some(email) = event.email() {
                claimed.insert(email, index);
            }
        }
        let mut owned: HashMap<&str, usize> = HashMap::new();
        for index in finals.values() {
            if let Some(email) = self.events[*index].email() {
                let newest = owned.entry(email).or_default();
                *newest = *index.max(newest);
            }
        }
        let email = |clerk_id: &str, index: usize, email: Option<&str>| {
            let Some(email) = email else {
                return Email::Is(format!("{clerk_id}@no-email.invalid"));
            };
            let reassigned = format!("{clerk_id}@reassigned.invalid");
            if claimed[email] > owned[email] {
                Email::OneOf(vec![email.to_owned(), reassigned])
            } else if owned[email] == index {
                Email::Is(email.to_owned())
            } else {
                Email::Is(reassigned)
            }
        };
        let row = |(clerk_id, index): (&str, usize)| {
            let user = self.events[index].snapshot()?;
            Some(Row {
                clerk_id: clerk_id.to_owned(),
                email: email(clerk_id, index, user.email.as_deref()),
                name: user.name.clone(),
                image_url: Some(user.image_url.clone()),
                created_at: user.created_at,
                updated_at: user.updated_at,
            })
        };
        finals.into_iter().filter_map(row).collect()
    }

    /// Clerk ids of the users that must be gone, and stay gone.
    #[must_use]
    pub fn deleted(&self) -> BTreeSet<&str> {
        let gone = self.events.iter().filter(|event| event.told == Told::Gone);
        gone.filter_map(|event| event.clerk_id.as_deref()).collect()
    }

    /// For each user that must have a row, by Clerk id: the event whose version must be held in
    /// the end.
    #[must_use]
    pub fn last_words(&self, addressless: Addressless) -> BTreeMap<&str, &Event> {
        let finals = self.finals(addressless).into_iter();
        finals
            .map(|(clerk_id, index)| (clerk_id, &self.events[index]))
            .collect()
    }

    /// Which events [`Addressless::DeadLetter`] must refuse as `missing_email`, and which it may.
    #[must_use]
    pub fn dead_letters(&self) -> DeadLetters<'_> {
        let finals = self.finals(Addressless::DeadLetter);
        let deleted = self.deleted();
        let mut letters = DeadLetters::default();
        for (index, event) in self.events.iter().enumerate() {
            let (Some(clerk_id), Some(Snapshot { email: None, .. })) =
                (event.clerk_id.as_deref(), event.snapshot())
            else {
                continue;
            };
            let newer_is_held = finals.get(clerk_id).is_some_and(|last| *last > index);
            if deleted.contains(clerk_id) || newer_is_held {
                letters.may.insert(event.id.as_str());
            } else {
                letters.must.insert(event.id.as_str());
            }
        }
        letters
    }

    /// The index of the final snapshot of each user that has one.
    fn finals(&self, addressless: Addressless) -> BTreeMap<&str, usize> {
        let deleted = self.deleted();
        let mut finals = BTreeMap::new();
        for (index, event) in self.events.iter().enumerate() {
            let (Some(clerk_id), Some(user)) = (event.clerk_id.as_deref(), event.snapshot()) else {
                continue;
            };
            let held = addressless == Addressless::Placeholder || user.email.is_some();
            if held && !deleted.contains(clerk_id) {
                finals.insert(clerk_id, index);
            }
        }
        finals
    }
}

impl Event {
    fn email(&self) -> Option<&str> {
        self.snapshot()?.email.as_deref()
    }
}
