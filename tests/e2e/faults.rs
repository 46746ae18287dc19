//! The worker in bad weather, and with bad events.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::harness::{
    SOON,
    clerk::{Letter, SECRET, client, created, deleted, deliver, deliver_all, event, updated, user},
    eventually,
    process::{Process, base_env},
    proxy::{Mode, Proxy},
    servers::{TestDb, TestQueue, authority},
};

/// Ingester and worker in one process, RabbitMQ and PostgreSQL, the latter through a proxy.
struct Site {
    db: TestDb,
    queue: TestQueue,
    proxy: Proxy,
    up: Process,
    url: String,
}

impl Site {
    async fn open(ladder: &str) -> Self {
        Self::open_on(TestDb::postgres().await, ladder).await
    }

    async fn open_on(db: TestDb, ladder: &str) -> Self {
        let queue = TestQueue::bare(ladder).await;
        let proxy = Proxy::to(authority(&db.url)).await;
        let mut env = base_env();
        queue.env(&mut env);
        env.insert(
            "DATABASE_URL",
            db.through(proxy.address).expose().to_string(),
        );
        env.insert("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned());
        let up = Process::start("clerk-sync", &["up"], &env);
        let url = up.webhook_url().await;
        up.ready().await;
        Self {
            db,
            queue,
            proxy,
            up,
            url,
        }
    }

    async fn applied(&self, events: usize) {
        let all = i64::try_from(events).unwrap();
        eventually("every event is in the ledger", SOON * 2, async || {
            self.db.ledger().await == all
        })
        .await;
    }

    async fn close(self) {
        self.up.stop().await;
        self.queue.remove().await;
        self.db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_away_for_20_seconds_costs_no_event_and_no_dead_letter() {
    let site = Site::open("5s,30s").await;
    let letters: Vec<Letter> = (0..300)
        .map(|n| created(&format!("user_{n}"), &format!("u{n}@a.example")))
        .collect();
    let (before, during) = letters.split_at(100);
    deliver_all(&site.url, before).await;
    site.proxy.set(Mode::Closed);
    deliver_all(&site.url, during).await;
    eventually("it shows in readiness", SOON, async || {
        site.up.admin("/readyz").await.0 == 503
    })
    .await;
    sleep(Duration::from_secs(20)).await;
    site.proxy.set(Mode::Open);
    site.applied(letters.len()).await;
    site.up.ready().await;
    assert_eq!(site.db.users().await.len(), letters.len());
    let topology = &site.queue.server.topology;
    assert_eq!(site.queue.depth(&topology.dead()).await, 0);
    assert!(
        site.up.metric("clerk_sync_retries_total", "").await < 0.5,
        "no attempt is counted"
    );
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_away_at_the_start_or_cut_while_migrating_is_waited_for() {
    for cut_after in [0, 5, 20, 60] {
        let db = TestDb::postgres().await;
        let queue = TestQueue::bare("5s").await;
        let proxy = Proxy::to(authority(&db.url)).await;
        let mut env = base_env();
        queue.env(&mut env);
        env.insert(
            "DATABASE_URL",
            db.through(proxy.address).expose().to_string(),
        );
        env.insert("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned());
        let up = Process::start("clerk-sync", &["up"], &env);
        let url = up.webhook_url().await;
        sleep(Duration::from_millis(cut_after)).await;
        proxy.set(Mode::Closed);
        let letter = created("user_1", "a@a.example");
        deliver_all(&url, std::slice::from_ref(&letter)).await;
        sleep(Duration::from_millis(300)).await;
        proxy.set(Mode::Open);
        eventually("it is applied", SOON, async || db.users_if_any().await == 1).await;
        up.stop().await;
        queue.remove().await;
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_found_unfit_later_ends_the_process_and_keeps_what_was_queued() {
    let db = TestDb::postgres().await;
    db.execute("CREATE TABLE users (id integer)").await;
    let queue = TestQueue::bare("5s").await;
    let proxy = Proxy::to(authority(&db.url)).await;
    proxy.set(Mode::Closed);
    let mut env = base_env();
    queue.env(&mut env);
    env.insert(
        "DATABASE_URL",
        db.through(proxy.address).expose().to_string(),
    );
    env.insert("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned());
    let mut up = Process::start("clerk-sync", &["up"], &env);
    let url = up.webhook_url().await;
    // A client that keeps its connection must not keep the process.
    let client = client();
    deliver(&client, &url, &created("user_1", "a@a.example")).await;
    proxy.set(Mode::Open);
    assert_eq!(up.wait().await.code(), Some(1), "{}", up.output());
    assert!(
        up.output().contains("found integer, wanted text"),
        "{}",
        up.output()
    );
    assert_eq!(
        queue.depth(&queue.server.topology.apply()).await,
        1,
        "the event waits"
    );
    queue.remove().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_only_reads_is_waited_for_and_shows_in_readiness() {
    let site = Site::open("5s").await;
    site.db.set_read_only(true).await;
    let letters: Vec<Letter> = (0..20)
        .map(|n| created(&format!("user_{n}"), &format!("u{n}@a.example")))
        .collect();
    deliver_all(&site.url, &letters).await;
    eventually("patience ends", SOON, async || {
        site.up.output().contains("consumption pauses")
    })
    .await;
    // It answers questions all the while; that is no reason to hand everything out again.
    sleep(Duration::from_secs(5)).await;
    assert!(
        !site.up.output().contains("the database is back"),
        "{}",
        site.up.output()
    );
    assert_eq!(site.up.admin("/readyz").await.0, 503);

    site.db.set_read_only(false).await;
    eventually("every event is applied", SOON, async || {
        site.db.users_if_any().await == 20
    })
    .await;
    site.up.ready().await;
    assert_eq!(
        site.queue.depth(&site.queue.server.topology.dead()).await,
        0
    );
    assert!(
        site.up.metric("clerk_sync_retries_total", "").await < 0.5,
        "no attempt is counted"
    );
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_goes_to_the_dead_letters_with_its_reason_and_its_neighbours_commit() {
    let db = TestDb::postgres().await.migrated().await;
    db.execute(
        "ALTER TABLE users ADD CONSTRAINT no_smith CHECK (name IS NULL OR name NOT LIKE '%Smith%')",
    )
    .await;
    let site = Site::open_on(db, "5s,30s").await;
    let mut refused = user("user_smith", "smith@a.example", 1);
    refused["first_name"] = json!("Smith");
    let mut nul = user("user_nul", "nul@a.example", 1);
    nul["first_name"] = json!("a\0b");
    let long = user("user_long", &format!("{}@a.example", "x".repeat(3000)), 1);
    let poison = [
        (event("user.created", &refused), "check_violation"),
        (event("user.created", &nul), "invalid_text"),
        (event("user.created", &long), "text_too_long"),
        (
            Letter::new("{\"type\":\"user.created\",\"data\":{}}"),
            "malformed",
        ),
        (Letter::new("no JSON"), "malformed"),
    ];
    let mut letters: Vec<Letter> = (0..100)
        .map(|n| created(&format!("user_{n:03}"), &format!("u{n}@a.example")))
        .collect();
    for (place, (letter, _)) in poison.iter().enumerate() {
        letters.insert(place * 20 + 10, letter.clone());
    }
    deliver_all(&site.url, &letters).await;
    site.applied(letters.len()).await;
    assert_eq!(site.db.users().await.len(), 100, "the neighbours");

    let dead = site.queue.server.topology.dead();
    eventually("the poison is parked", SOON, async || {
        site.queue.depth(&dead).await == 5
    })
    .await;
    let parked = site.queue.drain(&dead).await;
    for (letter, reason) in &poison {
        let found = parked
            .iter()
            .find(|dead| dead.id.as_deref() == Some(&*letter.id))
            .unwrap();
        assert_eq!(found.text("x-error").as_deref(), Some(*reason));
        assert!(found.body == letter.body, "the original bytes");
        let detail = found.text("x-error-detail").unwrap();
        assert!(
            !detail.is_empty() && !detail.contains("Smith") && !detail.contains("xxx"),
            "{detail}"
        );
        assert_eq!(
            site.db.outcome(&letter.id).await.as_deref(),
            Some("dead_lettered")
        );
    }
    let output = site.up.output();
    assert!(
        !output.contains("Smith") && !output.contains("@a.example"),
        "a payload in the logs"
    );
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_time_may_cure_climbs_the_ladder_and_is_applied_when_it_is_cured() {
    let db = TestDb::postgres().await.migrated().await;
    db.execute(
        "INSERT INTO users (id, \"clerkId\", email, \"updatedAt\") VALUES \
         ('theirs', 'by hand', 'taken@a.example', now())",
    )
    .await;
    let site = Site::open_on(db, "300ms,600ms,60s").await;
    let claim = created("user_1", "taken@a.example");
    deliver_all(&site.url, std::slice::from_ref(&claim)).await;
    eventually("it was tried twice again", SOON, async || {
        site.up
            .metric("clerk_sync_retries_total", "email_taken")
            .await
            >= 3.0
    })
    .await;
    let rung = site
        .queue
        .server
        .topology
        .rung(clerk_sync_pipeline::queue::Rung(2));
    eventually("it waits on the third rung", SOON, async || {
        site.queue.depth(&rung).await == 1
    })
    .await;
    assert_eq!(site.db.outcome(&claim.id).await.as_deref(), Some("retried"));
    assert_eq!(
        site.db.users().await.len(),
        1,
        "the row that is not ours was not touched"
    );
    let waiting = site.queue.drain(&rung).await;
    assert_eq!(waiting[0].number("x-attempt"), Some(3));
    let first = waiting[0].number("x-first-failed-at").unwrap();
    assert!(
        first >= waiting[0].number("x-received-at").unwrap(),
        "kept over the hops"
    );

    // Its owner gives the address up; the event comes again.
    site.db
        .execute("DELETE FROM users WHERE id = 'theirs'")
        .await;
    deliver_all(&site.url, std::slice::from_ref(&claim)).await;
    eventually("it is applied, and no duplicate", SOON, async || {
        site.db.outcome(&claim.id).await.as_deref() == Some("created")
    })
    .await;
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_never_cured_is_dead_lettered_after_the_last_rung() {
    let db = TestDb::postgres().await.migrated().await;
    db.execute(
        "CREATE TABLE invoices (id int, \"userId\" text REFERENCES users(id) ON DELETE RESTRICT)",
    )
    .await;
    let site = Site::open_on(db, "100ms,200ms").await;
    deliver_all(&site.url, &[created("user_1", "a@a.example")]).await;
    site.applied(1).await;
    site.db
        .execute("INSERT INTO invoices SELECT 1, id FROM users")
        .await;
    let delete = deleted("user_1");
    deliver_all(&site.url, std::slice::from_ref(&delete)).await;
    let dead = site.queue.server.topology.dead();
    eventually("it is parked", SOON, async || {
        site.queue.depth(&dead).await == 1
    })
    .await;
    let parked = &site.queue.drain(&dead).await[0];
    assert_eq!(parked.text("x-error").as_deref(), Some("delete_restricted"));
    assert_eq!(parked.number("x-attempt"), Some(3));
    assert_eq!(parked.event_type.as_deref(), Some("user.deleted"));
    assert_eq!(site.db.users().await.len(), 1, "the user is still there");
    assert!(
        (site
            .up
            .metric("clerk_sync_retries_total", "delete_restricted")
            .await
            - 2.0)
            .abs()
            < 0.5
    );
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_from_another_hand_is_parked_not_lost() {
    let site = Site::open("5s").await;
    site.queue.publish_by_hand("by.hand", b"who knows").await;
    let dead = site.queue.server.topology.dead();
    eventually("it is parked", SOON, async || {
        site.queue.depth(&dead).await == 1
    })
    .await;
    let parked = &site.queue.drain(&dead).await[0];
    assert_eq!(parked.body, b"who knows");
    assert_eq!(parked.text("x-error").as_deref(), Some("malformed"));
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_another_instance_is_parked_when_one_is_configured() {
    let db = TestDb::sqlite().await;
    let folder = tempfile::tempdir().unwrap();
    let mut env = base_env();
    env.insert("DATABASE_URL", db.url.expose().to_string());
    env.insert("CLERK_SYNC_DATA", folder.path().display().to_string());
    env.insert("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned());
    env.insert("CLERK_INSTANCE_ID", "ins_production".to_owned());
    let up = Process::start("clerk-sync", &["up"], &env);
    let url = up.webhook_url().await;
    deliver_all(&url, &[created("user_1", "a@a.example")]).await;
    eventually("it is parked", SOON, async || {
        up.metric("clerk_sync_dead_letters_total", "wrong_instance")
            .await
            >= 1.0
    })
    .await;
    assert!(db.users().await.is_empty());
    up.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_the_embedded_process_loses_nothing_it_has_accepted() {
    let db = TestDb::sqlite().await;
    let folder = tempfile::tempdir().unwrap();
    let mut env = base_env();
    env.insert("DATABASE_URL", db.url.expose().to_string());
    env.insert("CLERK_SYNC_DATA", folder.path().display().to_string());
    env.insert("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned());
    let mut all = 0;
    for round in 0..4 {
        let up = Process::start("clerk-sync", &["up"], &env);
        let url = up.webhook_url().await;
        let letters: Vec<Letter> = (0..60)
            .map(|n| updated(&format!("user_{n}"), &format!("u{n}@a.example"), round))
            .collect();
        deliver_all(&url, &letters).await;
        all += letters.len();
        up.kill().await;
    }
    let up = Process::start("clerk-sync", &["up"], &env);
    eventually("every accepted event is applied", SOON, async || {
        db.ledger().await == i64::try_from(all).unwrap()
    })
    .await;
    let users = db.users().await;
    assert_eq!(users.len(), 60);
    assert!(
        users
            .iter()
            .all(|(_, _, name)| name.as_deref() == Some("U 3")),
        "the newest values"
    );
    up.stop().await;
    db.remove().await;
}
