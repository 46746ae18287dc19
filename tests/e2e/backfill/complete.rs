//! That all is done is said only where it is.

use super::{backfill, between, equals, on_both_databases, production, summary};
use crate::harness::servers::TestDb;

on_both_databases! {
    pages_shorter_than_asked_for_are_not_taken_for_the_end,
}

async fn pages_shorter_than_asked_for_are_not_taken_for_the_end(db: TestDb) {
    let (db, clerk) = (db.migrated().await, production().await);
    let who = clerk.fill(1_203);
    let env = between(&clerk, &db);
    // Nothing at all where there is somebody.
    clerk.cap_pages(0);
    let (exit, said) = backfill(&env, &[]).await;
    assert_eq!(exit, 1, "{said}");
    assert!(
        said.contains("Clerk has 1,203 users, and has listed 0"),
        "{said}"
    );
    clerk.cap_pages(100);
    let (exit, said) = backfill(&env, &[]).await;
    assert_eq!((exit, summary(&said)), (0, [1_203, 0, 0, 0, 0]), "{said}");
    equals(&db, &clerk, &who).await;
    db.remove().await;
}
