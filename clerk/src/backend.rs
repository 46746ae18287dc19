//! The Backend API: who is there, at the rate that Clerk allows.
//!
//! One [`Backend`] per instance and process: its clones share the connections, the budget of
//! requests, and the pause that a 429 asks for.

mod call;
mod config;
mod error;
mod key;
mod limit;
mod user;
mod walk;

use std::{fmt, sync::Arc, time::Duration};

use reqwest::Url;
use serde::Deserialize;

pub use config::{ApiUrl, BackendConfig, DEFAULT_API_URL};
pub use error::ApiError;
pub use key::{InstanceKind, SecretKey};
pub use user::User;
pub use walk::{ChangedWalk, Walk};

use call::{Caller, Patience};

/// The version of the API that the answers are read as. Webhooks have no such knob.
pub const API_VERSION: &str = "2026-05-12";
/// Most users per page. Asked for one more, Clerk silently gives 10.
pub const MAX_PAGE: usize = 500;
/// Most ids in one probe.
pub const MAX_IDS: usize = 100;

/// A client of one Clerk instance's Backend API. Cloning is cheap.
#[derive(Clone)]
pub struct Backend {
    caller: Arc<Caller>,
    patience: Patience,
}

/// In which order to list users, and from where on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order<'a> {
    /// By `created_at`, ascending: whoever signs up meanwhile comes at the end.
    OldestFirst {
        /// Only those after the user with this id.
        after: Option<&'a str>,
    },
    /// By `created_at`, descending.
    NewestFirst {
        /// Only those after the user with this id.
        after: Option<&'a str>,
    },
    /// By `updated_at`, descending. There is no cursor for it, and far offsets are slow.
    LastChangedFirst {
        /// How many to leave out.
        offset: usize,
    },
}

/// Which instance a key belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// `ins_…`, the same as `instance_id` in its webhooks.
    pub id: String,
    /// Production or development, as the key says.
    pub kind: InstanceKind,
    /// What time it is at Clerk, to the second, if the answer said so.
    pub time: Option<std::time::SystemTime>,
}

impl Backend {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// The system's certificates cannot be read.
    pub fn new(config: BackendConfig) -> Result<Self, ApiError> {
        let patience = Patience {
            time: config.patience,
            repeats: true,
        };
        let caller = Arc::new(Caller::new(config)?);
        Ok(Self { caller, patience })
    }

    /// The same client, for a caller with more or less time: what one call may take in all, with
    /// waiting for its turn, pauses and repetitions.
    #[must_use]
    pub fn with_patience(&self, patience: Duration) -> Self {
        let caller = self.caller.clone();
        let patience = Patience {
            time: patience,
            ..self.patience
        };
        Self { caller, patience }
    }

    /// The same client, for a caller who wants to know how it is now: whatever fails is told, and
    /// not tried again.
    #[must_use]
    pub fn without_repeats(&self) -> Self {
        let caller = self.caller.clone();
        let patience = Patience {
            repeats: false,
            ..self.patience
        };
        Self { caller, patience }
    }

    /// Where the API is.
    #[must_use]
    pub fn url(&self) -> &ApiUrl {
        self.caller.url()
    }

