//! Deeds that were begun: how far they are, and how they ended.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
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

/// How long a deed is remembered, from its beginning; longer while it goes on.
const LASTS: Duration = Duration::from_secs(15 * 60);

const BROKEN_OFF: &str = "A fault of this program broke it off; some letters may have been moved.";

/// Deeds by the names of their plans.
#[derive(Default)]
pub(crate) struct Jobs(HashMap<String, Arc<Job>>);

/// A deed that is being done, or was.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) deed: Deed,
    pub(crate) place: Place,
    /// How many letters it is about.
    pub(crate) letters: u64,
    pub(crate) progress: Progress,
    begun_at: Instant,
    ended: watch::Receiver<Option<Ended>>,
}

/// To how many letters it was done, or why not to all.
pub(crate) type Ended = Result<u64, String>;

/// Letters that were looked at for it, and how many there are.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    seen: AtomicU64,
    total: OnceLock<u64>,
}

impl Progress {
    pub(crate) fn start(&self, total: u64) {
        self.total.get_or_init(|| total);
    }

    pub(crate) fn one_more(&self) {
        self.seen.fetch_add(1, Ordering::Relaxed);
    }

    /// Seen and total; `None` until the letters are counted.
    pub(crate) fn so_far(&self) -> Option<(u64, u64)> {
        let total = *self.total.get()?;
        Some((self.seen.load(Ordering::Relaxed).min(total), total))
    }
}

impl Jobs {
    /// A deed begins; whoever does it sends how it ended. They are few: each was counted by a walk
    /// before, and there is one walk at a time.
    pub(crate) fn begin(
        &mut self,
        name: &str,
        plan: &Plan,
        now: Instant,
    ) -> (Arc<Job>, watch::Sender<Option<Ended>>) {
        self.0
            .retain(|_, job| job.ended().is_none() || now.duration_since(job.begun_at) < LASTS);
        let (end, ended) = watch::channel(None);
        let job = Arc::new(Job {
            deed: plan.deed,
            place: plan.place,
            letters: plan.tally.total(),
            progress: Progress::default(),
            begun_at: now,
            ended,
        });
        self.0.insert(name.to_owned(), job.clone());
        (job, end)
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Job>> {
        self.0.get(name).cloned()
    }
}

impl Job {
    /// How it ended; `None` while it goes on.
    pub(crate) fn ended(&self) -> Option<Ended> {
        // Looked at first: what is sent before the sender goes is seen then.
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
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deed_tells_how_far_it_is_and_for_a_while_how_it_ended() {
        let plan = Plan::example(Deed::Discard);
        let mut jobs = Jobs::default();
        let (job, end) = jobs.begin("one", &plan, Instant::now());
        assert_eq!((job.letters, job.progress.so_far()), (1, None));
        job.progress.start(10);
        job.progress.one_more();
        assert_eq!(job.progress.so_far(), Some((1, 10)));
        job.wait(Duration::from_secs(7)).await;
        assert_eq!(job.ended(), None, "it goes on, and the wait is over");

        let (broken, broken_off) = jobs.begin("two", &plan, Instant::now() + LASTS);
        assert!(jobs.find("one").is_some(), "it goes on, however long");
        end.send_replace(Some(Ok(1)));
        job.wait(Duration::from_secs(7)).await;
        assert_eq!(jobs.find("one").unwrap().ended(), Some(Ok(1)));
        jobs.begin("three", &plan, Instant::now() + LASTS);
        assert!(jobs.find("one").is_none() && jobs.find("two").is_some());

        drop(broken_off);
        broken.wait(Duration::from_secs(7)).await;
        assert!(matches!(broken.ended(), Some(Err(_))), "nobody does it");
    }
}
