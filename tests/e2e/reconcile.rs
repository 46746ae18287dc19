//! `clerk-sync reconcile`: it finds the drift that is planted, no other, and mends it.

use std::time::Duration;

use clerk_sync_simulator::Plan;
use clerk_sync_stand_in::{Endpoint, Failure, Settings, StandIn};
use serde_json::Value;

use crate::{
    backfill::{
        another_instance, backfill, between, equals, is_as_the_simulator_says, on_both_databases,
        production,
    },
    harness::{
        SOON, eventually,
        process::{Env, Process, run},
        rights::Role,
        servers::TestDb,
    },
};

mod caution;
mod watching;

on_both_databases! {
    the_planted_drift_is_found_and_mended_and_no_other,
    no_more_rows_are_deleted_than_allowed,
    a_key_of_another_instance_is_refused,
    with_since_only_what_has_changed_is_looked_at,
    a_watch_says_on_its_port_what_has_drifted,
}

/// An instance, and rows that are as it is.
async fn in_step(db: TestDb, users: usize) -> (TestDb, StandIn, Vec<String>) {
    let (db, clerk) = (db.migrated().await, production().await);
    let who = clerk.fill(users);
    let (exit, said) = backfill(&between(&clerk, &db), &[]).await;
    assert_eq!(exit, 0, "{said}");
    (db, clerk, who)
}

/// Exit code and report.
async fn reconcile(env: &Env, args: &[&str]) -> (i32, Value) {
    let args = [&["reconcile", "--json", "--settle", "200ms"], args].concat();
    let (status, out, err) = run("clerk-sync", &args, env).await;
    let report = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    (status.code().unwrap(), report)
}

/// Who has drifted, and how: `missing user_…`.
fn listed(report: &Value) -> Vec<String> {
    let listed = report["listed"].as_array().unwrap();
    let text = |one: &Value, field: &str| one[field].as_str().unwrap().to_owned();
    let mut listed: Vec<String> = listed
        .iter()
        .map(|one| format!("{} {}", text(one, "kind"), text(one, "clerk_id")))
        .collect();
    listed.sort();
    listed
}

fn drift(report: &Value) -> [u64; 4] {
    ["missing", "stale", "ghost", "unmanaged"].map(|kind| report["drift"][kind].as_u64().unwrap())
}

fn versions(db: &TestDb) -> &'static str {
    match db.url.expose().scheme() {
        "sqlite" => "clerk_sync_user_versions",
        _ => "clerk_sync.user_versions",
    }
}

/// A row that the sync has written, of somebody whom Clerk has no more.
async fn plant_ghost(db: &TestDb, id: &str) {
    let versions = versions(db);
    db.execute(&format!(
        r#"INSERT INTO users (id, "clerkId", email, "updatedAt")
           VALUES ('{id}', '{id}', '{id}@ghost.example', '2026-01-01 00:00:00')"#
    ))
    .await;
    db.execute(&format!(
        "INSERT INTO {versions} (clerk_id, updated_at_ms, occurred_at_ms, event_id)
         VALUES ('{id}', 1, 0, 'msg')"
    ))
    .await;
}

