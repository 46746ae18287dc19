//! What the whole thing is for: whatever the order, the right table.

use crate::harness::{
    SOON,
    clerk::{self, Letter, SECRET, created, deleted, deliver_all, fixtures, shuffled, updated},
    eventually,
    process::{Env, Process, base_env, run},
    servers::{Row, TestDb, TestQueue},
};

fn up_env(db: &TestDb, folder: &tempfile::TempDir) -> Env {
    let mut env = base_env();
    env.insert("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned());
    env.insert("DATABASE_URL", db.url.expose().to_string());
    env.insert("CLERK_SYNC_DATA", folder.path().display().to_string());
    env
}

/// The rows in which the fixtures' story ends.
fn end_of_the_story() -> Vec<Row> {
    let row = |id: &str, email: &str, name: Option<&str>| {
        (id.to_owned(), email.to_owned(), name.map(str::to_owned))
    };
    let id_of = |fixture: &str| -> String {
        let event: serde_json::Value = serde_json::from_slice(&clerk::fixture(fixture)).unwrap();
        event["data"]["id"].as_str().unwrap().to_owned()
    };
    let mut rows = vec![
        row(
            &id_of("user_created_email_reused_after_delete"),
            "maren.holt@quayside.example",
            Some("Maren Holt"),
        ),
        row(
            &id_of("user_created_unicode_null_names_large_metadata"),
            "用户+テスト@例え.example",
            None,
        ),
    ];
    rows.sort();
    rows
}

async fn the_story_ends_well(db: TestDb, queue: Option<&TestQueue>) {
    let folder = tempfile::tempdir().unwrap();
    let mut env = up_env(&db, &folder);
    if let Some(queue) = queue {
        queue.env(&mut env);
    }
    let up = Process::start("clerk-sync", &["up"], &env);
    let url = up.webhook_url().await;
    up.ready().await;

    let letters = fixtures();
    let deliveries = shuffled(&letters, rand::random());
    deliver_all(&url, &deliveries).await;
    let sent = deliveries.len() as f64;
    eventually("every delivery has an outcome", SOON, async || {
        up.metric("clerk_sync_events_total", "").await >= sent
    })
    .await;

    assert_eq!(db.users().await, end_of_the_story(), "{}", up.output());
    assert_eq!(db.ledger().await, i64::try_from(letters.len()).unwrap());
    // Outcomes add up to the deliveries, and to the webhooks that were accepted.
    assert!((up.metric("clerk_sync_events_total", "").await - sent).abs() < 0.5);
    let accepted = up
        .metric("clerk_sync_webhook_requests_total", "accepted")
        .await;
    assert!((accepted - sent).abs() < 0.5);
    let twice = up.metric("clerk_sync_events_total", "duplicate").await;
    let dead = up.metric("clerk_sync_events_total", "dead_lettered").await;
    // A dead-lettered event was not applied, so its second delivery is no duplicate.
    assert!(
        twice > 0.0 && dead >= 2.0,
        "{twice} duplicates, {dead} dead letters"
    );
    up.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fixture_embedded_with_sqlite() {
    the_story_ends_well(TestDb::sqlite().await, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fixture_embedded_with_postgresql() {
    the_story_ends_well(TestDb::postgres().await, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fixture_through_rabbitmq_with_sqlite() {
    let queue = TestQueue::bare("5s,30s,2m,10m,1h").await;
    the_story_ends_well(TestDb::sqlite().await, Some(&queue)).await;
    queue.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fixture_through_rabbitmq_with_postgresql() {
    let queue = TestQueue::bare("5s,30s,2m,10m,1h").await;
    the_story_ends_well(TestDb::postgres().await, Some(&queue)).await;
    queue.remove().await;
}

/// One ingester and some workers, as separate processes.
struct Fleet {
    db: TestDb,
    queue: TestQueue,
    worker_env: Env,
    ingest: Process,
    workers: Vec<Process>,
    url: String,
}

impl Fleet {
    async fn start(workers: usize) -> Self {
        let db = TestDb::postgres().await.migrated().await;
        let queue = TestQueue::new().await;
        let mut ingest_env = base_env();
        queue.env(&mut ingest_env);
        let mut worker_env = ingest_env.clone();
        ingest_env.insert("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned());
        worker_env.insert("DATABASE_URL", db.url.expose().to_string());
        worker_env.insert("INITIAL_CREDITS", "10".to_owned());
        let ingest = Process::start("clerk-sync-ingest", &[], &ingest_env);
        let url = ingest.webhook_url().await;
        ingest.ready().await;
        let start = |_| Process::start("clerk-sync-worker", &[], &worker_env);
        let workers: Vec<Process> = (0..workers).map(start).collect();
        for worker in &workers {
            worker.ready().await;
        }
        Self {
            db,
            queue,
            worker_env,
            ingest,
            workers,
            url,
        }
    }

    async fn applied(&self, events: usize) {
        let all = i64::try_from(events).unwrap();
        eventually("every event is in the ledger", SOON * 2, async || {
            self.db.ledger().await == all
        })
        .await;
        let apply = self.queue.server.topology.apply();
        eventually("the queue is empty", SOON, async || {
            self.queue.depth(&apply).await == 0
        })
        .await;
    }

    async fn end(self) {
        self.ingest.stop().await;
        for worker in self.workers {
            worker.stop().await;
        }
        self.queue.remove().await;
        self.db.remove().await;
    }
}

/// `people` users: created, some updated, some deleted; and the rows that must be left.
fn crowd(people: usize) -> (Vec<Letter>, Vec<Row>) {
    let mut letters = Vec::new();
    let mut rows = Vec::new();
    for number in 0..people {
        let id = format!("user_{number:05}");
        let email = format!("p{number}@crowd.example");
        letters.push(created(&id, &email));
        letters.push(updated(&id, &email, 2));
        letters.push(updated(&id, &email, 1));
        if number % 5 == 0 {
            letters.push(deleted(&id));
        } else {
            rows.push((id, email, Some("U 2".to_owned())));
        }
    }
    (letters, rows)
}

#[tokio::test(flavor = "multi_thread")]
async fn three_workers_compete_and_are_killed_and_nothing_is_lost_or_applied_twice() {
    let mut fleet = Fleet::start(3).await;
    let (letters, rows) = crowd(400);
    let deliveries = shuffled(&letters, rand::random());
    let url = fleet.url.clone();
    let sending = tokio::spawn(async move { deliver_all(&url, &deliveries).await });
    for _ in 0..6 {
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
        fleet.workers.remove(0).kill().await;
        fleet
            .workers
            .push(Process::start("clerk-sync-worker", &[], &fleet.worker_env));
    }
    sending.await.unwrap();
    fleet.applied(letters.len()).await;

    assert_eq!(fleet.db.users().await, rows);
    // Applied twice would be granted twice.
    let credits = fleet.db.count("SELECT count(*) FROM credits").await;
    assert_eq!(credits, i64::try_from(rows.len()).unwrap());
    let dead = fleet.queue.server.topology.dead();
    assert_eq!(fleet.queue.depth(&dead).await, 0);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_delivery_at_several_workers_has_one_effect() {
    let fleet = Fleet::start(3).await;
    let letter = created("user_twice", "twice@a.example");
    let copies = vec![letter.clone(); 60];
    deliver_all(&fleet.url, &copies).await;
    fleet.applied(1).await;
    let counted = async |outcome: &str| {
        let mut sum = 0.0;
        for worker in &fleet.workers {
            sum += worker.metric("clerk_sync_events_total", outcome).await;
        }
        sum
    };
    eventually("every copy has an outcome", SOON, async || {
        counted("outcome").await >= 60.0
    })
    .await;
    let outcomes = (
        counted("outcome=\"created\"").await,
        counted("outcome=\"duplicate\"").await,
    );
    assert_eq!(outcomes, (1.0, 59.0));
    assert_eq!(fleet.db.count("SELECT count(*) FROM credits").await, 1);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn send_takes_a_shuffled_crowd_with_duplicates_to_the_right_table() {
    let fleet = Fleet::start(2).await;
    let env = Env::from([
        ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned()),
        ("WEBHOOK_URL", fleet.url.clone()),
    ]);
    let count = 1500;
    let args = [
        "send",
        "--all",
        "--count",
        &count.to_string(),
        "--shuffle",
        "--duplicate",
        "10",
    ];
    let (status, stdout, stderr) = run("clerk-sync", &args, &env).await;
    assert!(status.success(), "{stdout}{stderr}");
    assert!(stdout.contains("204"), "{stdout}");
    fleet.applied(count).await;
    // Each round of the 15 samples leaves two rows.
    assert_eq!(fleet.db.users().await.len(), count / 15 * 2);

    for spoiled in ["--tamper", "--stale"] {
        let args = ["send", "user_deleted", spoiled];
        let (status, stdout, stderr) = run("clerk-sync", &args, &env).await;
        assert!(
            status.success() && stdout.contains("401"),
            "{stdout}{stderr}"
        );
    }
    fleet.end().await;
}
