//! What can be wrong with Clerk, its key, and whose rows they are.

use std::time::Duration;

use clerk_sync_stand_in::{Failure, Settings, StandIn};

use super::{NOBODY, doctor, with_clerk};
use crate::harness::{
    process::{Env, base_env},
    servers::TestDb,
};

/// An instance and a database in a file, migrated.
async fn alone() -> (StandIn, TestDb, Env) {
    let (clerk, db) = (
        StandIn::start().await,
        TestDb::sqlite().await.migrated().await,
    );
    let mut env = base_env();
    env.insert("CLERK_SYNC_DATA", "/nonexistent".to_owned());
    env.insert("DATABASE_URL", db.url.expose().to_string());
    with_clerk(&mut env, &clerk);
    (clerk, db, env)
}

const NO_QUEUE: &str = "warning queue file/file";

async fn remember(db: &TestDb, instance: &str) {
    db.execute(&format!(
        "INSERT OR REPLACE INTO clerk_sync_bookmarks VALUES ('instance', '{instance}', '2026-01-01T00:00:00Z')"
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_clerk_does_not_know_is_a_problem() {
    let (_clerk, _db, mut env) = alone().await;
    doctor(&env, &[]).await.is(&[NO_QUEUE]);
    env.insert("CLERK_SECRET_KEY", "sk_test_hunter2".to_owned());
    let diagnosis = doctor(&env, &[]).await;
    diagnosis.is(&[NO_QUEUE, "problem clerk/key"]);
    diagnosis.says(
        "clerk/key",
        &["401", "clerk_key_invalid", "Configure, API keys"],
    );
    assert!(!diagnosis.report.to_string().contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_instance_than_the_rows_or_the_setting_is_a_problem() {
    let (clerk, db, mut env) = alone().await;
    remember(&db, &clerk.settings().instance_id).await;
    env.insert("CLERK_INSTANCE_ID", clerk.settings().instance_id.clone());
    let diagnosis = doctor(&env, &[]).await;
    diagnosis.is(&[NO_QUEUE]);
    diagnosis.says(
        "clerk/instance",
        &["the rows came from", &clerk.settings().instance_id],
    );

    remember(&db, "ins_of_production").await;
    let diagnosis = doctor(&env, &[]).await;
    diagnosis.is(&[NO_QUEUE, "problem clerk/instance"]);
    diagnosis.says("clerk/instance", &["ins_of_production", "--adopt-instance"]);

    remember(&db, &clerk.settings().instance_id).await;
    env.insert("CLERK_INSTANCE_ID", "ins_of_production".to_owned());
    let diagnosis = doctor(&env, &[]).await;
    diagnosis.is(&[NO_QUEUE, "problem clerk/instance"]);
    diagnosis.says(
        "clerk/instance",
        &["CLERK_INSTANCE_ID says ins_of_production"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_rows_that_cannot_be_asked_nothing_is_said() {
    let (_clerk, _db, mut env) = alone().await;
    let away = format!("postgres://user@{NOBODY}/app");
    env.insert("DATABASE_URL", away);
    let diagnosis = doctor(&env, &[]).await;
    diagnosis.is(&[NO_QUEUE, "problem postgresql/reachable"]);
    diagnosis.says("clerk/instance", &["could not be asked"]);
    let instance = "skipped clerk/instance".to_owned();
    assert!(diagnosis.of(&["skipped"]).contains(&instance));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_is_told_by_clerks_date() {
    let (clerk, _db, env) = alone().await;
    for (ahead, expected, says) in [
        (30, "warning clerk/clock", "s behind Clerk's"),
        (-400, "problem clerk/clock", "s ahead of Clerk's"),
    ] {
        clerk.set_clock(ahead);
        let diagnosis = doctor(&env, &[]).await;
        diagnosis.is(&[NO_QUEUE, expected]);
        diagnosis.says("clerk/clock", &[says, "NTP"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clerk_that_is_away_is_told_at_once() {
    let (clerk, _db, mut env) = alone().await;
    // Asked once: a repetition would be answered well.
    clerk.fail_next(1, Failure::Status(503, None));
    let diagnosis = doctor(&env, &[]).await;
    diagnosis.is(&[NO_QUEUE, "problem clerk/key"]);
    diagnosis.says("clerk/key", &["503"]);

    env.insert("CLERK_API_URL", format!("http://{NOBODY}"));
    let diagnosis = doctor(&env, &[]).await;
    diagnosis.is(&[NO_QUEUE, "problem clerk/key"]);
    diagnosis.says("clerk/key", &[NOBODY, "no connection"]);
    assert!(
        diagnosis.took < Duration::from_secs(3),
        "{:?}",
        diagnosis.took
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_two_instances_are_a_problem_and_no_authorized_party_a_warning() {
    let (_clerk, _db, mut env) = alone().await;
    env.remove("AUTHORIZED_PARTIES");
    let production = Settings::production().publishable_key();
    env.insert("CLERK_PUBLISHABLE_KEY", production);
    let diagnosis = doctor(&env, &[]).await;
    diagnosis.is(&["problem settings/api", "warning settings/api", NO_QUEUE]);
    diagnosis.says("settings/api", &["development", "production"]);
}
