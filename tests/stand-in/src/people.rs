//! The users, in the orders in which they are listed.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ops::Bound,
};

use serde::Deserialize;

/// Who is there, and who is gone.
#[derive(Default)]
pub(crate) struct People {
    by_id: HashMap<String, Stored>,
    by_creation: BTreeSet<(i64, String)>,
    by_change: BTreeSet<(i64, String)>,
    gone: HashSet<String>,
}

struct Stored {
    created_at: i64,
    updated_at: i64,
    json: String,
}

/// What is read of a user's JSON to keep it in order.
#[derive(Deserialize)]
struct Head {
    id: String,
    object: String,
    /// Clerk has both in all its examples. A user without is put as of 1970.
    #[serde(default)]
    created_at: Option<i64>,
    #[serde(default)]
    updated_at: Option<i64>,
}

impl People {
    pub(crate) fn put(&mut self, json: &str) -> Result<(), String> {
        let head: Head = serde_json::from_str(json).map_err(|error| error.to_string())?;
        if head.object != "user" {
            return Err(format!("`object` is {}, not user", head.object));
        }
        if self.gone.contains(&head.id) {
            return Err(format!(
                "{} was removed, and ids are not used again",
                head.id
            ));
        }
        self.take_out(&head.id);
        let Head {
            id,
            created_at,
            updated_at,
            ..
        } = head;
        let [created_at, updated_at] = [created_at, updated_at].map(Option::unwrap_or_default);
        self.by_creation.insert((created_at, id.clone()));
        self.by_change.insert((updated_at, id.clone()));
        let json = json.to_owned();
        let stored = Stored {
            created_at,
            updated_at,
            json,
        };
        self.by_id.insert(id, stored);
        Ok(())
    }

    pub(crate) fn remove(&mut self, id: &str) -> bool {
        let was = self.take_out(id);
        if was {
            self.gone.insert(id.to_owned());
        }
        was
    }

    fn take_out(&mut self, id: &str) -> bool {
        let Some(stored) = self.by_id.remove(id) else {
            return false;
        };
        self.by_creation.remove(&(stored.created_at, id.to_owned()));
        self.by_change.remove(&(stored.updated_at, id.to_owned()));
        true
    }

    pub(crate) fn json(&self, id: &str) -> Option<&str> {
        self.by_id.get(id).map(|stored| stored.json.as_str())
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Everybody, in no order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.by_id.keys().map(String::as_str)
    }

    /// Everybody by `updated_at`.
    pub(crate) fn by_change(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.by_change.iter().map(|(_, id)| id.as_str())
    }

    /// Everybody by `created_at`.
    pub(crate) fn by_creation(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.by_creation.iter().map(|(_, id)| id.as_str())
    }

    /// Those created before and after this one, both ascending; `None` if there is no such user.
    pub(crate) fn around(&self, id: &str) -> Option<[impl DoubleEndedIterator<Item = &str>; 2]> {
        let here = (self.by_id.get(id)?.created_at, id.to_owned());
        let before = (Bound::Unbounded, Bound::Excluded(here.clone()));
        let after = (Bound::Excluded(here), Bound::Unbounded);
        let ids = |range| self.by_creation.range(range).map(|(_, id)| id.as_str());
        Some([ids(before), ids(after)])
    }
}
