//! The queue of `clerk-sync up`: one SQLite file, for one process.
//!
//! Enters: events. Leaves: deliveries, as from RabbitMQ: the same retry ladder, dead letters and
//! delivery counts. Guaranteed: a confirmed event survives `kill -9` and a power failure until it
//! is settled. It never serves two processes: the second to open the file is refused.
//!
//! One thread owns the connection ([`writer`]) and commits in groups; publishers and consumers
//! send it commands over a bounded channel. Nothing here blocks the runtime.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::timeout,
};

use super::{CONFIRM_TIMEOUT, MAX_UNCONFIRMED, Publish, PublishError, RetryLadder, Topology};
use crate::{
    event::{Event, Millis},
    telemetry::Metrics,
};

pub use consumer::EmbeddedConsumer;

use command::{Answer, Command};
use writer::{Ready, Writer};

mod command;
mod consumer;
mod store;
mod writer;

/// Commands that may wait for the thread: every publish that holds a permit, so that a permit is
/// always worth a place, and 64 for consumers, which have one or two each.
const COMMANDS: usize = MAX_UNCONFIRMED + 64;

/// Why the file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another queue holds the file's lock.
    #[error(
        "{path} is in use: another clerk-sync runs on this data folder. Stop it first, or give \
         this one a folder of its own; to run several processes on one queue, use RabbitMQ \
         (AMQP_URL)"
    )]
    InUse {
        /// The queue's file.
        path: PathBuf,
    },
    /// Written by a later version of this program.
    #[error(
        "{path} was written by a newer clerk-sync (schema {found}, this one knows {}): run that \
         version, or move the file away to start with an empty queue",
        store::SCHEMA_VERSION
    )]
    NewerSchema {
        /// The queue's file.
        path: PathBuf,
        /// The file's schema version.
        found: i64,
    },
    /// A database, but not one of ours.
    #[error("{path} is the database of another program, not a queue of clerk-sync")]
    NotAQueue {
        /// The file.
        path: PathBuf,
    },
    /// The file, its lock or its thread could not be made.
    #[error("cannot open the queue {path}: {source}")]
    Io {
        /// The queue's file, or its lock's.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// SQLite refuses the file.
    #[error("cannot open the queue {path}: {source}")]
    Sqlite {
        /// The queue's file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

/// The queue did not answer a question about its contents.
#[derive(Debug, thiserror::Error)]
#[error("the queue does not answer: {0}")]
pub struct Unreadable(String);

/// How many events are where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Depths {
    /// Ready to be handed out.
    pub ready: u64,
    /// Waiting out a delay: every rung of the ladder, shortest first, and delays of a former
    /// ladder that still hold something.
    pub delayed: Vec<(Duration, u64)>,
    /// Handed out and not answered.
    pub in_flight: u64,
    /// Dead letters.
    pub dead: u64,
}

/// An event that is kept for a human.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// What was published.
    pub event: Event,
    /// How often applying it had failed, this time included.
    pub attempt: u32,
    /// When it first failed.
    pub first_failed_at: Option<Millis>,
    /// The code of a [`super::Reason`], or [`DELIVERY_LIMIT_REASON`].
    pub reason: String,
    /// One line for an operator.
    pub detail: String,
}

/// The reason of an event that was handed out too often without an answer: the queue's own
/// judgement, as RabbitMQ's `delivery_limit`.
pub const DELIVERY_LIMIT_REASON: &str = "delivery_limit";

/// An open queue file. Publishers and consumers outlive it only until [`EmbeddedQueue::close`].
pub struct EmbeddedQueue {
    handle: Handle,
    thread: JoinHandle<()>,
}

/// What publishers and consumers know of the queue.
#[derive(Clone)]
struct Handle {
    commands: mpsc::Sender<Command>,
    permits: Arc<Semaphore>,
    ready: watch::Receiver<Ready>,
    released: Released,
    last_holder: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
}

/// Holders whose rows are to become free again. A list beside the channel, because a consumer that
/// is dropped cannot wait for a place in it; it is as long as there are consumers.
#[derive(Clone, Default)]
struct Released(Arc<Mutex<Vec<u64>>>);

