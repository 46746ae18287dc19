//! The embedded queue, and what it promises beyond the contract.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use clerk_sync_pipeline::{
    queue::{
        BatchLimits, Consume as _, Failure, Publish as _, PublishError, Reason, Rung, Settlement,
        embedded::{EmbeddedConsumer, EmbeddedParked, EmbeddedPublisher, EmbeddedQueue, OpenError},
    },
    telemetry::Metrics,
};
use rusqlite::Connection;

use crate::{
    contract::{
        self, DeadLetter, Queue, event, keeps_every_promise, ladder, one, publish, settle,
        settle_all_done, within,
    },
    parked::{Parking, keeps_every_promise_to_operators},
};

mod child;
mod operator;

keeps_every_promise!(Embedded);
keeps_every_promise_to_operators!(Embedded);

/// A queue in a folder of its own, which goes with it.
pub(crate) struct Embedded {
    queue: EmbeddedQueue,
    folder: Folder,
}

/// A folder for one test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("queue-{}-{next}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("queue.sqlite")
    }

    fn open(&self) -> Result<EmbeddedQueue, OpenError> {
        EmbeddedQueue::open(&self.file(), ladder(), Arc::new(Metrics::new(0)))
    }

    /// Opens a file whose last user has not closed it: its thread ends a moment later.
    async fn reopen(&self) -> EmbeddedQueue {
        within("the lock", async {
            loop {
                match self.open() {
                    Err(OpenError::InUse { .. }) => {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    opened => return opened.unwrap(),
                }
            }
        })
        .await
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Queue for Embedded {
    type Publisher = EmbeddedPublisher;
    type Consumer = EmbeddedConsumer;
    type Stall = Connection;

    async fn new() -> Self {
        let folder = Folder::new();
        let queue = folder.open().unwrap();
        Self { queue, folder }
    }

    async fn publisher(&mut self) -> EmbeddedPublisher {
        self.queue.publisher()
    }

    async fn consumers(&mut self, lanes: usize) -> Vec<EmbeddedConsumer> {
        (0..lanes).map(|_| self.queue.consumer()).collect()
    }

    async fn reopened(self) -> Self {
        let Self { queue, folder } = self;
        drop(queue);
        let queue = folder.reopen().await;
        Self { queue, folder }
    }

    async fn dead_letters(&mut self) -> Vec<DeadLetter> {
        let dead = self.queue.dead_letters(10_000).await.unwrap();
        dead.into_iter()
            .map(|dead| DeadLetter {
                event: dead.event,
                attempt: dead.attempt,
                first_failed_at: dead.first_failed_at,
                reason: Some(dead.reason),
                detail: Some(dead.detail),
            })
            .collect()
    }

    /// Somebody else holds the write lock. The queue waits for 2 s.
    async fn stall(&mut self) -> Connection {
        let connection = Connection::open(self.folder.file()).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        connection
    }

    async fn remove(self) {
        self.queue.close().await;
    }
}

impl Parking for Embedded {
    type Operator = EmbeddedParked;

    /// Beside the open queue, as an operator's process is.
    async fn operator(&self) -> EmbeddedParked {
        EmbeddedParked::open(&self.folder.file()).unwrap()
    }
}

#[tokio::test]
async fn a_second_open_is_refused_and_says_what_to_do() {
    let folder = Folder::new();
    let queue = folder.open().unwrap();
    let Err(error) = folder.open() else {
        panic!("opened twice");
    };
    assert!(matches!(error, OpenError::InUse { .. }));
    let text = error.to_string();
    for part in [
        folder.file().to_str().unwrap(),
        "another clerk-sync",
        "RabbitMQ",
    ] {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
    queue.close().await;
    folder.open().unwrap().close().await;
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_and_left_alone() {
    let folder = Folder::new();
    folder.open().unwrap().close().await;
    let connection = Connection::open(folder.file()).unwrap();
    connection.execute_batch("PRAGMA user_version = 7").unwrap();
    drop(connection);
    let before = fs::read(folder.file()).unwrap();
    let Err(error) = folder.open() else {
        panic!("opened");
    };
    assert!(matches!(error, OpenError::NewerSchema { found: 7, .. }));
    assert!(
        error.to_string().contains(folder.file().to_str().unwrap()),
        "{error}"
    );
    assert!(fs::read(folder.file()).unwrap() == before);
}

#[tokio::test]
async fn what_is_not_a_queue_is_refused_and_left_alone() {
    let folder = Folder::new();
    let connection = Connection::open(folder.file()).unwrap();
    connection.execute_batch("CREATE TABLE users (id)").unwrap();
    drop(connection);
    let database = folder.open().err().unwrap();
    assert!(
        matches!(database, OpenError::NotAQueue { .. }),
        "{database}"
    );

    fs::write(
        folder.file(),
        "not a database, but long enough to be looked at".repeat(100),
    )
    .unwrap();
    let text = folder.open().err().unwrap();
    assert!(matches!(text, OpenError::Sqlite { .. }), "{text}");

    let nowhere = folder.0.join("missing").join("queue.sqlite");
    let missing = EmbeddedQueue::open(&nowhere, ladder(), Arc::new(Metrics::new(0)))
        .err()
        .unwrap();
    assert!(matches!(missing, OpenError::Io { .. }), "{missing}");
    for error in [database, text, missing] {
        assert!(
            error.to_string().contains(folder.0.to_str().unwrap()),
            "{error}"
        );
    }
}

#[tokio::test]
async fn only_the_owner_may_read_the_files() {
    let folder = Folder::new();
    let queue = folder.open().unwrap();
    publish(&queue.publisher(), &["msg_1"]).await;
    let mut names = BTreeSet::new();
    for file in fs::read_dir(&folder.0).unwrap() {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name} has {mode:o}");
        names.insert(name);
    }
    assert!(names.contains("queue.sqlite-wal"), "{names:?}");
    queue.close().await;
}

#[tokio::test]
async fn depths_tell_where_the_events_are() {
    let folder = Folder::new();
    let queue = folder.open().unwrap();
    let publisher = queue.publisher();
    publish(&publisher, &["msg_1", "msg_2", "msg_3", "msg_4", "msg_5"]).await;
    let mut consumer = queue.consumer();
    let failure = || Failure::new(Reason::EmailTaken, "");
    let delivery = one(&mut consumer).await;
    settle(
        &mut consumer,
        delivery,
        Settlement::Retry(Rung(1), failure()),
    )
    .await;
    let delivery = one(&mut consumer).await;
    settle(&mut consumer, delivery, Settlement::DeadLetter(failure())).await;
    let _held = one(&mut consumer).await;
    let depths = queue.depths().await.unwrap();
    let rungs = [Duration::from_millis(200), Duration::from_millis(400)];
    assert_eq!(depths.delayed, [(rungs[0], 0), (rungs[1], 1)]);
    assert_eq!((depths.ready, depths.in_flight, depths.dead), (2, 1, 1));
    drop(consumer);
    queue.close().await;
}

#[tokio::test]
async fn the_oldest_events_come_first() {
    let folder = Folder::new();
    let queue = folder.open().unwrap();
    let publisher = queue.publisher();
    let published: Vec<_> = (0..50).map(|n| format!("msg_{n}")).collect();
    for id in &published {
        publish(&publisher, &[id]).await;
    }
    let mut consumer = queue.consumer();
    assert_eq!(
        contract::ids(&contract::batch(&mut consumer, 50).await),
        published
    );
    drop(consumer);
    queue.close().await;
}

#[tokio::test]
async fn close_finishes_what_is_queued() {
    let folder = Folder::new();
    let queue = folder.open().unwrap();
    let publisher = queue.publisher();
    let publishes: Vec<_> = (0..100)
        .map(|n| {
            let publisher = publisher.clone();
            tokio::spawn(async move { publisher.publish(event(&format!("msg_{n}"))).await })
        })
        .collect();
    tokio::task::yield_now().await;
    let mut consumer = queue.consumer();
    within("close", queue.close()).await;
    let mut confirmed = 0;
    for publish in publishes {
        confirmed += u64::from(publish.await.unwrap().is_ok());
    }
    assert!(confirmed > 0);
    assert!(
        !folder.0.join("queue.sqlite-wal").exists(),
        "the log is folded in"
    );

    let late = publisher.publish(event("msg_late")).await;
    assert!(
        matches!(late, Err(PublishError::Unavailable(_))),
        "{late:?}"
    );
    contract::nothing_comes(&mut consumer).await;
    consumer.hand_back().await;

    // The lock is free, though a publisher and a consumer are left.
    let queue = folder.open().unwrap();
    assert_eq!(queue.depths().await.unwrap().ready, confirmed);
    queue.close().await;
}

#[tokio::test]
async fn metrics_tell_of_the_connection_and_the_confirms() {
    let folder = Folder::new();
    let metrics = Arc::new(Metrics::new(0));
    let queue = EmbeddedQueue::open(&folder.file(), ladder(), metrics.clone()).unwrap();
    publish(&queue.publisher(), &["msg_1", "msg_2"]).await;
    assert_eq!(metrics.queue_connected.get(), 1);
    assert_eq!(metrics.publish_duration.get_sample_count(), 2);
    queue.close().await;
    assert_eq!(metrics.queue_connected.get(), 0);
}

#[tokio::test]
async fn a_full_queue_refuses_publishes_until_it_is_emptied() {
    const BYTES: u64 = 1 << 20;
    let folder = Folder::new();
    let metrics = Arc::new(Metrics::new(0));
    let queue = EmbeddedQueue::open_bounded(&folder.file(), ladder(), metrics, BYTES).unwrap();
    let publisher = queue.publisher();
    let big = |n: usize| contract::sized_event(&format!("msg_{n}"), 50_000);
    let mut accepted = 0;
    let refused = loop {
        match publisher.publish(big(accepted)).await {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 100);
    };
    assert!(
        (15..=21).contains(&accepted),
        "{accepted} of 50 kB in 1 MiB"
    );
    assert!(matches!(refused, PublishError::Unavailable(_)), "{refused}");
    assert!(refused.to_string().contains("1048576"), "{refused}");
    let mut consumer = queue.consumer();
    let batch = contract::batch(&mut consumer, accepted).await;
    settle_all_done(&mut consumer, batch).await;
    publisher.publish(big(0)).await.unwrap();
    drop(consumer);
    queue.close().await;
}

/// Somebody's tool holds the file for longer than the queue is patient.
#[tokio::test]
async fn a_locked_file_is_an_outage_that_ends() {
    let folder = Folder::new();
    let metrics = Arc::new(Metrics::new(0));
    let queue = EmbeddedQueue::open(&folder.file(), ladder(), metrics.clone()).unwrap();
    let publisher = queue.publisher();
    publish(&publisher, &["msg_1", "msg_2", "msg_3"]).await;
    let mut consumer = queue.consumer();
    let mut other = queue.consumer();
    let first = one(&mut consumer).await;
    let _held = one(&mut other).await;

    let lock = Connection::open(folder.file()).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = within("publish", publisher.publish(event("msg_4"))).await;
    assert!(
        matches!(refused, Err(PublishError::Unavailable(_))),
        "{refused:?}"
    );
    assert_eq!(metrics.queue_connected.get(), 0);
    let settled = consumer.settle(vec![(first, Settlement::Done)]);
    within("settle", settled).await.unwrap_err();
    // Released into the outage, with nobody to try again but the other lane that waits.
    drop(other);
    drop(lock);

    // What was held comes again, in any order, and the one never taken comes too.
    let batch = contract::batch(&mut consumer, 3).await;
    let mut came: Vec<_> = batch
        .iter()
        .map(|delivery| (delivery.event.id.as_str(), delivery.redeliveries))
        .collect();
    came.sort_unstable();
    assert_eq!(came, [("msg_1", 1), ("msg_2", 1), ("msg_3", 0)]);
    settle_all_done(&mut consumer, batch).await;
    publish(&publisher, &["msg_5"]).await;
    assert_eq!(metrics.queue_connected.get(), 1);
    drop(consumer);
    queue.close().await;
}

/// A clock that was a day ahead when the last process ran: everything would wait for a day.
#[tokio::test]
async fn a_clock_that_was_ahead_hides_nothing() {
    let folder = Folder::new();
    let queue = folder.open().unwrap();
    publish(&queue.publisher(), &["msg_fresh", "msg_retry"]).await;
    let mut consumer = queue.consumer();
    let batch = contract::batch(&mut consumer, 2).await;
    let failure = Failure::new(Reason::EmailTaken, "");
    for delivery in batch {
        let how = Settlement::Retry(Rung(1), failure.clone());
        settle(&mut consumer, delivery, how).await;
    }
    drop(consumer);
    queue.close().await;
    let connection = Connection::open(folder.file()).unwrap();
    connection
        .execute_batch(
            "UPDATE events SET visible_at = visible_at + 86400000;
             UPDATE events SET delay = 0 WHERE event_id = 'msg_fresh';",
        )
        .unwrap();
    drop(connection);
    let queue = folder.open().unwrap();
    let mut consumer = queue.consumer();
    contract::batch(&mut consumer, 2).await;
    drop(consumer);
    queue.close().await;
}

/// The statements that run for each batch must not read what they do not need: with a million
/// events waiting or dead, a scan would stop the queue.
#[tokio::test]
async fn a_long_backlog_does_not_slow_a_batch() {
    const BACKLOG: i64 = 100_000;
    let folder = Folder::new();
    folder.open().unwrap().close().await;
    let connection = Connection::open(folder.file()).unwrap();
    connection
        .execute(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1)
             INSERT INTO events (event_id, type, received_at, attempted_at, state, visible_at,
                                 delay, reason, detail, body)
             SELECT 'msg_' || n, 'user.updated', 0, 0, iif(n % 3 = 0, 'dead', 'apply'),
                    iif(n % 3 = 1, 0, 8640000000000000), 8640000000000000, '', '', zeroblob(500)
             FROM n",
            [BACKLOG],
        )
        .unwrap();
    drop(connection);
    let queue = folder.open().unwrap();
    let mut consumer = queue.consumer();
    let limits = BatchLimits {
        events: 100,
        linger: Duration::ZERO,
    };
    let started = std::time::Instant::now();
    for _ in 0..100 {
        let batch = consumer.next_batch(limits).await;
        assert_eq!(batch.len(), 100);
        settle_all_done(&mut consumer, batch).await;
        consumer.hand_back().await;
    }
    // 300 transactions; each scan of the table would cost 10 ms or more.
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?} for 10,000 events");
    drop(consumer);
    queue.close().await;
}
