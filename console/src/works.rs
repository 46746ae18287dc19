//! Deeds that were begun: how far they are, and how they ended.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clerk_sync_pipeline::queue::parked::Place;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use crate::plans::{Deed, Plan};

/// How long the end of a deed is told.
const LASTS: Duration = Duration::from_secs(15 * 60);

const BROKEN_OFF: &str = "A fault of this program broke it off; some letters may have been moved.";

/// Deeds by the names of their plans.
#[derive(Default)]
pub(crate) struct Works(HashMap<String, Arc<Work>>);

/// A deed that is being done, or was.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) deed: Deed,
    pub(crate) place: Place,
    /// How many letters it is about.
    pub(crate) letters: u64,
    pub(crate) progress: Progress,
    begun_at: Instant,
    ended: watch::Receiver<Option<Ended>>,
}

/// In the hands of who does it.
pub(crate) struct Doing(watch::Sender<Option<Ended>>);

impl Doing {
    pub(crate) fn end(self, ended: Ended) {
        self.0.send_replace(Some(ended));
    }
}

/// To how many letters it was done, or why not to all.
pub(crate) type Ended = Result<u64, String>;

/// Letters that were looked at for it, and how many there are. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress(Arc<(AtomicU64, AtomicU64)>);

impl Progress {
    pub(crate) fn begin(&self, total: u64) {
        self.0.1.store(total, Ordering::Relaxed);
    }

    pub(crate) fn one_more(&self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Seen and total; `None` while it waits for its turn.
    pub(crate) fn now(&self) -> Option<(u64, u64)> {
        let (seen, total) = (&self.0.0, &self.0.1);
        let total = total.load(Ordering::Relaxed);
        (total > 0).then(|| (seen.load(Ordering::Relaxed).min(total), total))
    }
}

impl Works {
    /// A deed begins. There are never many: each was a plan before.
    pub(crate) fn begin(&mut self, name: &str, plan: &Plan, now: Instant) -> (Arc<Work>, Doing) {
        self.0
            .retain(|_, work| work.ended().is_none() || now.duration_since(work.begun_at) < LASTS);
        let (doing, ended) = watch::channel(None);
        let work = Arc::new(Work {
            deed: plan.deed,
            place: plan.place,
            letters: plan.tally.total(),
            progress: Progress::default(),
            begun_at: now,
            ended,
        });
        self.0.insert(name.to_owned(), work.clone());
        (work, Doing(doing))
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Work>> {
        self.0.get(name).cloned()
    }
}

impl Work {
    /// How it ended; `None` while it goes on.
    pub(crate) fn ended(&self) -> Option<Ended> {
        let is_dropped = self.ended.has_changed().is_err();
        let ended = self.ended.borrow().clone();
        ended.or_else(|| is_dropped.then(|| Err(BROKEN_OFF.to_owned())))
    }

    /// Waits for its end, so long at most.
    pub(crate) async fn wait(&self, patience: Duration) {
        let mut ended = self.ended.clone();
        // Too late: whoever asks is told that it goes on.
        let _ = timeout(patience, ended.wait_for(Option::is_some)).await;
    }
}

#[cfg(test)]
mod tests {
    use clerk_sync_pipeline::queue::parked::Tally;

    use crate::errand::Which;

    use super::*;

    fn plan() -> Plan {
        let mut tally = Tally::default();
        tally.add("malformed");
        Plan {
            deed: Deed::Discard,
            place: Place::Dead,
            which: Which::All,
            ids: Arc::default(),
            tally,
            left_out: 0,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deed_tells_how_far_it_is_and_for_a_while_how_it_ended() {
        let mut works = Works::default();
        let (work, doing) = works.begin("one", &plan(), Instant::now());
        assert_eq!((work.letters, work.progress.now()), (1, None));
        work.progress.begin(10);
        work.progress.one_more();
        assert_eq!(work.progress.now(), Some((1, 10)));
        work.wait(Duration::from_secs(7)).await;
        assert_eq!(work.ended(), None, "it was given up waiting");

        let (broken, doing_two) = works.begin("two", &plan(), Instant::now() + LASTS);
        assert!(works.find("one").is_some(), "it goes on, however long");
        doing.end(Ok(1));
        work.wait(Duration::from_secs(7)).await;
        assert_eq!(works.find("one").unwrap().ended(), Some(Ok(1)));
        works.begin("three", &plan(), Instant::now() + LASTS);
        assert!(works.find("one").is_none() && works.find("two").is_some());
        drop(doing_two);
        broken.wait(Duration::from_secs(7)).await;
        assert!(
            matches!(broken.ended(), Some(Err(_))),
            "whoever did it is gone"
        );
    }
}
