//! Where fetches are asked for: one at a time for each user, however many wait for it, and not too
//! often.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clerk_sync_clerk::token::Session;
use clerk_sync_pipeline::queue::Reason;
use clerk_sync_projection::SnapshotOutcome;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::{
    fetch::{FetchError, Fetcher},
    refusal::Refusal,
};

/// Most users that are remembered at once. Each has a token of Clerk's, so nobody makes them up.
const MOST_USERS: usize = 50_000;
/// How many are remembered before it is looked who can be forgotten.
const FIRST_LOOK: usize = 64;

/// The end of a fetch: when, and whether the row is as Clerk has it.
type Ended = (Instant, Result<(), Refusal>);
type Fetching = Shared<BoxFuture<'static, Ended>>;

/// Hands out fetches.
pub(crate) struct Desk {
    fetcher: Arc<Fetcher>,
    /// Shortest time between two fetches of one user.
    floor: Duration,
    users: Mutex<Users>,
    /// A fetch is nobody's in particular: who asked first may go away.
    tasks: TaskTracker,
}

#[derive(Default)]
struct Users {
    fetches: HashMap<String, Fetching>,
    look_at: usize,
}

/// What became of a wish for a fetch.
pub(crate) struct Done {
    /// How long ago Clerk was asked.
    pub(crate) age: Duration,
    pub(crate) outcome: Result<(), Refusal>,
}

impl Desk {
    pub(crate) fn new(fetcher: Fetcher, floor: Duration) -> Self {
        Self {
            fetcher: Arc::new(fetcher),
            floor,
            users: Mutex::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Has the user fetched, unless that is being done, or was done just now.
    pub(crate) async fn fetch(&self, session: Session) -> Done {
        let fetching = match self.fetching(session) {
            Ok(fetching) => fetching,
            Err(refusal) => {
                return Done {
                    age: Duration::ZERO,
                    outcome: Err(refusal),
                };
            }
        };
        let (ended, outcome) = fetching.await;
        let age = ended.elapsed();
        Done { age, outcome }
    }

    fn fetching(&self, session: Session) -> Result<Fetching, Refusal> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fetching) = users.fetches.get(&session.user_id)
            && !self.is_over(fetching)
        {
            return Ok(fetching.clone());
        }
        if users.fetches.len() >= users.look_at {
            users.fetches.retain(|_, fetching| !self.is_over(fetching));
            users.look_at = (2 * users.fetches.len()).clamp(FIRST_LOOK, MOST_USERS);
            if users.fetches.len() >= MOST_USERS {
                return Err(Refusal::Overloaded);
            }
        }
        let fetching = self.begin(session.clone());
        users.fetches.insert(session.user_id, fetching.clone());
        Ok(fetching)
    }

    /// Whether it may be begun anew.
    fn is_over(&self, fetching: &Fetching) -> bool {
        let ended = fetching.peek().map(|(ended, _)| ended);
        ended.is_some_and(|ended| ended.elapsed() >= self.floor)
    }

    fn begin(&self, session: Session) -> Fetching {
        let fetcher = self.fetcher.clone();
        let fetching = async move {
            let instance = session.instance_id.as_deref();
            let fetch = async { settled(fetcher.fetch(&session.user_id, instance).await) };
            let outcome = survived(fetch).await;
            (Instant::now(), outcome)
        };
        let fetching = fetching.boxed().shared();
        // The task takes it to its end, though all who wait go away.
        self.tasks.spawn(fetching.clone());
        fetching
    }

    /// Waits for those that nobody waits for any more.
    pub(crate) async fn close(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Whether there is anything to read in the database now.
fn settled(fetched: Result<SnapshotOutcome, FetchError>) -> Result<(), Refusal> {
    match fetched? {
        SnapshotOutcome::Created
        | SnapshotOutcome::Updated
        | SnapshotOutcome::Current
        | SnapshotOutcome::Stale
        | SnapshotOutcome::Deleted => Ok(()),
        SnapshotOutcome::MissingEmail => Err(Refusal::Unwritable(Reason::MissingEmail)),
        SnapshotOutcome::Failed(failure) => Err(failure.into()),
    }
}

/// Has a bug of ours be the answer of one fetch, not the end of the desk.
async fn survived(fetch: impl Future<Output = Result<(), Refusal>>) -> Result<(), Refusal> {
    let ended = AssertUnwindSafe(fetch).catch_unwind().await;
    ended.unwrap_or(Err(Refusal::Bug))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_fetch_that_panics_is_a_refusal() {
        let outcome = survived(async { panic!("a bug") }).await;
        assert!(matches!(outcome, Err(Refusal::Bug)));
    }
}
