//! The parked letters: looked through, shown, replayed, discarded.
//!
//! A walk takes every letter in hand for a moment, so there is one at a time, and none by itself:
//! only when somebody asks. It goes on when the page that asked for it has been answered.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use clerk_sync_pipeline::{
    EventId,
    queue::parked::{Interrupted, Letter, Place, Tally},
};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use crate::{
    errand::{Body, Carry, Count, Find, Inventory, Look, Parking, Which},
    refusal::Refusal,
};

/// How long a page waits for a walk.
const PATIENCE: Duration = Duration::from_secs(7);
/// How long a look is good for.
const FRESH: Duration = Duration::from_secs(10);
/// How long somebody may think before a deed, and how many may think at once.
const PLAN_LASTS: Duration = Duration::from_secs(15 * 60);
const MOST_PLANS: usize = 32;

/// What can be done to letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Replay,
    Discard,
}

/// A deed that somebody thinks about: exactly these letters, however many come meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) deed: Deed,
    pub(crate) place: Place,
    pub(crate) which: Which,
    pub(crate) ids: Arc<HashSet<String>>,
    pub(crate) tally: Tally,
    /// Letters that are meant too, and too many for one deed.
    pub(crate) left_out: u64,
    made_at: Instant,
}

/// Parked letters, for the pages. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Shelf(Arc<Inner>);

struct Inner {
    parking: Parking,
    /// Held by the one who walks.
    desk: tokio::sync::Mutex<()>,
    seen: Mutex<HashMap<bool, (Instant, Arc<Inventory>)>>,
    plans: Mutex<HashMap<String, Plan>>,
    tasks: TaskTracker,
}

impl Shelf {
    pub(crate) fn new(parking: Parking) -> Self {
        Self(Arc::new(Inner {
            parking,
            desk: tokio::sync::Mutex::default(),
            seen: Mutex::default(),
            plans: Mutex::default(),
            tasks: TaskTracker::new(),
        }))
    }

    /// Waits for walks that nobody waits for any more.
    pub(crate) async fn close(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// What there is in a place, seen a few seconds ago at most.
    pub(crate) async fn look(&self, place: Place) -> Result<Arc<Inventory>, Refusal> {
        let key = place == Place::Dead;
        let fresh = |seen: &(Instant, Arc<Inventory>)| seen.0.elapsed() < FRESH;
        if let Some((_, seen)) = lock(&self.0.seen).get(&key).filter(|seen| fresh(seen)) {
            return Ok(seen.clone());
        }
        let shelf = self.clone();
        let look = self.soon(async move {
            let inventory = Arc::new(shelf.0.parking.run(Look(place)).await?);
            lock(&shelf.0.seen).insert(key, (Instant::now(), inventory.clone()));
            Ok(inventory)
        });
        look.await
    }

    /// A letter; an event that came twice may be there twice.
    pub(crate) async fn letters(&self, place: Place, id: &str) -> Result<Vec<Letter>, Refusal> {
        let (shelf, which) = (self.clone(), Which::Id(id.to_owned()));
        let find = self.soon(async move { shelf.0.parking.run(Find(place, which)).await });
        find.await
    }

    /// The body of a letter.
    pub(crate) async fn body(&self, place: Place, id: EventId) -> Result<Option<Bytes>, Refusal> {
        let shelf = self.clone();
        let body = self.soon(async move { shelf.0.parking.run(Body(place, id)).await });
        body.await
    }

    /// Counts what a deed would be about, and remembers exactly that under a name.
    pub(crate) async fn plan(
        &self,
        deed: Deed,
        place: Place,
        which: Which,
    ) -> Result<(String, Plan), Refusal> {
        let (shelf, wanted) = (self.clone(), which.clone());
        let counted = self.soon(async move { shelf.0.parking.run(Count(place, wanted)).await });
        let (tally, ids, left_out) = counted.await?;
        let now = Instant::now();
        let plan = Plan {
            deed,
            place,
            which,
            ids: Arc::new(ids),
            tally,
            left_out,
            made_at: now,
        };
        let name = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>());
        let mut plans = lock(&self.0.plans);
        plans.retain(|_, plan| now.duration_since(plan.made_at) < PLAN_LASTS);
        if plans.len() >= MOST_PLANS {
            return Err(Refusal::Overloaded);
        }
        plans.insert(name.clone(), plan.clone());
        Ok((name, plan))
    }

    /// Takes a plan, so that it is done once.
    pub(crate) fn take_plan(&self, name: &str) -> Option<Plan> {
        let plan = lock(&self.0.plans).remove(name);
        plan.filter(|plan| plan.made_at.elapsed() < PLAN_LASTS)
    }

    /// Does it; returns to how many letters. Those that others have moved since are left out.
    pub(crate) async fn carry_out(&self, plan: Plan) -> Result<u64, Refusal> {
        let shelf = self.clone();
        let done = self.soon(async move {
            let result = shelf.0.parking.run(Carry(plan.clone())).await;
            lock(&shelf.0.seen).clear();
            tell(&plan, &result);
            result
        });
        done.await
    }

    /// Has something done at the desk, when it is free; the page waits for some seconds.
    async fn soon<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Interrupted>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let shelf = self.clone();
        let task = self.0.tasks.spawn(async move {
            let _desk = shelf.0.desk.lock().await;
            work.await
        });
        match timeout(PATIENCE, task).await {
            Ok(Ok(Ok(done))) => Ok(done),
            Ok(Ok(Err(error))) => Err(interrupted(&error)),
            // It is not cancelled, so it only fails with a bug of ours.
            Ok(Err(failed)) => std::panic::resume_unwind(failed.into_panic()),
            Err(_) => Err(Refusal::StillGoing),
        }
    }
}

/// A deed is a process event; nothing of a letter's body is told.
fn tell(plan: &Plan, result: &Result<u64, Interrupted>) {
    let action = match plan.deed {
        Deed::Replay => "replay",
        Deed::Discard => "discard",
    };
    match result {
        Ok(letters) => tracing::info!(action, letters, "letters were moved from the console"),
        Err(error) => {
            let letters = error.done;
            tracing::error!(action, letters, %error, "letters were not all moved from the console");
        }
    }
}

fn interrupted(error: &Interrupted) -> Refusal {
    let before = match error.done {
        0 => String::new(),
        done => format!(" {done} were moved before; the others are where they were."),
    };
    Refusal::Unavailable(format!("The queue does not answer: {error}.{before}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
