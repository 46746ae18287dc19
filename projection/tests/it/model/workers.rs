//! Workers that apply what they are given, and die of it.

use std::{
    collections::VecDeque,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use chrono::{Days, Utc};
use clerk_sync_pipeline::{
    Event,
    telemetry::{Metrics, Outcome},
};
use clerk_sync_projection::{
    MissingEmail, Projection, ProjectionConfig, SnapshotOutcome, Unavailable, Verdict,
    change::Rules,
};
use clerk_sync_simulator::{self as simulator, Addressless};
use proptest::{prop_assert, test_runner::TestCaseError};
use sea_orm::ConnectionTrait as _;
use tokio::{
    task::{JoinSet, yield_now},
    time::Instant,
};

use super::{
    asked::Asked,
    case::{Case, Crash, Story, Work},
    fails,
};
use crate::{
    cancellation::polled,
    database::{Db, metrics},
};

/// Credits of a new user.
pub(super) const CREDITS: i32 = 7;
/// How long one batch may be bad weather.
const PATIENCE: Duration = Duration::from_secs(60);

/// Every delivery that was answered: the event's index, and its verdict.
pub(super) type Told = Vec<(usize, Verdict)>;

/// A database, and the workers that fill it.
pub(super) struct Receiver {
    pub(super) db: Db,
    pub(super) addressless: Addressless,
    config: ProjectionConfig,
    metrics: Arc<Metrics>,
    projection: Projection,
    workers: usize,
}

impl Receiver {
    pub(super) fn new(db: Db, addressless: Addressless, workers: usize) -> Self {
        let missing_email = match addressless {
            Addressless::Placeholder => MissingEmail::Placeholder,
            Addressless::DeadLetter => MissingEmail::DeadLetter,
        };
        let config = ProjectionConfig {
            rules: Rules {
                missing_email,
                ..Rules::default()
            },
            initial_credits: CREDITS,
        };
        let metrics = metrics();
        Self {
            projection: Projection::new(db.pool.clone(), config.clone(), metrics.clone()),
            db,
            addressless,
            config,
            metrics,
            workers,
        }
    }

    /// Delivers the case to the workers, each taking the next batch. A batch whose worker died
    /// goes to the end of the line.
    pub(super) async fn receive(
        self: &Arc<Self>,
        case: &Case,
        story: &Story,
    ) -> Result<Told, TestCaseError> {
        let line = Arc::new(Mutex::new(Line {
            work: story.line.clone().into(),
            crashes: case.crashes().into(),
        }));
        let events: Arc<[Event]> = story.events.clone().into();
        let history: Arc<[simulator::Event]> = story.history.events.clone().into();
        let mut running = JoinSet::new();
        for _ in 0..self.workers {
            let worker = Worker {
                receiver: self.clone(),
                events: events.clone(),
                history: history.clone(),
            };
            running.spawn(worker.run(line.clone()));
        }
        let told: Result<Vec<Told>, TestCaseError> = running.join_all().await.into_iter().collect();
        Ok(told?.concat())
    }

    /// Prunes the whole ledger, and delivers everything once more, in one batch.
    pub(super) async fn receive_again_without_a_ledger(
        &self,
        story: &Story,
    ) -> Result<Told, TestCaseError> {
        let tomorrow = Utc::now() + Days::new(1);
        self.projection.prune(tomorrow).await.map_err(fails)?;
        let mut batch = self.projection.read(&story.events);
        self.projection.apply(&mut batch).await.map_err(fails)?;
        let verdicts = batch.into_verdicts().into_iter();
        Ok(verdicts.map(|(verdict, _)| verdict).enumerate().collect())
    }

    /// Applies what Clerk says in the end, when somebody has asked it long after.
    pub(super) async fn mend(&self, story: &Story) -> Result<Vec<SnapshotOutcome>, TestCaseError> {
        let asked = Asked::long_after(&story.history.events);
        let applied = self.projection.apply_snapshots(&asked.snapshots()).await;
        applied.map_err(fails)
    }

    /// A projection that dies when the database has answered so many statements.
    fn doomed(&self, statements: usize) -> Projection {
        let left = AtomicUsize::new(statements);
        let mut pool = self.db.pool.clone();
        pool.set_metric_callback(move |_| {
            if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                resume_unwind(Box::new(Dies));
            }
        });
        Projection::new(pool, self.config.clone(), self.metrics.clone())
    }

    /// PostgreSQL only.
    async fn terminate_sessions(&self) -> Result<(), TestCaseError> {
        let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                         WHERE datname = current_database() AND pid <> pg_backend_pid() \
                         AND xact_start IS NOT NULL";
        let terminated = self.db.application.execute_unprepared(terminate).await;
        terminated.map(drop).map_err(fails)
    }
}

/// What is to be applied, and what is to befall whoever takes some of it.
struct Line {
    work: VecDeque<Work>,
    crashes: VecDeque<Option<Crash>>,
}

