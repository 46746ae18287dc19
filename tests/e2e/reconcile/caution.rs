//! What must not be taken for drift, and what must not be deleted.

use clerk_sync_stand_in::Endpoint;

use super::{between, in_step, on_both_databases};
use crate::harness::{process::run, servers::TestDb};

on_both_databases! {
    users_that_clerk_counts_and_does_not_list_are_no_ghosts,
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
