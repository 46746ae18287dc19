//! What can be wrong with PostgreSQL, and with the files of `up`.

use std::time::Duration;

use sea_orm::{ConnectionTrait as _, TransactionTrait as _};

use super::{Diagnosis, NOBODY, doctor};
use crate::harness::{
    clerk::SECRET,
    process::{Env, base_env},
    servers::TestDb,
};

/// A database, migrated, and settings of which everything else is files that are not there.
async fn alone() -> (TestDb, Env) {
    let db = TestDb::postgres().await.migrated().await;
    let env = only(&db);
    (db, env)
}

fn only(db: &TestDb) -> Env {
    let mut env = base_env();
    env.insert("CLERK_SYNC_DATA", "/nonexistent".to_owned());
    env.insert("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned());
    env.insert("DATABASE_URL", db.url.expose().to_string());
    env
}

const NO_QUEUE: &str = "warning queue file/file";

/// What must be wrong beside the queue, which is not there.
#[track_caller]
fn is(diagnosis: &Diagnosis, expected: &[&str]) {
    diagnosis.is(&[&[NO_QUEUE], expected].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_migration_is_a_problem_and_a_newer_one_a_warning() {
    let (db, env) = alone().await;
    is(&doctor(&env, &[]).await, &[]);
    db.execute("INSERT INTO clerk_sync.migrations (version, applied_at) VALUES ('m9999_later', 1)")
        .await;
    let diagnosis = doctor(&env, &[]).await;
    is(&diagnosis, &["warning postgresql/migrations"]);
    diagnosis.says("postgresql/migrations", &["m9999_later", "newer"]);
    db.execute(
        "DELETE FROM clerk_sync.migrations WHERE version IN ('m9999_later', 'm0003_bookmarks');
         DROP TABLE clerk_sync.bookmarks",
    )
    .await;
    let diagnosis = doctor(&env, &[]).await;
    is(&diagnosis, &["problem postgresql/migrations"]);
    diagnosis.says(
        "postgresql/migrations",
        &["m0003_bookmarks", "clerk-sync migrate up"],
    );
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_cannot_be_adopted_are_a_line_for_each_column() {
    let (db, env) = alone().await;
    db.execute(
        "ALTER TABLE users ALTER \"createdAt\" TYPE timestamptz;
         ALTER TABLE users ADD password text NOT NULL",
    )
    .await;
    let diagnosis = doctor(&env, &[]).await;
    is(
        &diagnosis,
        &["problem postgresql/schema", "problem postgresql/schema"],
    );
    diagnosis.says(
        "postgresql/schema",
        &["createdAt", "timestamp with time zone", "wanted"],
    );
    db.remove().await;

    // Not migrated yet: what `migrate up` would refuse is told before.
    let db = TestDb::postgres().await;
    db.execute("CREATE TABLE projects (id text)").await;
    let diagnosis = doctor(&only(&db), &[]).await;
    is(
        &diagnosis,
        &["problem postgresql/migrations", "problem postgresql/schema"],
    );
    diagnosis.says("postgresql/schema", &["projects"]);
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_missing_is_named_with_its_table() {
    let (db, mut env) = alone().await;
    let role = db.ordinary_role().await;
    let name = role.of(&db.url).expose().username().to_owned();
    db.execute(&format!(
        "GRANT USAGE ON SCHEMA clerk_sync TO {name};
         GRANT SELECT, INSERT, UPDATE, DELETE ON users, clerk_sync.processed_events,
             clerk_sync.user_versions, clerk_sync.bookmarks TO {name}"
    ))
    .await;
    env.insert("DATABASE_URL", role.of(&db.url).expose().to_string());
    // The history of migrations is not for a worker's role.
    let diagnosis = doctor(&env, &[]).await;
    is(&diagnosis, &[]);
    diagnosis.says("postgresql/migrations", &["deploy/postgres/roles.sql"]);

    db.execute(&format!(
        "REVOKE DELETE ON users FROM {name}; REVOKE UPDATE ON clerk_sync.user_versions FROM {name}"
    ))
    .await;
    let diagnosis = doctor(&env, &[]).await;
    is(
        &diagnosis,
        &["problem postgresql/rights", "problem postgresql/rights"],
    );
    diagnosis.says(
        "postgresql/rights",
        &["permission denied", "deploy/postgres/roles.sql"],
    );
    let said = diagnosis.report.to_string();
    assert!(
        said.contains("table users") && said.contains("table user_versions"),
        "{said}"
    );
    db.remove().await;
    role.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_somebody_holds_is_not_said_to_be_well() {
    let (db, env) = alone().await;
    let holding = db.db.begin().await.unwrap();
    holding
        .execute_unprepared("LOCK TABLE users IN SHARE MODE")
        .await
        .unwrap();
    let diagnosis = doctor(&env, &[]).await;
    is(&diagnosis, &["warning postgresql/rights"]);
    diagnosis.says("postgresql/rights", &["keeps writers off", "OPERATIONS.md"]);
    holding.rollback().await.unwrap();
    is(&doctor(&env, &[]).await, &[]);
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_refuses_is_told_at_once_and_without_its_password() {
    let (db, mut env) = alone().await;
    env.insert(
        "DATABASE_URL",
        format!("postgres://me:hunter2@{NOBODY}/app?password=hunter2"),
    );
    let diagnosis = doctor(&env, &[]).await;
    is(&diagnosis, &["problem postgresql/reachable"]);
    diagnosis.says("postgresql/reachable", &[NOBODY, "refused", "DATABASE_URL"]);
    assert!(
        diagnosis.took < Duration::from_secs(3),
        "{:?}",
        diagnosis.took
    );
    assert!(!diagnosis.report.to_string().contains("hunter2"));

    let mut nowhere = db.url.expose().clone();
    nowhere.set_path("nowhere");
    env.insert("DATABASE_URL", nowhere.to_string());
    let diagnosis = doctor(&env, &[]).await;
    is(&diagnosis, &["problem postgresql/reachable"]);
    diagnosis.says("postgresql/reachable", &["no such database", "3D000"]);
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_no_writes_or_too_few_connections_is_a_problem() {
    let (db, mut env) = alone().await;
    db.set_read_only(true).await;
    let diagnosis = doctor(&env, &[]).await;
    is(&diagnosis, &["problem postgresql/writable"]);
    diagnosis.says("postgresql/writable", &["primary"]);
    db.set_read_only(false).await;

    db.limit_connections(Some(9)).await;
    is(&doctor(&env, &[]).await, &[]);
    env.insert("WORKER_LANES", "8".to_owned());
    let diagnosis = doctor(&env, &[]).await;
    is(&diagnosis, &["problem postgresql/connections"]);
    diagnosis.says(
        "postgresql/connections",
        &["10 for a process", "of 9,", "WORKER_LANES"],
    );
    // As many as there may be, and this command has some of them already.
    env.insert("WORKER_LANES", "7".to_owned());
    let diagnosis = doctor(&env, &[]).await;
    is(&diagnosis, &["warning postgresql/connections"]);
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_silence_is_a_warning_and_a_probes_own_events_do_not_end_it() {
    let (db, env) = alone().await;
    let diagnosis = doctor(&env, &[]).await;
    diagnosis.says("postgresql/last_event", &["no event was applied yet"]);
    let heard = async |id: &str, ago: &str| {
        db.execute(&format!(
            "INSERT INTO clerk_sync.processed_events VALUES ('{id}', 'user.created', NULL, NULL,
             now() - interval '{ago}', now() - interval '{ago}', 'created')"
        ))
        .await;
    };
    heard("msg_2Lh9KRb0pzN4LePd3XiA4v12Axj", "6 days").await;
    heard("msg_clerk_sync_00000000_1", "1 minute").await;
    let diagnosis = doctor(&env, &[]).await;
    is(&diagnosis, &["warning postgresql/last_event"]);
    diagnosis.says("postgresql/last_event", &["6days ago", "Message Attempts"]);
    // Almost one of a probe's.
    heard("msgXclerkXsyncX0000000_1", "1 hour").await;
    let diagnosis = doctor(&env, &[]).await;
    is(&diagnosis, &[]);
    diagnosis.says("postgresql/last_event", &["1h"]);
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_somebody_else_are_a_problem_and_stay_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let mut env = base_env();
    env.insert("CLERK_SYNC_DATA", folder.path().display().to_string());
    env.insert("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned());
    for name in ["queue.db", "clerk-sync.db"] {
        std::fs::write(
            folder.path().join(name),
            "no database at all, but a text file",
        )
        .unwrap();
    }
    let diagnosis = doctor(&env, &[]).await;
    diagnosis.is(&["problem queue file/queue", "problem sqlite/reachable"]);
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 2, "nothing was made beside them");
}
