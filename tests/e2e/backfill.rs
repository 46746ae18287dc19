//! `clerk-sync backfill`: the real binary, a stand-in for Clerk over the wire, and both databases.

use std::collections::BTreeSet;

use clerk_sync_entity::users;
use clerk_sync_simulator::{Addressless, History};
use clerk_sync_stand_in::{Endpoint, Settings, StandIn};
use sea_orm::EntityTrait as _;
use serde_json::json;

use crate::harness::{
    process::{Env, base_env, run},
    servers::TestDb,
};

mod complete;
mod instance;
mod interrupted;
mod meanwhile;
mod storm;

/// Runs each test on both databases.
macro_rules! on_both_databases {
    ($($test:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() {
                super::$test(crate::harness::servers::TestDb::sqlite().await).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() {
                super::$test(crate::harness::servers::TestDb::postgres().await).await;
            })+
        }
    };
}
pub(crate) use on_both_databases;

on_both_databases! {
    every_user_is_brought_and_the_summary_adds_up,
    what_cannot_be_brought_is_told_and_brought_when_it_can_be,
    an_address_that_its_row_gives_up_later_is_no_failure,
    a_database_that_is_not_migrated_is_refused,
}

/// Settings of a command between this instance and this database.
pub(crate) fn between(clerk: &StandIn, db: &TestDb) -> Env {
    let mut env = base_env();
    env.insert("CLERK_API_URL", clerk.url());
    env.insert("CLERK_SECRET_KEY", clerk.settings().secret_key.clone());
    env.insert("DATABASE_URL", db.url.expose().to_string());
    env
}

/// An instance in production, for which more is allowed.
pub(crate) async fn production() -> StandIn {
    StandIn::start_as(Settings::production()).await
}

/// A development instance: other people, and so other ids, with the same addresses as these.
pub(crate) async fn another_instance(clerk: &StandIn, who: &[String]) -> StandIn {
    let other = StandIn::start().await;
    for (number, id) in who.iter().enumerate() {
        let user = clerk.user(id).unwrap();
        other.put(&user.replace(id, &format!("user_other{number}")));
    }
    other
}

/// Where the commands remember things.
fn bookmarks(db: &TestDb) -> &'static str {
    match db.url.expose().scheme() {
        "sqlite" => "clerk_sync_bookmarks",
        _ => "clerk_sync.bookmarks",
    }
}

/// Runs a backfill to its end: exit code, and what it said on both of its outputs.
pub(crate) async fn backfill(env: &Env, args: &[&str]) -> (i32, String) {
    let args = [&["backfill"], args].concat();
    let (status, out, err) = run("clerk-sync", &args, env).await;
    (status.code().unwrap(), format!("{out}{err}"))
}

/// What the summary says: created, updated, current, missing, failed; it must add up.
fn summary(said: &str) -> [u64; 5] {
    let [created, updated, current, missing, failed, total] = [
        "created",
        "updated",
        "already current",
        "missing address",
        "failed",
        "total",
    ]
    .map(|what| {
        let mut lines = said.lines().map(str::trim);
        let line = lines.find_map(|line| line.strip_prefix(what));
        let number = line.unwrap_or_else(|| panic!("no `{what}` in:\n{said}"));
        number.trim().replace(',', "").parse().unwrap()
    });
    let all = [created, updated, current, missing, failed];
    assert_eq!(all.iter().sum::<u64>(), total, "{said}");
    all
}

/// The rows must be the instance's users: who, and of which change.
pub(crate) async fn equals(db: &TestDb, clerk: &StandIn, who: &[String]) {
    let rows = users::Entity::find().all(&db.db).await.unwrap();
    let rows: BTreeSet<(String, i64)> = rows
        .into_iter()
        .map(|row| (row.clerk_id, row.updated_at.and_utc().timestamp_millis()))
        .collect();
    let expected: BTreeSet<(String, i64)> = who
        .iter()
        .filter_map(|id| {
            let user: serde_json::Value = serde_json::from_str(&clerk.user(id)?).unwrap();
            Some((id.clone(), user["updated_at"].as_i64().unwrap()))
        })
        .collect();
    assert_eq!(rows, expected);
}

/// The rows are, in every column.
pub(crate) async fn is_as_the_simulator_says(db: &TestDb, history: &History) {
    let mut rows = users::Entity::find().all(&db.db).await.unwrap();
    rows.sort_by(|a, b| a.clerk_id.cmp(&b.clerk_id));
    let expected = history.table(Addressless::Placeholder);
    assert_eq!(rows.len(), expected.len());
    for (row, expected) in rows.into_iter().zip(expected) {
        assert!(expected.email.admits(&row.email), "{row:?} {expected:?}");
        let millis = |time: chrono::NaiveDateTime| time.and_utc().timestamp_millis();
        assert_eq!(
            (
                row.clerk_id,
                row.name,
                row.image_url,
                millis(row.created_at),
                millis(row.updated_at)
            ),
            (
                expected.clerk_id,
                expected.name,
                expected.image_url,
                expected.created_at,
                expected.updated_at
            )
        );
    }
}

