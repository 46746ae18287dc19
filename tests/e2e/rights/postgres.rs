//! The worker's role in PostgreSQL: it suffices, nothing of it can be spared, and it is no more.

use std::sync::Arc;

use clerk_sync_entity::bookmarks;
use clerk_sync_pipeline::{
    Event, EventId, EventType, Millis,
    secret::ServerUrl,
    telemetry::{Metrics, Outcome},
};
use clerk_sync_projection::{Projection, ProjectionConfig, Snapshot, Unavailable, database};
use sea_orm::{ConnectionTrait as _, prelude::ChronoUtc};

use crate::harness::{
    clerk::{self, Letter, created, deleted, updated},
    rights::Role,
    servers::{TestDb, unique},
};

fn event(letter: Letter) -> Event {
    let json: serde_json::Value = serde_json::from_slice(&letter.body).unwrap();
    Event {
        id: EventId::parse(&letter.id).unwrap(),
        event_type: EventType::parse(json["type"].as_str().unwrap()).unwrap(),
        received_at: Millis::now(),
        attempted_at: 0,
        traceparent: None,
        body: letter.body.into(),
    }
}

async fn projection(url: &ServerUrl, initial_credits: i32) -> Projection {
    let db = database::connect(url, 1).await.unwrap();
    let config = ProjectionConfig {
        initial_credits,
        ..ProjectionConfig::default()
    };
    Projection::new(db, config, Arc::new(Metrics::new(0)))
}