async fn the_planted_drift_is_found_and_mended_and_no_other(db: TestDb) {
    let (db, clerk, mut who) = in_step(db, 700).await;
    let env = between(&clerk, &db);
    let (exit, report) = reconcile(&env, &[]).await;
    assert_eq!((exit, drift(&report)), (0, [0; 4]), "{report}");

    let versions = versions(&db);
    let on = |id: &str| format!(r#"WHERE "clerkId" = '{id}'"#);
    let mut planted = Vec::new();
    let mut plant = |kind: &str, id: &str| planted.push(format!("{kind} {id}"));
    // Rows that somebody removed, among the first and the last; a sign-up of which nobody told.
    for id in [&who[0], &who[699]] {
        db.execute(&format!("DELETE FROM users {}", on(id))).await;
        plant("missing", id);
    }
    let told_by_nobody = clerk.fill(1).remove(0);
    plant("missing", &told_by_nobody);
    // Rows that somebody changed, each in another column; a change of which nobody told.
    for (id, change) in [
        (&who[1], "name = 'Somebody Else'"),
        (&who[2], "name = NULL"),
        (&who[3], "email = 'else@reconcile.example'"),
        (&who[4], r#""imageUrl" = NULL"#),
        (&who[5], r#""createdAt" = '2020-01-01 00:00:00'"#),
    ] {
        db.execute(&format!("UPDATE users SET {change} {}", on(id)))
            .await;
        plant("stale", id);
    }
    clerk.change(&who[6], |user| {
        user.insert("last_name".into(), "Changed".into());
    });
    plant("stale", &who[6]);
    // A deletion of which nobody told, and a row of somebody long gone.
    clerk.remove(&who[7]);
    plant("ghost", &who[7]);
    plant_ghost(&db, "user_ghost").await;
    plant("ghost", "user_ghost");
    // A row of the application's own, of a user whom Clerk has.
    db.execute(&format!(
        "DELETE FROM {versions} WHERE clerk_id = '{}'",
        who[8]
    ))
    .await;
    plant("unmanaged", &who[8]);
    // And what is no drift: a row of the application's own, and its own columns' timestamp.
    db.execute(
        r#"INSERT INTO users (id, "clerkId", email, "updatedAt")
           VALUES ('seed', 'seed', 'seed@reconcile.example', '2026-01-01 00:00:00')"#,
    )
    .await;
    planted.sort();

    let before = db.users().await;
    let (exit, report) = reconcile(&env, &[]).await;
    assert_eq!(listed(&report), planted);
    assert_eq!((exit, drift(&report)), (3, [3, 6, 2, 1]), "{report}");
    assert_eq!(report["strangers"], 1);
    assert_eq!(db.users().await, before, "to look is not to touch");

    let (exit, report) = reconcile(&env, &["--fix"]).await;
    assert_eq!((exit, listed(&report)), (0, planted), "{report}");
    assert_eq!(report["left"], 0, "{report}");
    let (exit, report) = reconcile(&env, &[]).await;
    assert_eq!((exit, drift(&report)), (0, [0; 4]), "{report}");
    let seed = r#"DELETE FROM users WHERE id = 'seed' AND email = 'seed@reconcile.example'"#;
    db.execute(seed).await;
    who.push(told_by_nobody);
    equals(&db, &clerk, &who).await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_fits_a_terminal_and_names_the_cure() {
    let (db, clerk, who) = in_step(TestDb::sqlite().await, 30).await;
    for id in &who[..12] {
        db.execute(&format!(r#"DELETE FROM users WHERE "clerkId" = '{id}'"#))
            .await;
    }
    let env = between(&clerk, &db);
    let args = ["reconcile", "--settle", "0s"];
    let (status, said, _) = run("clerk-sync", &args, &env).await;
    assert_eq!(status.code(), Some(3), "{said}");
    for expected in ["missing           12", "and 2 more", "--fix"] {
        assert!(said.contains(expected), "no `{expected}` in:\n{said}");
    }
    assert!(
        said.lines().all(|line| line.chars().count() <= 80),
        "{said}"
    );
    db.remove().await;
}

async fn no_more_rows_are_deleted_than_allowed(db: TestDb) {
    let (db, clerk, mut who) = in_step(db, 195).await;
    for number in 0..5 {
        plant_ghost(&db, &format!("user_ghost{number}")).await;
    }
    db.execute(&format!(
        r#"DELETE FROM users WHERE "clerkId" = '{}'"#,
        who[9]
    ))
    .await;
    let env = between(&clerk, &db);
    // One of a hundred of 199 rows: two.
    let asked = clerk.requests(Endpoint::User);
    let (exit, report) = reconcile(&env, &["--fix"]).await;
    assert_eq!((exit, drift(&report)), (3, [1, 0, 5, 0]), "{report}");
    // Each is confirmed by a 404 of its own.
    assert_eq!(clerk.requests(Endpoint::User) - asked, 5);
    assert_eq!(report["max_deletes_exceeded"], 2);
    assert_eq!(
        report["left"], 5,
        "what deletes nothing is mended all the same"
    );
    assert_eq!(db.users().await.len(), 200);
    let tombstones = format!(
        "SELECT count(*) FROM {} WHERE deleted_at IS NOT NULL",
        versions(&db)
    );
    assert_eq!(db.count(&tombstones).await, 0);

    let (exit, report) = reconcile(&env, &["--fix", "--max-deletes", "4"]).await;
    assert_eq!((exit, &report["left"]), (3, &5.into()), "{report}");
    let (exit, report) = reconcile(&env, &["--fix", "--max-deletes", "5"]).await;
    assert_eq!((exit, &report["left"]), (0, &0.into()), "{report}");
    assert_eq!(db.count(&tombstones).await, 5);
    who.sort();
    equals(&db, &clerk, &who).await;
    db.remove().await;
}

async fn a_key_of_another_instance_is_refused(db: TestDb) {
    let (db, clerk, who) = in_step(db, 40).await;
    let other = another_instance(&clerk, &who[..3]).await;
    let env = between(&other, &db);
    for _ in 0..2 {
        let args = ["reconcile", "--fix", "--max-deletes", "100%"];
        let (status, out, err) = run("clerk-sync", &args, &env).await;
        assert_eq!(status.code(), Some(1), "{out}{err}");
        assert!(err.contains("another environment?"), "{err}");
        equals(&db, &clerk, &who).await;
        // Nor when nobody remembers.
        let bookmarks = versions(&db).replace("user_versions", "bookmarks");
        db.execute(&format!("DELETE FROM {bookmarks}")).await;
    }
    db.remove().await;
}

async fn with_since_only_what_has_changed_is_looked_at(db: TestDb) {
    let (db, clerk, who) = in_step(db, 1_500).await;
    let env = between(&clerk, &db);
    for id in [&who[3], &who[4]] {
        db.execute(&format!(
            r#"UPDATE users SET name = NULL WHERE "clerkId" = '{id}'"#
        ))
        .await;
    }
    clerk.change(&who[4], |user| {
        user.insert("last_name".into(), "Changed".into());
    });
    plant_ghost(&db, "user_ghost").await;
    let asked = clerk.requests(Endpoint::Users);
    let (exit, report) = reconcile(&env, &["--since", "1h", "--fix"]).await;
    assert_eq!(
        (exit, listed(&report)),
        (0, vec![format!("stale {}", who[4])]),
        "{report}"
    );
    // One page, and one look at the suspect.
    assert_eq!(clerk.requests(Endpoint::Users) - asked, 2);
    let (exit, report) = reconcile(&env, &[]).await;
    assert_eq!((exit, drift(&report)), (3, [0, 1, 1, 0]), "{report}");
    db.remove().await;
}

/// Clerk changes, and no webhook ever tells: whoever changed while it was at work is left to the
/// next time, or with `--fix` brought up to date without a word, and whoever changed before is found.
#[tokio::test(flavor = "multi_thread")]
async fn what_changes_meanwhile_is_no_drift() {
    what_changes_meanwhile(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_meanwhile_is_brought_up_to_date_and_is_no_drift() {
    what_changes_meanwhile(&["--fix"]).await;
}

async fn what_changes_meanwhile(fix: &[&str]) {
    let (db, clerk, who) = in_step(TestDb::sqlite().await, 2_400).await;
    db.execute(&format!(
        r#"DELETE FROM users WHERE "clerkId" = '{}'"#,
        who[11]
    ))
    .await;
    clerk.set_delay(Duration::from_millis(250));
    let asked = clerk.requests(Endpoint::Users);
    let args = [&["reconcile", "--json", "--settle", "1s"], fix].concat();
    let mut process = Process::start("clerk-sync", &args, &between(&clerk, &db));
    eventually("it has seen some", SOON, async || {
        clerk.requests(Endpoint::Users) - asked >= 3
    })
    .await;
    // Some behind it, some before it.
    for id in [&who[20], &who[2_300]] {
        clerk.change(id, |user| {
            user.insert("last_name".into(), "Changed".into());
        });
    }
    clerk.remove(&who[30]);
    let new = clerk.sign_up("new@reconcile.example");
    // Removed before it was seen there: its row goes a moment later, as by a webhook.
    clerk.remove(&who[2_310]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    db.execute(&format!(
        r#"DELETE FROM users WHERE "clerkId" = '{}'"#,
        who[2_310]
    ))
    .await;
    process.wait().await;
    let said = process.output();
    let report: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
    assert_eq!(listed(&report), [format!("missing {}", who[11])]);
    assert_eq!(drift(&report), [1, 0, 0, 0], "{report}");
    let rows = db.users().await;
    let row = |id: &str| rows.iter().find(|row| row.0 == id);
    let is_changed =
        row(&who[2_300]).is_some_and(|row| row.2.as_deref().unwrap().ends_with("Changed"));
    assert_eq!(
        (is_changed, row(&new).is_some()),
        (!fix.is_empty(), !fix.is_empty())
    );
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_clerks_deletes_nobody() {
    let (db, clerk, who) = in_step(TestDb::sqlite().await, 50).await;
    let gone = who[5].clone();
    clerk.remove(&gone);
    clerk.set_delay(Duration::from_millis(100));
    let env = between(&clerk, &db);
    let asked = clerk.requests(Endpoint::Users);
    let args = ["reconcile", "--fix", "--settle", "1s"];
    let mut process = Process::start("clerk-sync", &args, &env);
    eventually("all were listed", SOON, async || {
        clerk.requests(Endpoint::Users) > asked
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    // A proxy's 404, for whatever it is asked.
    clerk.fail_next(50, Failure::Foreign(404));
    assert_eq!(process.wait().await.code(), Some(1), "{}", process.output());
    assert_eq!(db.users().await.len(), 50);
    db.remove().await;
}

async fn a_watch_says_on_its_port_what_has_drifted(db: TestDb) {
    let (db, clerk, who) = in_step(db, 100).await;
    db.execute(&format!(
        r#"DELETE FROM users WHERE "clerkId" = '{}'"#,
        who[9]
    ))
    .await;
    let args = ["reconcile", "--watch", "500ms", "--settle", "100ms"];
    let watch = Process::start("clerk-sync", &args, &between(&clerk, &db));
    watch.ready().await;
    let drift = async |kind: &str| watch.metric("clerk_sync_drift_users", kind).await;
    eventually("the missing user is counted", SOON, async || {
        drift("missing").await == 1.0
    })
    .await;
    assert_eq!(
        drift("stale").await + drift("ghost").await + drift("unmanaged").await,
        0.0
    );
    let last = "clerk_sync_last_reconciliation_timestamp_seconds";
    assert!(watch.metric(last, "").await > 1.7e9);
    // Clerk away is no reason to end, and the last count stands.
    clerk.fail_next(1, Failure::Status(401, None));
    eventually("the failure is told", SOON, async || {
        watch
            .output()
            .contains("the comparison with Clerk has failed")
    })
    .await;
    assert!(drift("missing").await == 1.0);
    let (exit, said) = backfill(&between(&clerk, &db), &[]).await;
    assert_eq!(exit, 0, "{said}");
    eventually("nobody is missing any more", SOON, async || {
        drift("missing").await == 0.0
    })
    .await;
    watch.stop().await;
    db.remove().await;
}

/// Rows as a simulated instance left them, with addresses that have moved and users without any.
#[tokio::test(flavor = "multi_thread")]
async fn a_simulated_instance_has_no_drift_and_loses_what_is_planted() {
    let history = Plan {
        seed: rand::random(),
        users: 120,
        rounds: 6,
    }
    .live();
    println!("{:?}", history.events_by_type());
    let settings = Settings {
        instance_id: history.instance_id.clone(),
        ..Settings::production()
    };
    let clerk = StandIn::start_as(settings).await;
    for event in &history.events {
        clerk.follow(event);
    }
    let db = TestDb::sqlite().await.migrated().await;
    let mut env = between(&clerk, &db);
    env.insert("MISSING_EMAIL", "placeholder".to_owned());
    let (exit, report) = reconcile(&env, &["--fix"]).await;
    let users = u64::try_from(clerk.count()).unwrap();
    assert_eq!((exit, drift(&report)), (0, [users, 0, 0, 0]), "{report}");
    is_as_the_simulator_says(&db, &history).await;
    let (exit, report) = reconcile(&env, &[]).await;
    assert_eq!((exit, drift(&report)), (0, [0; 4]), "{report}");

    db.execute("UPDATE users SET name = 'Somebody Else'").await;
    let (exit, report) = reconcile(&env, &["--fix"]).await;
    assert_eq!((exit, drift(&report)), (0, [0, users, 0, 0]), "{report}");
    is_as_the_simulator_says(&db, &history).await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workers_role_suffices_for_both_commands() {
    let (db, clerk) = (
        TestDb::postgres().await.migrated().await,
        production().await,
    );
    let who = clerk.fill(20);
    let role = Role::new(&db, &[]).await;
    let mut env = between(&clerk, &db);
    env.insert("DATABASE_URL", role.url.expose().to_string());
    let (exit, said) = backfill(&env, &[]).await;
    assert_eq!(exit, 0, "{said}");
    db.execute(&format!(
        r#"DELETE FROM users WHERE "clerkId" = '{}'"#,
        who[0]
    ))
    .await;
    clerk.remove(&who[1]);
    let (exit, report) = reconcile(&env, &["--fix"]).await;
    assert_eq!((exit, drift(&report)), (0, [1, 0, 1, 0]), "{report}");

    // A right that is missing is told at once, with the cure.
    let rights = role.rights(&db).await;
    let updates = |right: &&String| right.starts_with("UPDATE") && right.contains("user_versions");
    let right = rights
        .iter()
        .find(updates)
        .unwrap_or_else(|| panic!("{rights:#?}"));
    role.take(&db, right).await;
    let (exit, said) = backfill(&env, &[]).await;
    assert_eq!(exit, 1, "{said}");
    assert!(said.contains("deploy/postgres/roles.sql"), "{said}");
    let (exit, _) = reconcile(&env, &[]).await;
    assert_eq!(exit, 0, "to look is no writing");
    role.remove(db).await;
}
