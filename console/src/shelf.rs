//! The parked letters: looked through, shown, replayed, discarded.
//!
//! A walk takes every letter in hand for a moment, so there is one at a time, and none by itself:
//! only when somebody asks. Once begun it goes on, also when the page that asked for it has been
//! answered. A look that could not begin in time is forgotten with its page; a deed that somebody
//! was sure of waits for its turn.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use clerk_sync_pipeline::{
    EventId,
    queue::parked::{Interrupted, Letter, Place},
};
use tokio::{
    sync::OwnedMutexGuard,
    time::{Instant, timeout_at},
};
use tokio_util::task::TaskTracker;

use crate::{
    errand::{Body, Carry, Count, Find, Look, Parking, Which},
    inventory::Inventory,
    jobs::{Job, Jobs},
    plans::{Deed, Plan, Plans},
    refusal::Refusal,
};

/// How long a page waits for a walk, with those before it.
const PATIENCE: Duration = Duration::from_secs(7);
/// How long a look is good for.
const FRESH: Duration = Duration::from_secs(10);

/// Parked letters, for the pages. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Shelf(Arc<Inner>);

struct Inner {
    parking: Parking,
    /// Held by the one who walks.
    desk: Arc<tokio::sync::Mutex<()>>,
    seen: Mutex<HashMap<bool, (Instant, Arc<Inventory>)>>,
    plans: Mutex<Plans>,
    jobs: Mutex<Jobs>,
    tasks: TaskTracker,
}

/// The right to walk, and how long the page waits for the end.
struct Turn {
    desk: OwnedMutexGuard<()>,
    until: Instant,
}

