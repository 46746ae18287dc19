//! A backfill that did not come to its end: how it ends, and from where on the next one goes.

use std::time::Duration;

use clerk_sync_stand_in::{Endpoint, Failure, StandIn};

use super::{backfill, between, bookmarks, equals, on_both_databases, production, summary};
use crate::harness::{
    SOON, eventually,
    process::{Env, Process},
    servers::TestDb,
};

on_both_databases! {
    a_backfill_that_was_killed_goes_on_where_it_was,
    a_backfill_that_was_interrupted_long_ago_begins_anew,
    a_backfill_whose_rows_are_gone_begins_anew,
    a_signal_ends_it_with_a_word_and_the_next_one_goes_on,
}

async fn a_backfill_that_was_killed_goes_on_where_it_was(db: TestDb) {
    let (db, clerk) = (db.migrated().await, production().await);
    let who = clerk.fill(4_000);
    let env = between(&clerk, &db);
    clerk.set_delay(Duration::from_millis(300));
    let process = Process::start("clerk-sync", &["backfill"], &env);
    eventually("some are done", SOON, async || {
        db.users_if_any().await >= 1_000
    })
    .await;
    process.kill().await;
    let done = db.users().await.len();
    assert!(done < 4_000, "it was too fast to be killed");

    clerk.set_delay(Duration::ZERO);
    let asked = clerk.requests(Endpoint::Users);
    let (exit, said) = backfill(&env, &[]).await;
    assert_eq!(exit, 0, "{said}");
    assert!(said.contains("going on after"), "{said}");
    let [created, _, current, ..] = summary(&said);
    assert_eq!(created + current, 4_000, "{said}");
    // What was applied and not yet bookmarked: a page at most.
    assert!(current <= 500, "{said}");
    let pages = clerk.requests(Endpoint::Users) - asked;
    assert!(pages < 8, "{pages} pages: it began anew");
    equals(&db, &clerk, &who).await;

    // It came to its end, so the next one begins with the first user.
    let (exit, said) = backfill(&env, &[]).await;
    assert_eq!((exit, summary(&said)), (0, [0, 0, 4_000, 0, 0]), "{said}");
    db.remove().await;
}

/// A backfill that was killed with a page or more behind it, and some before it.
async fn killed_on_its_way(db: TestDb) -> (TestDb, StandIn, Vec<String>, Env) {
    let (db, clerk) = (db.migrated().await, production().await);
    let who = clerk.fill(2_500);
    let env = between(&clerk, &db);
    clerk.set_delay(Duration::from_millis(300));
    let process = Process::start("clerk-sync", &["backfill"], &env);
    bookmarked(&db).await;
    process.kill().await;
    clerk.set_delay(Duration::ZERO);
    (db, clerk, who, env)
}

async fn bookmarked(db: &TestDb) {
    let bookmark = format!(
        "SELECT count(*) FROM {} WHERE name = 'backfill'",
        bookmarks(db)
    );
    eventually("a page is bookmarked", SOON, async || {
        db.count(&bookmark).await == 1
    })
    .await;
}

async fn a_backfill_that_was_interrupted_long_ago_begins_anew(db: TestDb) {
    let (db, clerk, who, env) = killed_on_its_way(db).await;
    // All but the last that it has done, who would be missed otherwise.
    db.execute(r#"DELETE FROM users WHERE "createdAt" < (SELECT max("createdAt") FROM users)"#)
        .await;
    let table = bookmarks(&db);
    db.execute(&format!(
        r#"UPDATE {table} SET changed_at = '2026-01-01 00:00:00+00',
           value = replace(value, '"began_at":', '"began_at":-') WHERE name = 'backfill'"#
    ))
    .await;
    let (exit, said) = backfill(&env, &[]).await;
    assert_eq!(exit, 0, "{said}");
    assert!(
        said.contains("begins anew") && !said.contains("going on after"),
        "{said}"
    );
    assert_eq!(summary(&said).iter().sum::<u64>(), 2_500);
    equals(&db, &clerk, &who).await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_whose_last_user_was_deleted_begins_anew() {
    let (db, clerk) = (TestDb::sqlite().await.migrated().await, production().await);
    let who = clerk.fill(2_000);
    let env = between(&clerk, &db);
    clerk.set_delay(Duration::from_millis(300));
    let process = Process::start("clerk-sync", &["backfill"], &env);
    let bookmark = "SELECT count(*) FROM clerk_sync_bookmarks WHERE name = 'backfill'";
    eventually("a page is bookmarked", SOON, async || {
        db.count(bookmark).await == 1
    })
    .await;
    process.kill().await;
    clerk.set_delay(Duration::ZERO);
    for page in who.chunks(500) {
        clerk.remove(page.last().unwrap());
    }
    let (exit, said) = backfill(&env, &[]).await;
    assert_eq!(exit, 0, "{said}");
    assert!(!said.contains("going on after"), "{said}");
    let [created, _, current, ..] = summary(&said);
    assert_eq!(created + current, 1_996, "{said}");
    db.remove().await;
}

/// Whoever empties a table, and begins again at once.
async fn a_backfill_whose_rows_are_gone_begins_anew(db: TestDb) {
    let (db, clerk, who, env) = killed_on_its_way(db).await;
    db.execute("DELETE FROM users").await;
    let (exit, said) = backfill(&env, &[]).await;
    assert_eq!(exit, 0, "{said}");
    assert!(
        said.contains("begins anew") && !said.contains("going on after"),
        "{said}"
    );
    equals(&db, &clerk, &who).await;
    db.remove().await;
}

async fn a_signal_ends_it_with_a_word_and_the_next_one_goes_on(db: TestDb) {
    let (db, clerk) = (db.migrated().await, production().await);
    let who = clerk.fill(2_500);
    let env = between(&clerk, &db);
    for signal in ["-TERM", "-INT"] {
        clerk.set_delay(Duration::from_millis(500));
        let mut process = Process::start("clerk-sync", &["backfill"], &env);
        let asked = clerk.requests(Endpoint::Users);
        bookmarked(&db).await;
        eventually("it waits for a page", SOON, async || {
            clerk.requests(Endpoint::Users) > asked
        })
        .await;
        process.signal(signal);
        let status = process.wait().await;
        let said = process.output();
        assert_eq!(status.code(), Some(1), "{signal}: {said}");
        assert!(
            said.contains("interrupted after") && said.contains("run it again"),
            "{said}"
        );
        clerk.set_delay(Duration::ZERO);
    }
    let (exit, said) = backfill(&env, &[]).await;
    assert_eq!(exit, 0, "{said}");
    assert!(said.contains("going on after"), "{said}");
    equals(&db, &clerk, &who).await;
    db.remove().await;
}

/// Clerk may ask for a pause of some minutes. That is no reason to give up.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_pause_that_clerk_asks_for_is_waited_for() {
    let (db, clerk) = (TestDb::sqlite().await.migrated().await, production().await);
    clerk.fill(1_200);
    let env = between(&clerk, &db);
    clerk.set_delay(Duration::from_millis(300));
    let mut process = Process::start("clerk-sync", &["backfill"], &env);
    eventually("the first page is asked for", SOON, async || {
        clerk.requests(Endpoint::Users) == 1
    })
    .await;
    clerk.fail_next(1, Failure::Status(429, Some(125)));
    eventually("it is told to wait", SOON, async || {
        clerk.requests(Endpoint::Users) == 2
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    process.signal("-TERM");
    process.wait().await;
    let said = process.output();
    assert!(!said.contains("rate limit"), "{said}");
    assert!(said.contains("interrupted after"), "{said}");
    db.remove().await;
}
