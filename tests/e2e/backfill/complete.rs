//! That all is done is said only where it is.

use super::{backfill, between, equals, on_both_databases, production, summary};
use crate::harness::servers::TestDb;

on_both_databases! {
    pages_shorter_than_asked_for_are_not_taken_for_the_end,
    a_living_user_who_is_remembered_as_deleted_is_told,
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

async fn a_living_user_who_is_remembered_as_deleted_is_told(db: TestDb) {
    let (db, clerk) = (db.migrated().await, production().await);
    let who = clerk.fill(20);
    let env = between(&clerk, &db);
    assert_eq!(backfill(&env, &[]).await.0, 0);
    let versions = super::bookmarks(&db).replace("bookmarks", "user_versions");
    for id in [&who[4], &who[5]] {
        db.execute(&format!(
            "UPDATE {versions} SET deleted_at = '2026-01-01 00:00:00+00' WHERE clerk_id = '{id}'"
        ))
        .await;
        db.execute(&format!(r#"DELETE FROM users WHERE "clerkId" = '{id}'"#))
            .await;
    }
    // One of them is gone indeed.
    clerk.remove(&who[5]);
    let (exit, said) = backfill(&env, &[]).await;
    assert_eq!((exit, summary(&said)), (1, [0, 0, 18, 0, 1]), "{said}");
    assert!(
        said.contains(&who[4]) && said.contains("remembered as deleted"),
        "{said}"
    );
    db.remove().await;
}

/// Its neighbours are brought, and it is named.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_a_time_spoils_no_page() {
    let (db, clerk) = (TestDb::sqlite().await.migrated().await, production().await);
    let who = clerk.fill(20);
    clerk.put(r#"{"id":"user_untimely","object":"user","created_at":null,"updated_at":null}"#);
    let (exit, said) = backfill(&between(&clerk, &db), &[]).await;
    assert_eq!((exit, summary(&said)), (1, [20, 0, 0, 0, 1]), "{said}");
    assert!(
        said.contains("user_untimely") && said.contains("malformed"),
        "{said}"
    );
    equals(&db, &clerk, &who).await;
    db.remove().await;
}
