//! The commands, and what they say when something is wrong.

use clerk_sync_pipeline::queue::{Topology, amqp};

use crate::harness::{
    SOON,
    clerk::{SECRET, created, deliver_all},
    eventually,
    process::{Env, Process, base_env, run},
    servers::{TestDb, TestQueue},
};

#[tokio::test(flavor = "multi_thread")]
async fn every_configuration_problem_is_named_and_no_port_is_bound() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let env = Env::from([
        ("LISTEN", taken.local_addr().unwrap().to_string()),
        ("ADMIN_LISTEN", "nowhere".to_owned()),
        ("AMQP_URL", "http://me:hunter2@broker".to_owned()),
        (
            "CLERK_WEBHOOK_SIGNING_SECRET",
            "whsec_not base64!".to_owned(),
        ),
        ("MAX_BODY_BYTES", "-1".to_owned()),
        ("LOG_FORMAT", "xml".to_owned()),
    ]);
    let (status, stdout, stderr) = run("clerk-sync-ingest", &[], &env).await;
    assert_eq!(status.code(), Some(64), "{stdout}{stderr}");
    for name in [
        "ADMIN_LISTEN",
        "AMQP_URL",
        "CLERK_WEBHOOK_SIGNING_SECRET",
        "MAX_BODY_BYTES",
        "LOG_FORMAT",
    ] {
        assert!(stderr.contains(name), "{name} is not named:\n{stderr}");
    }
    assert!(
        !stderr.contains("hunter2") && !stderr.contains("not base64!"),
        "{stderr}"
    );
    assert!(!stderr.contains("listening"), "no port is bound:\n{stderr}");

    let env = Env::from([("DATABASE_URL", "mysql://me:hunter2@db/app".to_owned())]);
    let (status, _, stderr) = run("clerk-sync-worker", &[], &env).await;
    assert_eq!(status.code(), Some(64));
    assert!(
        stderr.contains("AMQP_URL") && stderr.contains("DATABASE_URL"),
        "{stderr}"
    );
    assert!(!stderr.contains("hunter2"), "{stderr}");

    let mut env = base_env();
    env.insert("LISTEN", "300.0.0.1:80".to_owned());
    env.insert("RETRY_DELAYS", "1h,5s".to_owned());
    let (status, _, stderr) = run("clerk-sync", &["up"], &env).await;
    assert_eq!(status.code(), Some(64));
    assert!(
        stderr.contains("LISTEN") && stderr.contains("RETRY_DELAYS"),
        "{stderr}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut env = base_env();
    env.insert("LISTEN", taken.local_addr().unwrap().to_string());
    env.insert("CLERK_SYNC_DATA", folder.path().display().to_string());
    let (status, _, stderr) = run("clerk-sync", &["up"], &env).await;
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("LISTEN") && stderr.contains(&env["LISTEN"]),
        "{stderr}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_migrators_at_once_both_succeed() {
    let db = TestDb::postgres().await;
    let env = Env::from([("DATABASE_URL", db.url.expose().to_string())]);
    let migrate = || run("clerk-sync", &["migrate", "up"], &env);
    let (one, two) = tokio::join!(migrate(), migrate());
    for (status, stdout, stderr) in [one, two] {
        assert!(status.success(), "{stdout}{stderr}");
    }
    let (status, stdout, _) = run("clerk-sync", &["migrate", "status"], &env).await;
    assert!(status.success() && !stdout.contains("pending"), "{stdout}");
    let (status, _, stderr) = run("clerk-sync", &["migrate", "down"], &env).await;
    assert!(!status.success() && stderr.contains("--yes"), "{stderr}");
    let (status, stdout, _) = run("clerk-sync", &["migrate", "down", "--yes"], &env).await;
    assert!(status.success(), "{stdout}");
    assert_eq!(
        db.count("SELECT count(*) FROM users").await,
        0,
        "users is still there"
    );
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_prisma_database_is_adopted_and_a_foreign_row_is_not_touched() {
    let db = TestDb::postgres().await;
    let prisma = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/prisma/expected.sql");
    db.execute(&std::fs::read_to_string(prisma).unwrap()).await;
    db.execute(
        "INSERT INTO users (id, \"clerkId\", email, \"updatedAt\") VALUES \
         ('kept-id', 'user_old', 'old@a.example', now()), \
         ('theirs', 'not-clerk', 'taken@a.example', now())",
    )
    .await;
    let folder = tempfile::tempdir().unwrap();
    let mut env = base_env();
    env.insert("DATABASE_URL", db.url.expose().to_string());
    env.insert("CLERK_SYNC_DATA", folder.path().display().to_string());
    env.insert("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned());
    let up = Process::start("clerk-sync", &["up"], &env);
    let url = up.webhook_url().await;
    up.ready().await;
    let claim = created("user_claims", "taken@a.example");
    deliver_all(&url, &[created("user_old", "new@a.example"), claim.clone()]).await;
    eventually("the claim waits for a cure", SOON, async || {
        db.outcome(&claim.id).await.as_deref() == Some("retried")
    })
    .await;
    eventually("the old row is up to date", SOON, async || {
        db.count("SELECT count(*) FROM users WHERE id = 'kept-id' AND email = 'new@a.example'")
            .await
            == 1
    })
    .await;
    let theirs = "SELECT count(*) FROM users WHERE id = 'theirs' AND email = 'taken@a.example'";
    assert_eq!(db.count(theirs).await, 1, "the foreign row");
    up.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_adopted_is_a_clear_error_and_is_left_alone() {
    let db = TestDb::postgres().await;
    db.execute(
        "CREATE TABLE users (id text PRIMARY KEY, \"clerkId\" text UNIQUE NOT NULL, \
         email integer UNIQUE, \"createdAt\" timestamptz, \"updatedAt\" timestamp(3))",
    )
    .await;
    let env = Env::from([("DATABASE_URL", db.url.expose().to_string())]);
    let (status, _, stderr) = run("clerk-sync", &["migrate", "up"], &env).await;
    assert_eq!(status.code(), Some(1));
    for part in [
        "email",
        "integer",
        "createdAt",
        "name",
        "imageUrl",
        "found",
        "wanted",
    ] {
        assert!(stderr.contains(part), "{part} is not named:\n{stderr}");
    }
    let ours = "SELECT count(*) FROM information_schema.schemata WHERE schema_name = 'clerk_sync'";
    assert_eq!(db.count(ours).await, 0);
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_can_be_repeated_and_names_what_is_different() {
    let queue = TestQueue::new().await;
    let mut env = Env::new();
    queue.env(&mut env);
    let (status, stdout, stderr) = run("clerk-sync", &["setup"], &env).await;
    assert!(status.success(), "{stderr}");
    assert!(stdout.contains(&queue.server.topology.apply()), "{stdout}");

    env.insert("QUEUE_MAX_BYTES", "123456".to_owned());
    let (status, _, stderr) = run("clerk-sync", &["setup"], &env).await;
    assert_eq!(status.code(), Some(1));
    let apply = queue.server.topology.apply();
    let was = Topology::DEFAULT_MAX_LENGTH_BYTES.to_string();
    for part in [apply.as_str(), "x-max-length-bytes", "123456", &was] {
        assert!(stderr.contains(part), "{part} is not named:\n{stderr}");
    }
    // A changed ladder makes new queues beside the old ones, never a mismatch.
    let mut longer = queue.server.clone();
    longer.topology.ladder = "7s,30s".parse().unwrap();
    amqp::setup(&longer).await.unwrap();
    amqp::remove(&longer).await.unwrap();
    queue.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn up_makes_a_secret_keeps_it_and_send_finds_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut env = base_env();
    env.insert("CLERK_SYNC_DATA", data.display().to_string());
    let up = Process::start("clerk-sync", &["up"], &env);
    let url = up.webhook_url().await;
    let send = Env::from([
        ("WEBHOOK_URL", url),
        ("CLERK_SYNC_DATA", data.display().to_string()),
    ]);
    let (status, stdout, stderr) = run("clerk-sync", &["send", "user_deleted"], &send).await;
    assert!(
        status.success() && stdout.contains("204"),
        "{stdout}{stderr}"
    );
    let secret = std::fs::read_to_string(data.join("webhook-secret")).unwrap();
    let output = up.stop().await;
    assert!(!output.contains(secret.trim()), "the secret is not shown");
    assert!(output.contains("webhook-secret"), "where it is, is");

    let up = Process::start("clerk-sync", &["up"], &env);
    up.webhook_url().await;
    assert_eq!(
        std::fs::read_to_string(data.join("webhook-secret")).unwrap(),
        secret
    );
    let (status, _, stderr) = run("clerk-sync", &["up"], &env).await;
    assert_eq!(
        status.code(),
        Some(1),
        "a second process on the same folder"
    );
    assert!(stderr.contains("queue.db"), "{stderr}");
    up.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demonstration_ends_well_and_keeps_serving() {
    let folder = tempfile::tempdir().unwrap();
    let mut env = base_env();
    env.insert(
        "CLERK_SYNC_DATA",
        folder.path().join("data").display().to_string(),
    );
    // Named servers are left alone.
    env.insert(
        "DATABASE_URL",
        "postgres://nobody@127.0.0.1:1/nothing".to_owned(),
    );
    for _ in 0..2 {
        let up = Process::start("clerk-sync", &["up", "--demo"], &env);
        eventually("the table is shown", SOON, async || {
            up.output().contains("maren.holt@quayside.example")
        })
        .await;
        let output = up.output();
        assert!(!output.contains("still on its way"), "{output}");
        assert!(
            output.contains("dead_lettered") && output.contains("deleted"),
            "{output}"
        );
        // The head's lines are as long as the folder's name.
        let table = output
            .lines()
            .filter(|line| !line.starts_with('{') && !line.starts_with("  "));
        let longest = table.map(|line| line.chars().count());
        assert!(longest.max().unwrap() <= 80, "{output}");
        up.ready().await;
        up.stop().await;
    }
}