impl Shelf {
    pub(crate) fn new(parking: Parking) -> Self {
        Self(Arc::new(Inner {
            parking,
            desk: Arc::default(),
            seen: Mutex::default(),
            plans: Mutex::default(),
            jobs: Mutex::default(),
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
        if let Some(seen) = self.seen(place) {
            return Ok(seen);
        }
        let turn = self.turn().await?;
        // Whoever had the turn before may have looked.
        match self.seen(place) {
            Some(seen) => Ok(seen),
            None => self.look_now(turn, place).await,
        }
    }

    /// The letters of an event: it may be there twice, if it came twice.
    pub(crate) async fn letters(&self, place: Place, id: &str) -> Result<Vec<Letter>, Refusal> {
        let (seen, looked_until) = match self.seen(place) {
            Some(seen) => (seen, None),
            // Another page has a use for what is seen on the way.
            None => {
                let turn = self.turn().await?;
                let until = turn.until;
                (self.look_now(turn, place).await?, Some(until))
            }
        };
        let found = seen.of_event(id);
        if !found.is_empty() || (looked_until.is_some() && seen.is_whole()) {
            return Ok(found);
        }
        // It may have come since, or be none of the newest.
        let until = looked_until.unwrap_or_else(|| Instant::now() + PATIENCE);
        let (shelf, turn, id) = (self.clone(), self.turn_until(until).await?, id.to_owned());
        let find = self.walk(
            turn,
            async move { shelf.0.parking.run(Find(place, id)).await },
        );
        find.await
    }

    /// The body of a letter.
    pub(crate) async fn body(&self, place: Place, id: EventId) -> Result<Option<Bytes>, Refusal> {
        let (shelf, turn) = (self.clone(), self.turn().await?);
        let body = self.walk(
            turn,
            async move { shelf.0.parking.run(Body(place, id)).await },
        );
        body.await
    }

    /// Counts what a deed would be about, and remembers exactly that under a name.
    pub(crate) async fn plan(
        &self,
        deed: Deed,
        place: Place,
        which: Which,
    ) -> Result<(String, Plan), Refusal> {
        // One whose page was given up before it was counted: who asks again has it at once.
        if let Some(found) = self.unseen_plan(deed, place, &which) {
            return Ok(found);
        }
        let turn = self.turn().await?;
        if let Some(found) = self.unseen_plan(deed, place, &which) {
            return Ok(found);
        }
        let shelf = self.clone();
        let count = self.walk(turn, async move {
            let counted = shelf.0.parking.run(Count(place, which.clone())).await?;
            let (tally, ids, left_out) = counted;
            let plan = Plan {
                deed,
                place,
                which,
                ids: Arc::new(ids),
                tally,
                left_out,
            };
            let name = lock(&shelf.0.plans).keep(plan.clone(), Instant::now());
            Ok((name, plan))
        });
        let (name, plan) = count.await?;
        lock(&self.0.plans).see(&name);
        Ok((name, plan))
    }

    fn unseen_plan(&self, deed: Deed, place: Place, which: &Which) -> Option<(String, Plan)> {
        lock(&self.0.plans).unseen(deed, place, which, Instant::now())
    }

    /// Begins what was planned, once, and waits as long as a page does; it is done then, or goes
    /// on. `None` where there is no such plan.
    pub(crate) async fn carry_out(&self, name: &str, deed: Deed) -> Option<Arc<Job>> {
        let now = Instant::now();
        let plan = lock(&self.0.plans).take(name, deed, now)?;
        let (job, end) = lock(&self.0.jobs).begin(name, &plan, now);
        let (shelf, carry) = (self.clone(), Carry(plan, job.clone()));
        self.0.tasks.spawn(async move {
            // Somebody is sure of it, so it is done, however long others take.
            let _desk = shelf.0.desk.lock().await;
            let result = shelf.0.parking.run(carry).await;
            lock(&shelf.0.seen).clear();
            tell(deed, &result);
            end.send_replace(Some(result.map_err(|error| interrupted(&error))));
        });
        job.wait(PATIENCE).await;
        Some(job)
    }

    /// A deed that was begun, by the name of its plan.
    pub(crate) fn job(&self, name: &str) -> Option<Arc<Job>> {
        lock(&self.0.jobs).find(name)
    }

    /// What was seen in a place, if it is fresh.
    fn seen(&self, place: Place) -> Option<Arc<Inventory>> {
        let seen = lock(&self.0.seen).get(&(place == Place::Dead)).cloned();
        let (_, seen) = seen.filter(|(at, _)| at.elapsed() < FRESH)?;
        Some(seen)
    }

    async fn look_now(&self, turn: Turn, place: Place) -> Result<Arc<Inventory>, Refusal> {
        let shelf = self.clone();
        let look = self.walk(turn, async move {
            let seen = Arc::new(shelf.0.parking.run(Look(place)).await?);
            let now = (Instant::now(), seen.clone());
            lock(&shelf.0.seen).insert(place == Place::Dead, now);
            Ok(seen)
        });
        look.await
    }

    /// Waits for the desk. A page that is given up takes its turn with it: impatience makes no
    /// queue of walks.
    async fn turn(&self) -> Result<Turn, Refusal> {
        self.turn_until(Instant::now() + PATIENCE).await
    }

    async fn turn_until(&self, until: Instant) -> Result<Turn, Refusal> {
        let desk = timeout_at(until, self.0.desk.clone().lock_owned()).await;
        let desk = desk.map_err(|_| Refusal::Busy)?;
        Ok(Turn { desk, until })
    }

    /// Walks to the end; the page waits for some seconds.
    async fn walk<T: Send + 'static>(
        &self,
        turn: Turn,
        work: impl Future<Output = Result<T, Interrupted>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let Turn { desk, until } = turn;
        let task = self.0.tasks.spawn(async move {
            let _desk = desk;
            work.await
        });
        match timeout_at(until, task).await {
            Ok(Ok(Ok(done))) => Ok(done),
            Ok(Ok(Err(error))) => Err(Refusal::Unavailable(interrupted(&error))),
            // It is not cancelled, so it only fails with a bug of ours.
            Ok(Err(failed)) => std::panic::resume_unwind(failed.into_panic()),
            Err(_) => Err(Refusal::StillGoing),
        }
    }
}

/// A deed is a process event; nothing of a letter's body is told.
fn tell(deed: Deed, result: &Result<u64, Interrupted>) {
    let action = match deed {
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

/// What a person reads of it.
fn interrupted(error: &Interrupted) -> String {
    let before = match error.done {
        0 => String::new(),
        done => format!(" {done} were moved before; the others are where they were."),
    };
    format!("The queue does not answer: {error}.{before}")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_somebody_is_sure_of_is_done_when_its_turn_comes() {
        let shelf = Shelf::new(Parking::File("/nowhere".into()));
        let desk = shelf.0.desk.clone().lock_owned().await;
        let plan = Plan::example(Deed::Replay);
        let name = lock(&shelf.0.plans).keep(plan, Instant::now());
        let job = shelf.carry_out(&name, Deed::Replay).await.unwrap();
        assert_eq!(job.ended(), None, "it waits for its turn");
        assert!(shelf.carry_out(&name, Deed::Replay).await.is_none());
        drop(desk);
        shelf.close().await;
        // There is no file.
        let ended = shelf.job(&name).unwrap().ended();
        assert!(matches!(ended, Some(Err(_))), "{ended:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_impatient_person_makes_no_queue_of_walks() {
        let shelf = Shelf::new(Parking::File("/nowhere".into()));
        let desk = shelf.0.desk.clone().lock_owned().await;
        for _ in 0..5 {
            let refused = shelf.look(Place::Dead).await.unwrap_err();
            assert!(matches!(refused, Refusal::Busy), "{refused}");
        }
        assert!(shelf.0.tasks.is_empty(), "nothing waits for the desk");
        drop(desk);
        // Its turn has come: there is no file.
        let refused = shelf.look(Place::Dead).await.unwrap_err();
        assert!(matches!(refused, Refusal::Unavailable(_)), "{refused}");
    }
}
