//! What must not be taken for drift, and what must not be deleted.

use clerk_sync_stand_in::Endpoint;

use super::{between, drift, in_step, on_both_databases, plant_ghost, reconcile};
use crate::harness::{process::run, servers::TestDb};

on_both_databases! {
    users_that_clerk_counts_and_does_not_list_are_no_ghosts,
    rows_that_may_not_be_deleted_raise_no_limit,
    strangers_are_not_asked_for,
}

async fn users_that_clerk_counts_and_does_not_list_are_no_ghosts(db: TestDb) {
    let (db, clerk, who) = in_step(db, 30).await;
    let env = between(&clerk, &db);
    clerk.cap_pages(0);
    let args = [
        "reconcile",
        "--fix",
        "--max-deletes",
        "100%",
        "--settle",
        "0s",
    ];
    let (status, out, err) = run("clerk-sync", &args, &env).await;
    assert_eq!(status.code(), Some(1), "{out}{err}");
    assert!(err.contains("has listed 0"), "{err}");
    // And nobody was asked for, one by one.
    assert_eq!(clerk.requests(Endpoint::User), 0);
    assert_eq!(db.users().await.len(), who.len());
    db.remove().await;
}

/// Rows of the application's own, of nobody at Clerk.
async fn plant_strangers(db: &TestDb, count: usize) {
    let one = |number| {
        format!("('s{number}', 'seed{number}', '{number}@seed.example', '2026-01-01 00:00:00')")
    };
    let rows: Vec<String> = (0..count).map(one).collect();
    db.execute(&format!(
        r#"INSERT INTO users (id, "clerkId", email, "updatedAt") VALUES {}"#,
        rows.join(", ")
    ))
    .await;
}

async fn rows_that_may_not_be_deleted_raise_no_limit(db: TestDb) {
    let (db, clerk, _) = in_step(db, 10).await;
    plant_strangers(&db, 300).await;
    for number in 0..3 {
        plant_ghost(&db, &format!("user_ghost{number}")).await;
    }
    // One of a hundred of 13 rows: one.
    let (exit, report) = reconcile(&between(&clerk, &db), &["--fix"]).await;
    assert_eq!((exit, drift(&report)), (3, [0, 0, 3, 0]), "{report}");
    assert_eq!(report["max_deletes_exceeded"], 1);
    assert_eq!((&report["left"], &report["rows"]), (&3.into(), &313.into()));
    assert_eq!(db.users().await.len(), 313);
    db.remove().await;
}

async fn strangers_are_not_asked_for(db: TestDb) {
    let (db, clerk, _) = in_step(db, 10).await;
    plant_strangers(&db, 50).await;
    let (exit, report) = reconcile(&between(&clerk, &db), &["--fix"]).await;
    assert_eq!((exit, drift(&report)), (0, [0; 4]), "{report}");
    assert_eq!(report["strangers"], 50);
    assert_eq!(clerk.requests(Endpoint::User), 0);
    assert_eq!(db.users().await.len(), 60);
    db.remove().await;
}
