//! `doctor --probe`: to the row and away again, and where it got stuck; no row is ever left.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Diagnosis, NOBODY, Site, broker::hide_a_missing_binding, doctor};
use crate::harness::{
    SOON,
    clerk::SECRET,
    eventually,
    process::{Env, Process, base_env},
    servers::{TestDb, TestQueue},
};

/// Broker and database, set up; whoever is to run is started by the test.
struct Parts {
    queue: TestQueue,
    db: TestDb,
    env: Env,
}

impl Parts {
    async fn new() -> Self {
        let queue = TestQueue::with_ladder("5s,30s").await;
        let db = TestDb::postgres().await.migrated().await;
        let mut env = base_env();
        queue.env(&mut env);
        env.insert("DATABASE_URL", db.url.expose().to_string());
        env.insert("CLERK_SYNC_DATA", "/nonexistent".to_owned());
        env.insert("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned());
        Self { queue, db, env }
    }

    fn ingest(&self) -> Process {
        Process::start("clerk-sync-ingest", &[], &self.env)
    }

    fn worker(&self) -> Process {
        Process::start("clerk-sync-worker", &[], &self.env)
    }

    async fn remove(self) {
        self.queue.remove().await;
        self.db.remove().await;
    }
}

const NO_WORKER: &str = "warning rabbitmq/queue";

async fn probe(env: &Env, url: &str) -> Diagnosis {
    doctor(env, &["--probe", url, "--within", "3s"]).await
}

/// What is left of probes: rows, tombstones, rows of the ledger.
async fn left(db: &TestDb) -> [i64; 3] {
    let (users, versions, ledger) = match db.url.expose().scheme() {
        "sqlite" => (
            "users",
            "clerk_sync_user_versions",
            "clerk_sync_processed_events",
        ),
        _ => (
            "users",
            "clerk_sync.user_versions",
            "clerk_sync.processed_events",
        ),
    };
    let probes = |table: &str, column: &str, prefix: &str| {
        format!(
            "SELECT count(*) FROM {table} WHERE {column} LIKE '{prefix}!_clerk!_sync!_%' ESCAPE '!'"
        )
    };
    [
        db.count(&probes(users, "\"clerkId\"", "user")).await,
        db.count(&probes(versions, "clerk_id", "user")).await,
        db.count(&probes(ledger, "event_id", "msg")).await,
    ]
}

#[track_caller]
fn all_steps(diagnosis: &Diagnosis) {
    diagnosis.is(&[]);
    let ok = diagnosis.of(&["ok"]);
    for step in ["accepted", "applied", "removed", "cleaned"] {
        assert!(ok.contains(&format!("ok probe/{step}")), "{step}: {ok:?}");
    }
    let timed = diagnosis
        .lines()
        .iter()
        .filter(|line| line["group"] == "probe");
    assert_eq!(timed.filter(|line| line["took_ms"].is_u64()).count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_in_one_process_on_rabbitmq_and_postgresql() {
    let site = Site::new().await;
    let url = site.env["WEBHOOK_URL"].clone();
    // Twice: a probe is in no way of the next.
    for probes in 1..=2 {
        all_steps(&probe(&site.env, &url).await);
        assert_eq!(left(&site.db).await, [0, probes, 2 * probes]);
    }
    // The other user's row is as it was, and tombstones of former days are forgotten.
    assert_eq!(site.db.users().await.len(), 1);
    site.db
        .execute(
            "UPDATE clerk_sync.user_versions SET deleted_at = deleted_at - interval '2 days'
             WHERE deleted_at IS NOT NULL;
             INSERT INTO clerk_sync.user_versions VALUES
             ('userXclerkXsyncXother', 1, 1, 'msg_1', now() - interval '2 days')",
        )
        .await;
    all_steps(&probe(&site.env, &url).await);
    assert_eq!(left(&site.db).await, [0, 1, 6]);
    let near = "SELECT count(*) FROM clerk_sync.user_versions WHERE clerk_id LIKE 'userX%'";
    assert_eq!(
        site.db.count(near).await,
        1,
        "another user's tombstone stays"
    );
    site.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_in_one_process_in_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut env = base_env();
    env.insert("CLERK_SYNC_DATA", folder.path().display().to_string());
    let up = Process::start("clerk-sync", &["up"], &env);
    let url = up.webhook_url().await;
    up.ready().await;
    // With the secret that `up` has made.
    all_steps(&probe(&env, &url).await);
    up.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingester_and_a_worker_of_their_own_and_of_one_instance() {
    let mut parts = Parts::new().await;
    parts
        .env
        .insert("CLERK_INSTANCE_ID", "ins_production".to_owned());
    let (ingest, worker) = (parts.ingest(), parts.worker());
    let url = ingest.webhook_url().await;
    ingest.ready().await;
    worker.ready().await;
    all_steps(&probe(&parts.env, &url).await);
    assert_eq!(left(&parts.db).await, [0, 1, 2]);
    // It was not taken for the instance's first event.
    let noted = "SELECT count(*) FROM clerk_sync.bookmarks WHERE name = 'first_instance'";
    assert_eq!(parts.db.count(noted).await, 0);
    ingest.stop().await;
    worker.stop().await;
    parts.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_worker_it_is_accepted_and_not_applied_and_no_row_comes_of_it_later() {
    let parts = Parts::new().await;
    let ingest = parts.ingest();
    let url = ingest.webhook_url().await;
    ingest.ready().await;
    let diagnosis = probe(&parts.env, &url).await;
    diagnosis.is(&[NO_WORKER, "problem probe/applied"]);
    diagnosis.says(
        "probe/applied",
        &[
            "user.created was accepted",
            "no worker consumes",
            "clerk-sync worker",
        ],
    );
    assert!(
        diagnosis
            .of(&["ok"])
            .contains(&"ok probe/cleaned".to_owned())
    );
    assert_eq!(left(&parts.db).await, [0, 1, 0], "buried before it came");

    let worker = parts.worker();
    eventually("both events are applied", SOON, async || {
        left(&parts.db).await[2] == 2
    })
    .await;
    assert_eq!(left(&parts.db).await, [0, 1, 2]);
    worker.stop().await;
    ingest.stop().await;
    parts.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_that_is_gone_is_found_out_while_workers_consume_and_others_take_it() {
    let parts = Parts::new().await;
    let (ingest, worker) = (parts.ingest(), parts.worker());
    let url = ingest.webhook_url().await;
    ingest.ready().await;
    worker.ready().await;
    let theirs = hide_a_missing_binding(&parts.queue).await;
    let diagnosis = probe(&parts.env, &url).await;
    diagnosis.is(&["problem probe/applied"]);
    diagnosis.says(
        "probe/applied",
        &["is empty", "binding", "clerk-sync setup"],
    );
    assert_eq!(left(&parts.db).await, [0, 1, 0]);
    let (_connection, channel) = parts.queue.channel().await;
    channel
        .queue_delete(theirs.into(), Default::default())
        .await
        .unwrap();
    ingest.stop().await;
    worker.stop().await;
    parts.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_database_of_the_worker_no_row_is_left_if_the_doctor_looks_into_another() {
    let mut parts = Parts::new().await;
    let (ingest, worker) = (parts.ingest(), parts.worker());
    let url = ingest.webhook_url().await;
    ingest.ready().await;
    worker.ready().await;
    let another = TestDb::postgres().await.migrated().await;
    let address = another.url.expose().to_string();
    parts.env.insert("DATABASE_URL", address);
    let diagnosis = probe(&parts.env, &url).await;
    diagnosis.is(&["problem probe/applied"]);
    diagnosis.says("probe/applied", &["another DATABASE_URL"]);
    diagnosis.says("probe/cleaned", &["user.deleted was sent"]);
    eventually("both events are applied", SOON, async || {
        left(&parts.db).await[2] == 2
    })
    .await;
    assert_eq!(left(&parts.db).await, [0, 1, 2]);
    assert_eq!(left(&another).await, [0, 1, 0]);
    ingest.stop().await;
    worker.stop().await;
    another.remove().await;
    parts.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_database_will_not_let_go_of_is_said_to_be_left() {
    let site = Site::new().await;
    site.db
        .execute(
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN RAISE EXCEPTION 'users are kept'; END $$;
             CREATE TRIGGER keep BEFORE DELETE ON users FOR EACH ROW EXECUTE FUNCTION keep()",
        )
        .await;
    let url = site.env["WEBHOOK_URL"].clone();
    let diagnosis = probe(&site.env, &url).await;
    diagnosis.is(&["problem probe/removed", "problem probe/cleaned"]);
    diagnosis.says("probe/removed", &["user.deleted", "it failed"]);
    diagnosis.says("probe/cleaned", &["is left", "DELETE FROM users"]);
    assert_eq!(left(&site.db).await[0], 1);
    site.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_accepted_says_why_and_leaves_nothing_at_all() {
    let site = Site::new().await;
    let url = site.env["WEBHOOK_URL"].clone();
    let another = "whsec_b3RoZXJvdGhlcm90aGVyb3RoZXI=";
    let diagnosis = probe(&site.with("CLERK_WEBHOOK_SIGNING_SECRET", another), &url).await;
    diagnosis.is(&["problem probe/accepted"]);
    diagnosis.says(
        "probe/accepted",
        &["401 (signature_mismatch)", "another secret"],
    );
    let diagnosis = probe(&site.env, &format!("http://{NOBODY}/hook")).await;
    diagnosis.is(&["problem probe/accepted"]);
    diagnosis.says("probe/accepted", &["refused", "LISTEN"]);
    let diagnosis = probe(&site.env, &url.replace("/clerk", "/svix")).await;
    diagnosis.is(&["problem probe/accepted"]);
    assert_eq!(left(&site.db).await, [0, 0, 0]);
    site.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dead_lettered_is_taken_out_of_there() {
    let site = Site::new().await;
    site.db
        .execute("ALTER TABLE users ADD CHECK (email NOT LIKE '%.invalid')")
        .await;
    let url = site.env["WEBHOOK_URL"].clone();
    let diagnosis = probe(&site.env, &url).await;
    diagnosis.is(&["problem probe/applied"]);
    diagnosis.says(
        "probe/applied",
        &["dead-lettered (check_violation", "taken out"],
    );
    let dead = site.queue.server.topology.dead();
    eventually("no dead letter is left", SOON, async || {
        site.queue.depth(&dead).await == 0
    })
    .await;
    doctor(&site.env, &[]).await.is(&[]);
    site.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_it_cleans_up_and_ends_soon() {
    let parts = Parts::new().await;
    let ingest = parts.ingest();
    let url = ingest.webhook_url().await;
    ingest.ready().await;
    for signal in ["-INT", "-TERM"] {
        let before = left(&parts.db).await[1];
        let args = ["doctor", "--probe", &url, "--within", "10m"];
        let mut doctor = Process::start("clerk-sync", &args, &parts.env);
        // The checks are told first; then the event is under way.
        eventually("the checks are told", SOON, async || {
            doctor.output().contains("webhook")
        })
        .await;
        sleep(Duration::from_secs(1)).await;
        let asked = Instant::now();
        doctor.signal(signal);
        let status = doctor.wait().await;
        assert_eq!(status.code(), Some(1), "{}", doctor.output());
        assert!(asked.elapsed() < Duration::from_secs(10));
        assert_eq!(left(&parts.db).await[1], before + 1, "{}", doctor.output());
        eventually("it says so", SOON, async || {
            doctor.output().contains("no row is left")
        })
        .await;
    }
    let worker = parts.worker();
    eventually("all events are applied", SOON, async || {
        left(&parts.db).await[2] == 4
    })
    .await;
    assert_eq!(left(&parts.db).await[0], 0);
    worker.stop().await;
    ingest.stop().await;
    parts.remove().await;
}
