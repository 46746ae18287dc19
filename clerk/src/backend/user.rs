//! A user, as Clerk sent it.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ApiError, call::Answer};

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
    /// When Clerk was asked, by our clock, in milliseconds since 1970: of several attempts, the one
    /// that was answered.
    pub asked_at: i64,
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
    pub(super) fn from_answer(answer: &Answer) -> Result<Self, ApiError> {
        let json = serde_json::from_slice(&answer.body).map_err(ApiError::json)?;
        Self::from_raw(json, answer.asked_at)
    }

    pub(super) fn list_from_answer(answer: &Answer) -> Result<Vec<Self>, ApiError> {
        let users: Vec<Box<RawValue>> =
            serde_json::from_slice(&answer.body).map_err(ApiError::json)?;
        let read = |json| Self::from_raw(json, answer.asked_at);
        users.into_iter().map(read).collect()
    }

    fn from_raw(json: Box<RawValue>, asked_at: i64) -> Result<Self, ApiError> {
        let Head { id, updated_at } = serde_json::from_str(json.get()).map_err(ApiError::json)?;
        Ok(Self {
            id,
            updated_at,
            asked_at,
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
