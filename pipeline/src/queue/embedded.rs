//! The queue of `clerk-sync up`: one SQLite file, for one process.
//!
//! Enters: events. Leaves: deliveries, as from RabbitMQ: the same retry ladder, dead letters and
//! delivery counts. Guaranteed: a confirmed event survives `kill -9` and a power failure until it
//! is settled. It never serves two processes: the second to open the file is refused. An operator's
//! look at the dead letters (`parked`) is no queue, and welcome at any time.
//!
//! One thread owns the connection (`writer`) and commits in groups; publishers and consumers
//! send it commands over a bounded channel. Nothing here blocks the runtime.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::{MAX_UNCONFIRMED, RetryLadder, Topology};
use crate::{
    event::{Event, Millis},
    telemetry::Metrics,
};

pub use consumer::EmbeddedConsumer;
pub use gauge::EmbeddedGauge;
pub use parked::EmbeddedParked;
pub use publisher::EmbeddedPublisher;

use clock::Clock;
use command::{Answer, Command};
use writer::{Ready, Signs, Writer};

mod clock;
mod command;
mod consumer;
mod dead;
mod file;
mod gauge;
mod parked;
mod publisher;
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
        file::SCHEMA_VERSION
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
    /// There is no file, or nothing in it yet.
    #[error(
        "there is no queue at {path}: name the data folder that `clerk-sync up` runs with \
         (--data, CLERK_SYNC_DATA), or RabbitMQ's address (--amqp-url, AMQP_URL)"
    )]
    Missing {
        /// Where it was looked for.
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
    /// The code of a [`super::Reason`], or [`super::parked::DELIVERY_LIMIT`].
    pub reason: String,
    /// One line for an operator.
    pub detail: String,
}

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
    problem: watch::Receiver<Option<String>>,
    last_holder: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
}

impl Handle {
    fn next_holder(&self) -> u64 {
        self.last_holder.fetch_add(1, Ordering::Relaxed) + 1
    }
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
    /// # Panics
    /// Outside of a tokio runtime.
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
        let lock = file::lock(path)?;
        let clock = Clock::start();
        let connection = file::open(path, clock.now())?;
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (ready_sender, ready) = watch::channel(Ready::default());
        let released = Released::default();
        let (problem_sender, problem) = watch::channel(None);
        let writer = Writer::new(
            connection,
            clock,
            ladder,
            max_bytes,
            Signs {
                ready: ready_sender,
                problem: problem_sender,
                connected: metrics.queue_connection(),
            },
            released.clone(),
            tokio::runtime::Handle::current(),
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
            problem,
            last_holder: Arc::default(),
            metrics,
        };
        Ok(Self { handle, thread })
    }

    /// The ingester's side.
    #[must_use]
    pub fn publisher(&self) -> EmbeddedPublisher {
        EmbeddedPublisher::new(self.handle.clone())
    }

    /// A lane of the worker's side. Lanes share the events, each is handed to one of them.
    #[must_use]
    pub fn consumer(&self) -> EmbeddedConsumer {
        EmbeddedConsumer::new(self.handle.clone())
    }

    /// Why the file cannot be written, as long as that is so.
    #[must_use]
    pub fn problem(&self) -> watch::Receiver<Option<String>> {
        self.handle.problem.clone()
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