impl Released {
    fn push(&self, holder: u64) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(holder);
    }

    fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl EmbeddedQueue {
    /// Opens the file, or creates it, readable by its owner only. Events that a former process
    /// held and did not answer are ready again.
    ///
    /// # Errors
    /// In use by another process, of a newer version, or not to be opened; each names the file.
    pub fn open(
        path: &Path,
        ladder: RetryLadder,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        Self::open_bounded(path, ladder, metrics, Topology::DEFAULT_MAX_LENGTH_BYTES)
    }

    /// As [`EmbeddedQueue::open`], with the size of the file's contents in bytes from which on
    /// publishes are refused. Settling goes on, so a full queue empties.
    ///
    /// # Errors
    /// As [`EmbeddedQueue::open`].
    pub fn open_bounded(
        path: &Path,
        ladder: RetryLadder,
        metrics: Arc<Metrics>,
        max_bytes: u64,
    ) -> Result<Self, OpenError> {
        let lock = lock(path)?;
        let clock = Clock::start();
        let connection = store::open(path, clock.now())?;
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (ready_sender, ready) = watch::channel(Ready::default());
        let released = Released::default();
        let writer = Writer::new(
            connection,
            clock,
            ladder,
            max_bytes,
            ready_sender,
            released.clone(),
            metrics.queue_connection(),
        );
        let thread = thread::Builder::new()
            .name("embedded-queue".to_owned())
            .spawn(move || writer.run(inbox, &lock))
            .map_err(|source| OpenError::Io {
                path: path.to_owned(),
                source,
            })?;
        let handle = Handle {
            commands,
            permits: Arc::new(Semaphore::new(MAX_UNCONFIRMED)),
            ready,
            released,
            last_holder: Arc::default(),
            metrics,
        };
        Ok(Self { handle, thread })
    }

    /// The ingester's side.
    #[must_use]
    pub fn publisher(&self) -> EmbeddedPublisher {
        EmbeddedPublisher(self.handle.clone())
    }

    /// A lane of the worker's side. Lanes share the events, each is handed to one of them.
    #[must_use]
    pub fn consumer(&self) -> EmbeddedConsumer {
        EmbeddedConsumer::new(self.handle.clone())
    }

    /// How many events are where, at this moment.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn depths(&self) -> Result<Depths, Unreadable> {
        self.ask(|answer| Command::Depths { answer }).await
    }

    /// The oldest dead letters.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, Unreadable> {
        self.ask(|answer| Command::DeadLetters { limit, answer })
            .await
    }

    /// Finishes what is queued, folds the log into the file and releases the lock. Publishers that
    /// are left get errors, consumers wait for ever.
    pub async fn close(self) {
        let (answer, closed) = oneshot::channel();
        if self
            .handle
            .commands
            .send(Command::Close { answer })
            .await
            .is_ok()
        {
            // An error: the thread panicked, which `join` tells.
            let _ = closed.await;
        }
        // It has said its last word, so this does not block.
        if self.thread.join().is_err() {
            tracing::error!("the embedded queue's thread has panicked");
        }
    }

    async fn ask<T>(&self, question: impl FnOnce(Answer<T>) -> Command) -> Result<T, Unreadable> {
        let (answer, answered) = Answer::new();
        let closed = || Unreadable(CLOSED.to_owned());
        self.handle
            .commands
            .send(question(answer))
            .await
            .map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?.map_err(Unreadable)
    }
}

const CLOSED: &str = "the queue is closed";

/// Publishes into the file.
#[derive(Clone)]
pub struct EmbeddedPublisher(Handle);

impl Publish for EmbeddedPublisher {
    async fn publish(&self, event: Event) -> Result<(), PublishError> {
        let queue = &self.0;
        let started = Instant::now();
        let Ok(permit) = queue.permits.clone().try_acquire_owned() else {
            return Err(PublishError::Overloaded);
        };
        let (answer, confirmed) = Answer::new();
        // The permit travels with the event: a request that gives up does not make room.
        queue
            .commands
            .try_send(Command::Publish {
                event,
                answer,
                permit,
            })
            .map_err(|refused| match refused {
                mpsc::error::TrySendError::Full(_) => PublishError::Overloaded,
                mpsc::error::TrySendError::Closed(_) => {
                    PublishError::Unavailable(CLOSED.to_owned())
                }
            })?;
        // Answered after the commit, and the commit is after the fsync.
        match timeout(CONFIRM_TIMEOUT, confirmed).await {
            Ok(Ok(Ok(()))) => {
                queue
                    .metrics
                    .publish_duration
                    .observe(started.elapsed().as_secs_f64());
                Ok(())
            }
            Ok(Ok(Err(detail))) => Err(PublishError::Unavailable(detail)),
            Ok(Err(_)) => Err(PublishError::Unavailable(CLOSED.to_owned())),
            Err(_) => Err(PublishError::Unavailable(format!(
                "no commit in {CONFIRM_TIMEOUT:?}"
            ))),
        }
    }
}

/// Takes the lock that lives as long as the queue's thread. The lock is on a file of its own:
/// SQLite's locks on the database are not ours to touch.
fn lock(path: &Path) -> Result<File, OpenError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let failed = |source| OpenError::Io {
        path: lock_path.clone(),
        source,
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(store::FILE_MODE)
        .open(&lock_path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Unix time as of the opening, carried on by the monotonic clock: when the system's clock is set,
/// nothing becomes invisible and no delay shrinks.
struct Clock {
    started: Instant,
    started_at: Millis,
}

impl Clock {
    fn start() -> Self {
        Self {
            started: Instant::now(),
            started_at: Millis::now(),
        }
    }

    fn now(&self) -> Millis {
        let elapsed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        Millis(self.started_at.0.saturating_add(elapsed))
    }

    /// The instant at which [`Clock::now`] reaches `at`.
    fn instant(&self, at: Millis) -> Instant {
        let after_start = u64::try_from(at.0.saturating_sub(self.started_at.0)).unwrap_or(0);
        self.started + Duration::from_millis(after_start)
    }
}

impl Handle {
    fn next_holder(&self) -> u64 {
        self.last_holder.fetch_add(1, Ordering::Relaxed) + 1
    }
}