/// All that is done to the database with a worker's rights, and what each step left in `users`.
async fn everything(projection: &Projection) -> Result<(), Unavailable> {
    let (one, two) = (
        format!("user_1_{}", unique()),
        format!("user_2_{}", unique()),
    );
    let (mine, yours) = (format!("{one}@a.example"), format!("{two}@a.example"));
    let late = event(updated(&one, &mine, 1));
    let batches = [
        vec![event(created(&one, &mine)), event(created(&two, &yours))],
        vec![event(updated(&one, &mine, 2))],
        // Out of date: its outcome is corrected.
        vec![late.clone()],
        // An address moves: its holder's row is given a placeholder.
        vec![event(updated(&two, &mine, 3))],
        vec![event(deleted(&one))],
    ];
    for events in &batches {
        let mut batch = projection.read(events);
        projection.apply(&mut batch).await?;
    }
    projection.record(&[(&late, Outcome::Retried)]).await?;
    projection.would_take(&late).await?;
    projection.prune(ChronoUtc::now()).await?;
    // A backfill and a reconciliation.
    let user = clerk::user(&unique(), &format!("{}@a.example", unique()), 1).to_string();
    let there = Snapshot::Present {
        user: user.as_bytes(),
        asked_at: Millis::now(),
    };
    let snapshots = [there, Snapshot::Gone { clerk_id: &two }];
    projection.compare(&snapshots).await?;
    projection.apply_snapshots(&snapshots).await?;
    projection.rows_after("", 10).await?;
    projection.sample(10).await?;
    projection.note_instance("ins_test").await?;
    for value in [Some("somewhere"), None] {
        projection.set_bookmark(bookmarks::BACKFILL, value).await?;
        projection.bookmark(bookmarks::BACKFILL).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workers_role_suffices_and_none_of_its_rights_can_be_spared() {
    let db = TestDb::postgres().await.migrated().await;
    let role = Role::new(&db, &["credits=on"]).await;
    let rights = role.rights(&db).await;
    assert!(rights.len() > 30, "{rights:#?}");

    let worker = projection(&role.url, 10).await;
    worker.is_fit().await.unwrap();
    everything(&worker).await.unwrap();
    for right in &rights {
        role.take(&db, right).await;
        // Connects anew, as the right to connect is only asked for then.
        let worker = projection(&role.url, 10).await;
        let failed = everything(&worker).await;
        let Err(Unavailable(cause)) = failed else {
            panic!("{right} can be spared")
        };
        assert!(
            cause.contains("deploy/postgres/roles.sql"),
            "{right}: {cause}"
        );
        // Readiness knows without any event.
        let Unavailable(unfit) = worker.is_fit().await.unwrap_err();
        assert!(
            unfit.contains("deploy/postgres/roles.sql"),
            "{right}: {unfit}"
        );
        for (on, named) in [("ON users", "table users"), ("ON clerk_sync.", "table ")] {
            assert!(
                !right.contains(on) || unfit.contains(named),
                "{right}: {unfit}"
            );
        }
        role.give(&db, right).await;
    }
    everything(&projection(&role.url, 10).await).await.unwrap();
    role.remove(db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_user_takes_what_belongs_to_it_without_a_right_to_that() {
    let db = TestDb::postgres().await.migrated().await;
    let role = Role::new(&db, &[]).await;
    let worker = projection(&role.url, 0).await;
    let events = [event(created("user_1", "a@a.example"))];
    worker.apply(&mut worker.read(&events)).await.unwrap();
    db.execute(
        "INSERT INTO projects (id, \"userId\", name, \"updatedAt\") SELECT 'p', id, 'n', now() FROM users;
         INSERT INTO designs (id, \"userId\", \"projectId\", \"updatedAt\") SELECT 'd', id, 'p', now() FROM users;
         INSERT INTO images (id, url, \"projectId\", \"designId\") VALUES ('i', 'u', 'p', 'd');
         INSERT INTO credits (id, \"userId\", \"updatedAt\") SELECT 'c', id, now() FROM users",
    )
    .await;
    let events = [event(deleted("user_1"))];
    worker.apply(&mut worker.read(&events)).await.unwrap();
    for table in ["users", "projects", "designs", "images", "credits"] {
        let left = db.count(&format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(left, 0, "{table}");
    }
    role.remove(db).await;
}

/// What a worker never does.
const REFUSED: &[&str] = &[
    // Definitions
    "CREATE TABLE mine (id int)",
    "CREATE TABLE clerk_sync.mine (id int)",
    "CREATE TEMP TABLE mine (id int)",
    "CREATE SCHEMA mine",
    "CREATE INDEX ON users (name)",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql RETURN 1",
    "ALTER TABLE users ADD COLUMN mine int",
    "ALTER TABLE clerk_sync.user_versions DISABLE TRIGGER ALL",
    "DROP TABLE users",
    "DROP TABLE clerk_sync.user_versions",
    "DROP SCHEMA clerk_sync CASCADE",
    "TRUNCATE users CASCADE",
    "TRUNCATE clerk_sync.processed_events",
    // The application's other tables
    "SELECT FROM projects",
    "INSERT INTO projects (id, \"userId\", name, \"updatedAt\") VALUES ('p', 'u', 'n', now())",
    "UPDATE projects SET name = 'n'",
    "DELETE FROM projects",
    "SELECT FROM designs",
    "INSERT INTO designs (id, \"userId\", \"updatedAt\") VALUES ('d', 'u', now())",
    "UPDATE designs SET prompt = 'p'",
    "DELETE FROM designs",
    "SELECT FROM images",
    "INSERT INTO images (id, url) VALUES ('i', 'u')",
    "UPDATE images SET url = 'u'",
    "DELETE FROM images",
    "SELECT FROM credits",
    "UPDATE credits SET amount = 1",
    "DELETE FROM credits",
    // Columns of `users` that are the application's own, and the keys of its rows
    "SELECT password FROM users",
    "SELECT * FROM users",
    "UPDATE users SET password = 'p'",
    "UPDATE users SET id = 'i'",
    "UPDATE users SET \"clerkId\" = 'c'",
    // Who was deleted stays deleted; which migrations there were is not its concern
    "DELETE FROM clerk_sync.user_versions",
    "SELECT FROM clerk_sync.migrations",
    "DELETE FROM clerk_sync.migrations",
    // Other roles, other places
    "CREATE ROLE mine",
    "GRANT SELECT ON projects TO PUBLIC",
    "SELECT rolpassword FROM pg_authid",
    "COPY users TO PROGRAM 'cat'",
    "SELECT pg_read_file('/etc/hostname')",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_workers_role_can_do_nothing_else() {
    let db = TestDb::postgres().await.migrated().await;
    db.execute("ALTER TABLE users ADD COLUMN password text")
        .await;
    let role = Role::new(&db, &["credits=on"]).await;
    let worker = database::connect(&role.url, 1).await.unwrap();
    for statement in REFUSED {
        let error = worker.execute_unprepared(statement).await.unwrap_err();
        let text = error.to_string();
        let refused = ["permission denied", "must be owner", "must be superuser"];
        assert!(
            refused.iter().any(|part| text.contains(part)),
            "{statement}: {text}"
        );
    }
    // Without INITIAL_CREDITS there is no right to credits at all.
    let grant = "INSERT INTO credits (id, \"userId\", amount, \"createdAt\", \"updatedAt\") \
                 SELECT 'c', id, 1, now(), now() FROM users";
    worker.execute_unprepared(grant).await.unwrap();
    role.update(&db, &[]).await;
    let error = worker
        .execute_unprepared(grant)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("permission denied for table credits"),
        "{error}"
    );
    worker.close().await.unwrap();
    role.remove(db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roles_file_can_be_run_again_and_takes_back_what_is_too_much() {
    let db = TestDb::postgres().await.migrated().await;
    let role = Role::new(&db, &[]).await;
    let rights = role.rights(&db).await;
    for wider in [
        "ALL ON users",
        "ALL ON ALL TABLES IN SCHEMA clerk_sync",
        "ALL ON credits",
    ] {
        role.give(&db, wider).await;
    }
    assert_ne!(role.rights(&db).await, rights);
    role.update(&db, &[]).await;
    assert_eq!(role.rights(&db).await, rights);
    role.remove(db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roles_file_serves_a_schema_of_prismas() {
    let db = TestDb::postgres().await;
    db.execute("CREATE SCHEMA shop").await;
    let in_shop = |url: &ServerUrl| -> ServerUrl {
        let mut url = url.expose().clone();
        url.query_pairs_mut().append_pair("schema", "shop");
        url.as_str().parse().unwrap()
    };
    let owner = database::connect(&in_shop(&db.url), 1).await.unwrap();
    clerk_sync_migration::up(&owner).await.unwrap();
    owner.close().await.unwrap();
    let role = Role::new(&db, &["schema=shop", "credits=on"]).await;
    let worker = projection(&in_shop(&role.url), 10).await;
    worker.is_fit().await.unwrap();
    everything(&worker).await.unwrap();
    assert_eq!(db.count("SELECT count(*) FROM shop.users").await, 1);
    role.remove(db).await;
}