struct Worker {
    receiver: Arc<Receiver>,
    events: Arc<[Event]>,
    history: Arc<[simulator::Event]>,
}

impl Worker {
    async fn run(self, line: Arc<Mutex<Line>>) -> Result<Told, TestCaseError> {
        let mut told = Vec::new();
        loop {
            let (work, crash) = {
                let mut line = line.lock().unwrap();
                let Some(work) = line.work.pop_front() else {
                    return Ok(told);
                };
                (work, line.crashes.pop_front().flatten())
            };
            let done = match &work {
                Work::Events(batch) => match self.apply(batch, crash).await? {
                    Some(verdicts) => {
                        told.extend(batch.iter().copied().zip(verdicts));
                        true
                    }
                    None => false,
                },
                Work::Snapshots(moment) => self.apply_snapshots(*moment, crash).await?,
            };
            if !done {
                line.lock().unwrap().work.push_back(work);
            }
        }
    }

    /// The verdicts, unless the worker has died.
    async fn apply(
        &self,
        indices: &[usize],
        crash: Option<Crash>,
    ) -> Result<Option<Vec<Verdict>>, TestCaseError> {
        let projection = &self.receiver.projection;
        let events: Vec<&Event> = indices.iter().map(|index| &self.events[*index]).collect();
        let mut batch = projection.read(events.iter().copied());
        match crash {
            None => {}
            Some(Crash::AfterStatements(statements)) => {
                let doomed = self.receiver.doomed(statements);
                let applying = pin!(doomed.apply(&mut batch));
                until_it_dies(applying).await;
                return Ok(None);
            }
            Some(Crash::AfterPolls(polls)) => {
                polled(pin!(projection.apply(&mut batch)), polls).await;
                return Ok(None);
            }
            Some(Crash::OfSessions(polls)) => {
                let mut applying = pin!(projection.apply(&mut batch));
                if polled(applying.as_mut(), polls).await.is_none() {
                    self.receiver.terminate_sessions().await?;
                    // Whatever it says: what has no verdict yet is applied again below.
                    applying.await.ok();
                }
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while let Err(weather) = projection.apply(&mut batch).await {
            clears_up(weather, deadline).await?;
        }
        let verdicts = batch.into_verdicts().into_iter();
        let verdicts: Vec<Verdict> = verdicts.map(|(verdict, _)| verdict).collect();
        let dead: Vec<(&Event, Outcome)> = events
            .into_iter()
            .zip(&verdicts)
            .filter(|(_, verdict)| matches!(verdict, Verdict::DeadLetter(_)))
            .map(|(event, _)| (event, Outcome::DeadLettered))
            .collect();
        while let Err(weather) = projection.record(&dead).await {
            clears_up(weather, deadline).await?;
        }
        Ok(Some(verdicts))
    }
}

impl Worker {
    /// Applies the instance as it was then, unless the worker dies.
    async fn apply_snapshots(
        &self,
        moment: usize,
        crash: Option<Crash>,
    ) -> Result<bool, TestCaseError> {
        let asked = Asked::after(&self.history[..moment]);
        let (snapshots, projection) = (asked.snapshots(), &self.receiver.projection);
        match crash {
            None => {}
            Some(Crash::AfterStatements(statements)) => {
                let doomed = self.receiver.doomed(statements);
                until_it_dies(pin!(doomed.apply_snapshots(&snapshots))).await;
                return Ok(false);
            }
            Some(Crash::AfterPolls(polls)) => {
                polled(pin!(projection.apply_snapshots(&snapshots)), polls).await;
                return Ok(false);
            }
            Some(Crash::OfSessions(polls)) => {
                let mut applying = pin!(projection.apply_snapshots(&snapshots));
                if polled(applying.as_mut(), polls).await.is_none() {
                    self.receiver.terminate_sessions().await?;
                    applying.await.ok();
                }
            }
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match projection.apply_snapshots(&snapshots).await {
                Ok(outcomes) => {
                    let failed = |outcome: &_| matches!(outcome, SnapshotOutcome::Failed(_));
                    let failed: Vec<_> = outcomes.into_iter().filter(failed).collect();
                    prop_assert!(failed.is_empty(), "{failed:?}");
                    return Ok(true);
                }
                Err(weather) => clears_up(weather, deadline).await?,
            }
        }
    }
}

async fn clears_up(weather: Unavailable, deadline: Instant) -> Result<(), TestCaseError> {
    if Instant::now() > deadline {
        return Err(fails(weather));
    }
    yield_now().await;
    Ok(())
}

/// What unwinds a worker. It does not panic, so nobody is told.
struct Dies;

/// Drives a future to its end, or to its death.
async fn until_it_dies<F: Future>(mut future: Pin<&mut F>) {
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        match polled {
            Ok(poll) => poll.map(drop),
            Err(cause) if cause.is::<Dies>() => Poll::Ready(()),
            Err(panic) => resume_unwind(panic),
        }
    })
    .await;
}
