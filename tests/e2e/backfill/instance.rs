//! Which instance the rows are of: they decide, not what was heard first.

use super::{
    another_instance, backfill, between, bookmarks, equals, on_both_databases, production, summary,
};
use crate::harness::{
    process::{Env, run},
    servers::TestDb,
};

on_both_databases! {
    a_key_of_another_instance_is_refused,
    rows_that_an_application_made_are_of_an_instance_too,
    an_empty_table_is_of_the_instance_of_its_first_event,
    to_look_pins_no_instance,
}

async fn a_key_of_another_instance_is_refused(db: TestDb) {
    let (db, ours) = (db.migrated().await, production().await);
    let who = ours.fill(30);
    let other = another_instance(&ours, &who[..5]).await;
    let refused = async |env: &Env, says: &str| {
        let (exit, said) = backfill(env, &[]).await;
        assert_eq!(exit, 1, "{said}");
        assert!(
            said.contains(says) && said.contains("Nothing was changed"),
            "{said}"
        );
        equals(&db, &ours, &who).await;
    };
    assert_eq!(backfill(&between(&ours, &db), &[]).await.0, 0);
    // Remembered.
    refused(
        &between(&other, &db),
        "the rows came from ins_3EZfR00000000000000standin1",
    )
    .await;
    // Not remembered, but none of the rows is known there.
    let table = bookmarks(&db);
    let forget = format!("DELETE FROM {table}");
    db.execute(&forget).await;
    refused(&between(&other, &db), "knows 0 of 30 users").await;
    // An event of its own proves nothing against the rows, be it for the key or against it.
    let note = |id: &str| {
        format!("INSERT INTO {table} VALUES ('first_instance', '{id}', '2026-01-01 00:00:00+00')")
    };
    db.execute(&note(&other.settings().instance_id)).await;
    refused(&between(&other, &db), "knows 0 of 30 users").await;
    db.execute(&forget).await;
    db.execute(&note("ins_example")).await;
    refused(
        &between(&other, &db),
        "the first event came from ins_example",
    )
    .await;
    assert_eq!(backfill(&between(&ours, &db), &[]).await.0, 0);
    // Said in the settings.
    let mut env = between(&ours, &db);
    env.insert("CLERK_INSTANCE_ID", "ins_else".to_owned());
    let (exit, said) = backfill(&env, &[]).await;
    assert_eq!(exit, 1, "{said}");
    assert!(said.contains("CLERK_INSTANCE_ID says ins_else"), "{said}");
    // Meant so.
    let (exit, said) = backfill(&between(&other, &db), &["--adopt-instance"]).await;
    assert_eq!(exit, 0, "{said}");
    assert_eq!(summary(&said), [5, 0, 0, 0, 0]);
    let (exit, said) = backfill(&between(&ours, &db), &[]).await;
    assert_eq!(exit, 1, "{said}");
    db.remove().await;
}

/// All rows are the application's own: the sync has written none of them.
async fn rows_that_an_application_made_are_of_an_instance_too(db: TestDb) {
    let (db, ours) = (db.migrated().await, production().await);
    let who = ours.fill(30);
    // Beside them, what its own seeds and tests made: of no instance.
    let seeds = (0..30).map(|number| format!("userXseed{number}"));
    for id in who.iter().cloned().chain(seeds) {
        db.execute(&format!(
            r#"INSERT INTO users (id, "clerkId", email, "updatedAt")
               VALUES ('{id}', '{id}', '{id}@own.example', '2026-01-01 00:00:00')"#
        ))
        .await;
    }
    let before = db.users().await;
    let other = another_instance(&ours, &who[..5]).await;
    let (exit, said) = backfill(&between(&other, &db), &[]).await;
    assert_eq!(exit, 1, "{said}");
    assert!(said.contains("knows 0 of 30 users"), "{said}");
    assert_eq!(db.users().await, before);

    let (exit, said) = backfill(&between(&ours, &db), &[]).await;
    assert_eq!(exit, 0, "{said}");
    db.execute(r#"DELETE FROM users WHERE "clerkId" LIKE 'userX%'"#)
        .await;
    equals(&db, &ours, &who).await;
    db.remove().await;
}

/// Nobody is left to ask about.
async fn an_empty_table_is_of_the_instance_of_its_first_event(db: TestDb) {
    let (db, ours) = (db.migrated().await, production().await);
    let who = ours.fill(10);
    let other = another_instance(&ours, &who).await;
    let table = bookmarks(&db);
    let id = &ours.settings().instance_id;
    db.execute(&format!(
        "INSERT INTO {table} VALUES ('first_instance', '{id}', '2026-01-01 00:00:00+00')"
    ))
    .await;
    let (exit, said) = backfill(&between(&other, &db), &[]).await;
    assert_eq!(exit, 1, "{said}");
    assert!(
        said.contains(&format!("the first event came from {id}")),
        "{said}"
    );
    assert!(db.users().await.is_empty());
    let (exit, said) = backfill(&between(&ours, &db), &[]).await;
    assert_eq!(exit, 0, "{said}");
    equals(&db, &ours, &who).await;
    db.remove().await;
}

async fn to_look_pins_no_instance(db: TestDb) {
    let (db, ours) = (db.migrated().await, production().await);
    let who = ours.fill(10);
    let other = another_instance(&ours, &who).await;
    let args = ["reconcile", "--settle", "0s"];
    let (status, out, err) = run("clerk-sync", &args, &between(&other, &db)).await;
    assert_eq!(status.code(), Some(3), "{out}{err}");
    let (exit, said) = backfill(&between(&ours, &db), &[]).await;
    assert_eq!(exit, 0, "{said}");
    equals(&db, &ours, &who).await;
    db.remove().await;
}
