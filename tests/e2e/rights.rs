//! The real binaries with the rights that `deploy/` gives them, given by its very files.

use std::time::Duration;

use crate::harness::{
    SOON,
    clerk::{Letter, SECRET, created, deleted, deliver_all, updated},
    eventually,
    process::{Env, Process, base_env, run},
    rights::{Role, Users},
    servers::{TestDb, TestQueue},
};

mod postgres;
mod rabbitmq;

/// A worker looks at the ledger's age for the first time after 30 to 90 s.
const FIRST_PRUNING: Duration = Duration::from_secs(150);

fn ingest_env(queue: &TestQueue, amqp_url: String) -> Env {
    let mut env = base_env();
    queue.env(&mut env);
    env.insert("AMQP_URL", amqp_url);
    env.insert("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned());
    env
}

fn worker_env(queue: &TestQueue, amqp_url: String, db: &TestDb) -> Env {
    let mut env = base_env();
    queue.env(&mut env);
    env.insert("AMQP_URL", amqp_url);
    env.insert("DATABASE_URL", db.url.expose().to_string());
    env
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_story_is_told_with_the_least_rights() {
    let db = TestDb::postgres().await.migrated().await;
    db.execute(
        "INSERT INTO users (id, \"clerkId\", email, \"updatedAt\") \
           VALUES ('theirs', 'by hand', 'taken@a.example', now()); \
         INSERT INTO clerk_sync.processed_events (event_id, type, received_at, processed_at, outcome) \
           VALUES ('msg_of_old', 'user.created', '2020-01-01', '2020-01-01', 'created')",
    )
    .await;
    let role = Role::new(&db, &["credits=on"]).await;
    let queue = TestQueue::bare("100ms,300ms").await;
    let users = Users::of(&queue).await;

    let mut setup = ingest_env(&queue, users.url(&queue, "setup"));
    let (status, _, stderr) = run("clerk-sync", &["setup"], &setup).await;
    assert!(status.success(), "{stderr}");
    setup.clear();
    let ingest = ingest_env(&queue, users.url(&queue, "ingest"));
    let ingest = Process::start("clerk-sync-ingest", &[], &ingest);
    let mut worker = worker_env(&queue, users.url(&queue, "worker"), &db);
    worker.insert("DATABASE_URL", role.url.expose().to_string());
    worker.insert("INITIAL_CREDITS", "10".to_owned());
    let worker = Process::start("clerk-sync-worker", &[], &worker);
    let url = ingest.webhook_url().await;
    ingest.ready().await;
    worker.ready().await;

    let claim = created("user_claims", "taken@a.example");
    let poison = Letter::new("no JSON");
    let mut letters = vec![claim.clone(), poison.clone()];
    for number in 0..100 {
        let (id, email) = (format!("user_{number:03}"), format!("u{number}@a.example"));
        letters.push(updated(&id, &email, 2));
        letters.push(created(&id, &email));
        if number % 4 == 0 {
            letters.push(deleted(&id));
        }
    }
    // Two that swap their addresses.
    letters.push(updated("user_001", "u2@a.example", 5));
    letters.push(updated("user_002", "u1@a.example", 5));
    deliver_all(&url, &letters).await;
    deliver_all(&url, &letters[2..20]).await;

    let dead = queue.server.topology.dead();
    eventually("what failed is parked", SOON, async || {
        queue.depth(&dead).await == 2
    })
    .await;
    let applied = i64::try_from(letters.len()).unwrap();
    eventually("all the rest is applied", SOON, async || {
        let old = "SELECT count(*) FROM clerk_sync.processed_events WHERE event_id <> 'msg_of_old'";
        db.count(old).await == applied
    })
    .await;
    assert!(
        worker
            .metric("clerk_sync_retries_total", "email_taken")
            .await
            >= 2.0
    );
    for failed in [&claim, &poison] {
        assert_eq!(
            db.outcome(&failed.id).await.as_deref(),
            Some("dead_lettered")
        );
    }
    assert_eq!(
        db.users().await.len(),
        75 + 1,
        "and the row that is not ours"
    );
    let swapped = "SELECT count(*) FROM users WHERE (\"clerkId\", email) IN \
                   (('user_001', 'u2@a.example'), ('user_002', 'u1@a.example'))";
    assert_eq!(db.count(swapped).await, 2);
    assert_eq!(db.count("SELECT count(*) FROM credits").await, 75);

    eventually("the ledger is pruned", FIRST_PRUNING, async || {
        db.outcome("msg_of_old").await.is_none()
    })
    .await;
    for process in [ingest, worker] {
        let output = process.stop().await;
        assert!(
            !output.contains("ACCESS_REFUSED") && !output.contains("42501"),
            "{output}"
        );
    }
    users.remove().await;
    queue.remove().await;
    role.remove(db).await;
}
