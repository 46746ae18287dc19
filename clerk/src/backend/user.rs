//! A user, as Clerk sent it.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::ApiError;

/// A user: its JSON to the byte, and of it what a walk has to know.
///
/// The shape is that of `data` in `user.created` and `user.updated`.
#[derive(Clone)]
pub struct User {
    /// `user_…`
    pub id: String,
    /// In milliseconds since 1970: the first part of a version. Clerk always has it; of a user who
    /// has none only that one is not to be read, and not the page.
    pub updated_at: Option<i64>,
    /// The whole user. Not a tree: numbers beyond 2^53 in metadata would not survive one.
    pub json: Box<RawValue>,
}

/// What is read of the JSON.
#[derive(Deserialize)]
struct Head {
    id: String,
    updated_at: Option<i64>,
}

impl User {
    pub(super) fn from_json(body: &[u8]) -> Result<Self, ApiError> {
        Self::from_raw(serde_json::from_slice(body).map_err(ApiError::json)?)
    }

    pub(super) fn list_from_json(body: &[u8]) -> Result<Vec<Self>, ApiError> {
        let users: Vec<Box<RawValue>> = serde_json::from_slice(body).map_err(ApiError::json)?;
        users.into_iter().map(Self::from_raw).collect()
    }

    fn from_raw(json: Box<RawValue>) -> Result<Self, ApiError> {
        let Head { id, updated_at } = serde_json::from_str(json.get()).map_err(ApiError::json)?;
        Ok(Self {
            id,
            updated_at,
            json,
        })
    }
}

impl std::fmt::Debug for User {
    /// Nothing that says who it is: a user's JSON is full of that.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.updated_at {
            Some(at) => write!(f, "User({} as of {at})", self.id),
            None => write!(f, "User({})", self.id),
        }
    }
}