async fn every_user_is_brought_and_the_summary_adds_up(db: TestDb) {
    let (db, clerk) = (db.migrated().await, production().await);
    let who = clerk.fill(1_203);
    let env = between(&clerk, &db);
    let (exit, said) = backfill(&env, &[]).await;
    assert_eq!(exit, 0, "{said}");
    assert_eq!(summary(&said), [1_203, 0, 0, 0, 0]);
    assert!(
        said.lines().all(|line| line.chars().count() <= 80),
        "{said}"
    );
    equals(&db, &clerk, &who).await;

    // Again, after a change, a sign-up and a deletion of which no webhook told.
    clerk.change(&who[7], |user| {
        user.insert("last_name".into(), "Changed".into());
    });
    let new = clerk.sign_up("new@backfill.example");
    let (exit, said) = backfill(&env, &[]).await;
    assert_eq!(exit, 0, "{said}");
    assert_eq!(summary(&said), [1, 1, 1_202, 0, 0]);
    equals(&db, &clerk, &[who, vec![new]].concat()).await;
    // Three pages, once each, and again.
    assert_eq!(clerk.requests(Endpoint::Users), 6);
    db.remove().await;
}

async fn what_cannot_be_brought_is_told_and_brought_when_it_can_be(db: TestDb) {
    let (db, clerk) = (db.migrated().await, production().await);
    let mut who = clerk.fill(20);
    let nobody = clerk.sign_up("nobody@backfill.example");
    clerk.change(&nobody, |user| {
        user.insert("email_addresses".into(), json!([]));
        user.insert("primary_email_address_id".into(), json!(null));
    });
    let taken = clerk.sign_up("taken@backfill.example");
    db.execute(
        r#"INSERT INTO users (id, "clerkId", email, "updatedAt")
           VALUES ('x', 'seed', 'taken@backfill.example', '2026-01-01 00:00:00')"#,
    )
    .await;
    let env = between(&clerk, &db);
    let (exit, said) = backfill(&env, &[]).await;
    assert_eq!(exit, 1, "{said}");
    assert_eq!(summary(&said), [20, 0, 0, 1, 1]);
    assert!(
        said.contains(&taken) && said.contains("email_taken"),
        "{said}"
    );
    assert!(said.contains("MISSING_EMAIL=placeholder"), "{said}");
    assert!(!said.contains("@backfill.example"), "{said}");

    db.execute("DELETE FROM users WHERE id = 'x'").await;
    let (exit, said) = backfill(&env, &["--missing-email", "placeholder"]).await;
    assert_eq!(exit, 0, "{said}");
    assert_eq!(summary(&said), [2, 0, 20, 0, 0]);
    who.extend([nobody, taken]);
    equals(&db, &clerk, &who).await;
    db.remove().await;
}

/// A row of the application's own sits on an address that has moved on at Clerk, and its own user's
/// turn comes later.
async fn an_address_that_its_row_gives_up_later_is_no_failure(db: TestDb) {
    let (db, clerk) = (db.migrated().await, production().await);
    let mut who = clerk.fill(600);
    let (first, last) = (who[0].clone(), clerk.sign_up("later@backfill.example"));
    let user: serde_json::Value = serde_json::from_str(&clerk.user(&first).unwrap()).unwrap();
    let email = user["email_addresses"][0]["email_address"]
        .as_str()
        .unwrap();
    db.execute(&format!(
        r#"INSERT INTO users (id, "clerkId", email, "updatedAt")
           VALUES ('x', '{last}', '{email}', '2026-01-01 00:00:00')"#
    ))
    .await;
    let (exit, said) = backfill(&between(&clerk, &db), &[]).await;
    assert_eq!(exit, 0, "{said}");
    assert_eq!(summary(&said), [600, 1, 0, 0, 0]);
    who.push(last);
    equals(&db, &clerk, &who).await;
    db.remove().await;
}

async fn a_database_that_is_not_migrated_is_refused(db: TestDb) {
    let clerk = StandIn::start().await;
    let (exit, said) = backfill(&between(&clerk, &db), &[]).await;
    assert_eq!(exit, 1, "{said}");
    assert!(said.contains("clerk-sync migrate up"), "{said}");
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_are_wrong_are_told_together() {
    let mut env = base_env();
    env.insert("CLERK_SECRET_KEY", "pk_live_hunter2".to_owned());
    env.insert("CLERK_API_URL", "ftp://hunter2".to_owned());
    env.insert("DATABASE_URL", "mysql://hunter2".to_owned());
    let (exit, said) = backfill(&env, &[]).await;
    assert_eq!(exit, 64, "{said}");
    for setting in env
        .keys()
        .filter(|name| name.contains("CLERK") || name.contains("DATABASE"))
    {
        assert!(said.contains(setting), "{said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
}
