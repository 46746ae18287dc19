//! Rule two: a delete is final.

use clerk_sync_pipeline::Event;

use crate::{
    clerk::user,
    database::{Db, Held},
};

on_both_databases! {
    a_late_event_keeps_nobody_in_a_later_batch,
    a_late_event_keeps_nobody_in_the_same_batch,
    a_delete_after_its_user_removes_the_row,
    a_delete_of_an_unknown_user_is_remembered,
    a_second_delete_changes_nothing,
    a_delete_beats_versions_from_the_future,
    a_delete_takes_only_its_own_user,
}

/// What can come late: all of them newer than the delete by their own clocks.
fn late(name: &str) -> [Event; 3] {
    let late = user(name).at(1_000);
    [
        late.created(&format!("{name}1")),
        late.updated(&format!("{name}2")),
        late.signed_in(&format!("{name}3")),
    ]
}

async fn is_gone(db: &Db, clerk_id: &str) {
    assert!(db.rows().await.is_empty());
    assert_eq!(db.versions().await[clerk_id], Held::Tombstone);
}

async fn a_late_event_keeps_nobody_in_a_later_batch(db: &Db) {
    db.apply(&[user("a").created("m1")]).await;
    assert_eq!(
        db.apply(&[user("a").at(5).deleted("m2")]).await,
        ["deleted"]
    );
    for event in late("a") {
        assert_eq!(db.apply(&[event]).await, ["stale"]);
        is_gone(db, "user_a").await;
    }
}

async fn a_late_event_keeps_nobody_in_the_same_batch(db: &Db) {
    // The delete in each place of the batch, the user known before and not.
    for (name, known) in [("a", false), ("b", true)] {
        for place in 0..=3 {
            let name = format!("{name}{place}");
            if known {
                db.apply(&[user(&name).created(&format!("{name}0"))]).await;
            }
            let mut batch = late(&name).to_vec();
            batch.insert(place, user(&name).at(5).deleted(&format!("{name}d")));
            let mut expected = ["stale"; 4];
            expected[place] = "deleted";
            assert_eq!(db.apply(&batch).await, expected);
            is_gone(db, &format!("user_{name}")).await;
        }
    }
}

async fn a_delete_after_its_user_removes_the_row(db: &Db) {
    // An earlier batch: the user's newest event is applied, then the delete, which has no version.
    db.apply(&late("a")).await;
    assert_eq!(db.rows().await.len(), 1);
    assert_eq!(
        db.apply(&[user("a").at(5).deleted("m2")]).await,
        ["deleted"]
    );
    is_gone(db, "user_a").await;
}

async fn a_delete_of_an_unknown_user_is_remembered(db: &Db) {
    assert_eq!(
        db.apply(&[user("a").at(5).deleted("m2")]).await,
        ["deleted"]
    );
    is_gone(db, "user_a").await;
    assert_eq!(db.apply(&late("a")).await, ["stale", "stale", "stale"]);
    is_gone(db, "user_a").await;
}

async fn a_second_delete_changes_nothing(db: &Db) {
    let [first, second, third] = ["m1", "m2", "m3"].map(|id| user("a").at(5).deleted(id));
    db.apply(&[user("a").created("m0")]).await;
    assert_eq!(db.apply(&[first, second]).await, ["deleted", "stale"]);
    let stone = db.number(&deleted_at(db)).await;
    assert_eq!(db.apply(&[third]).await, ["stale"]);
    assert_eq!(
        db.number(&deleted_at(db)).await,
        stone,
        "the first delete is the one remembered"
    );
    is_gone(db, "user_a").await;
}

async fn a_delete_beats_versions_from_the_future(db: &Db) {
    let far = user("a").at(1_000_000_000);
    db.apply(&[far.created("m1")]).await;
    assert_eq!(db.apply(&[user("a").deleted("m2")]).await, ["deleted"]);
    assert_eq!(db.apply(&[far.updated("m3")]).await, ["stale"]);
    is_gone(db, "user_a").await;
}

async fn a_delete_takes_only_its_own_user(db: &Db) {
    let [a, b, c] = ["a", "b", "c"].map(user);
    db.apply(&[a.created("m1"), b.created("m2"), c.created("m3")])
        .await;
    assert_eq!(db.apply(&[b.at(1).deleted("m4")]).await, ["deleted"]);
    assert_eq!(db.rows().await, [a.row(), c.row()]);
}

/// The tombstone's time, as some number.
fn deleted_at(db: &Db) -> String {
    match db.kind {
        clerk_sync_projection::database::Kind::Postgres => {
            "SELECT (extract(epoch FROM deleted_at) * 1000000)::bigint FROM clerk_sync.user_versions"
        }
        clerk_sync_projection::database::Kind::Sqlite => {
            "SELECT CAST(unixepoch(deleted_at, 'subsec') * 1000 AS INTEGER)
             FROM clerk_sync_user_versions"
        }
    }
    .to_owned()
}