    /// The user with this id, or `None` when Clerk says that there is none.
    ///
    /// # Errors
    /// Whatever is not Clerk's own answer about this user, also a 404 of somebody else.
    pub async fn user(&self, id: &str) -> Result<Option<User>, ApiError> {
        let mut url = self.endpoint(&["users"]);
        if matches!(id, "" | "." | ".." | "count") {
            // Not ids, and as part of a path something else.
            return Ok(None);
        }
        extend(&mut url, &[id]);
        match self.caller.get(url, self.patience).await {
            Ok(answer) => {
                let user = User::from_answer(&answer)?;
                if user.id == id {
                    Ok(Some(user))
                } else {
                    Err(ApiError::unreadable("it is another user"))
                }
            }
            Err(ApiError::NotFound { complaint }) if complaint.is_of_a_resource() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One page of users. Shorter than `limit`, it is the last one.
    ///
    /// # Errors
    /// No page within the caller's patience; a cursor that is refused.
    pub async fn users_page(&self, order: Order<'_>, limit: usize) -> Result<Vec<User>, ApiError> {
        let limit = limit.clamp(1, MAX_PAGE);
        let mut url = self.endpoint(&["users"]);
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("limit", &limit.to_string());
            // The plus sign, which means a space in a query, is escaped.
            query.append_pair("order_by", order.order_by());
            match order {
                Order::OldestFirst { after } | Order::NewestFirst { after } => {
                    after.map(|id| query.append_pair("starting_after", id));
                }
                Order::LastChangedFirst { offset } => {
                    query.append_pair("offset", &offset.to_string());
                }
            }
        }
        self.users(url, limit).await
    }

    /// Those of these users whom Clerk still has, in no order that means anything. Of an absent
    /// one, [`Backend::user`] says for certain that it is gone.
    ///
    /// # Errors
    /// As [`Backend::users_page`].
    ///
    /// # Panics
    /// With more than [`MAX_IDS`] ids, of which Clerk would leave some out.
    pub async fn users_by_id(&self, ids: &[impl AsRef<str>]) -> Result<Vec<User>, ApiError> {
        assert!(ids.len() <= MAX_IDS, "a probe is of {MAX_IDS} ids at most");
        // To Clerk a sign in front means "this one" or "all but this one". No id of its has one.
        let ids = ids.iter().map(AsRef::as_ref);
        let ids: Vec<&str> = ids.filter(|id| !id.starts_with(['+', '-'])).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut url = self.endpoint(&["users"]);
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("limit", &MAX_IDS.to_string());
            query.extend_pairs(ids.iter().map(|id| ("user_id", id)));
        }
        self.users(url, ids.len()).await
    }

    /// How many users there are.
    ///
    /// # Errors
    /// No number within the caller's patience.
    pub async fn count(&self) -> Result<u64, ApiError> {
        #[derive(Deserialize)]
        struct Count {
            total_count: u64,
        }
        let url = self.endpoint(&["users", "count"]);
        let answer = self.caller.get(url, self.patience).await?;
        let count: Count = serde_json::from_slice(&answer.body).map_err(ApiError::json)?;
        Ok(count.total_count)
    }

    /// Which instance the key belongs to: the `kid` of its signing keys is its id.
    ///
    /// # Errors
    /// The key is refused; no answer within the caller's patience.
    pub async fn instance(&self) -> Result<Instance, ApiError> {
        #[derive(Deserialize)]
        struct Keys {
            keys: Vec<Key>,
        }
        #[derive(Deserialize)]
        struct Key {
            kid: String,
        }
        let answer = self
            .caller
            .get(self.endpoint(&["jwks"]), self.patience)
            .await?;
        let keys: Keys = serde_json::from_slice(&answer.body).map_err(ApiError::json)?;
        let mut ids = keys.keys.into_iter().map(|key| key.kid);
        let id = ids
            .next()
            .ok_or_else(|| ApiError::unreadable("it has no signing key"))?;
        if ids.any(|other| other != id) {
            return Err(ApiError::unreadable(
                "its signing keys are of several instances",
            ));
        }
        Ok(Instance {
            id,
            kind: self.caller.kind(),
            time: answer.time,
        })
    }

    /// All users, oldest first, page by page; `after` the one with this id, when a walk is resumed.
    #[must_use]
    pub fn walk(&self, after: Option<String>) -> Walk {
        Walk::new(self.clone(), after)
    }

    /// The users whose `updated_at` is `since` (milliseconds) or later, the last changed first,
    /// page by page.
    #[must_use]
    pub fn walk_changed(&self, since: i64) -> ChangedWalk {
        ChangedWalk::new(self.clone(), since)
    }

    async fn users(&self, url: Url, most: usize) -> Result<Vec<User>, ApiError> {
        let answer = self.caller.get(url, self.patience).await?;
        let users = User::list_from_answer(&answer)?;
        if users.len() > most {
            return Err(ApiError::unreadable(
                "it has more users than were asked for",
            ));
        }
        Ok(users)
    }

    fn endpoint(&self, path: &[&str]) -> Url {
        let mut url = self.caller.url().as_url().clone();
        extend(&mut url, &["v1"]);
        extend(&mut url, path);
        url
    }
}

impl Order<'_> {
    fn order_by(self) -> &'static str {
        match self {
            Self::OldestFirst { .. } => "+created_at",
            Self::NewestFirst { .. } => "-created_at",
            Self::LastChangedFirst { .. } => "-updated_at",
        }
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({})", self.url())
    }
}

/// Adds segments to a path, each escaped.
fn extend(url: &mut Url, path: &[&str]) {
    url.path_segments_mut()
        .expect("an ApiUrl is http or https, which have paths")
        .pop_if_empty()
        .extend(path);
}
