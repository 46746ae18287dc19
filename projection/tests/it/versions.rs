//! Rule one: only what is newer is applied.

use serde_json::json;

use crate::{
    clerk::{START, user},
    database::Db,
};

on_both_databases! {
    a_user_is_projected_with_every_column,
    a_stale_update_changes_nothing,
    a_late_created_changes_nothing_after_an_update,
    an_update_that_arrives_first_creates_the_row,
    updates_in_one_batch_end_with_the_newest,
    the_same_updated_at_is_resolved_by_the_envelopes_timestamp,
    the_same_timestamps_are_resolved_by_the_event_id_bytewise,
    a_session_carries_its_user,
    a_session_without_its_user_changes_nothing,
    an_envelope_in_seconds_is_compared_in_milliseconds,
    the_time_of_the_attempt_orders_nothing,
    an_id_never_changes,
    a_name_that_is_taken_away_is_null,
}

async fn a_user_is_projected_with_every_column(db: &Db) {
    let maren = user("maren").at(5);
    assert_eq!(db.apply(&[maren.created("m1")]).await, ["created"]);

    assert_eq!(db.rows().await, [maren.row()]);
    let id = &db.users().await[0].id;
    assert!(id.len() == 25 && id.starts_with('c'), "{id} is no cuid");
    assert_eq!(db.versions().await["user_maren"], maren.version("m1"));
}

async fn a_stale_update_changes_nothing(db: &Db) {
    let old = user("a").named("Old").at(1);
    let new = user("a").named("New").at(2);
    assert_eq!(db.apply(&[new.updated("m2")]).await, ["created"]);
    assert_eq!(db.apply(&[old.updated("m1")]).await, ["stale"]);
    assert_eq!(db.rows().await, [new.row()]);
    assert_eq!(db.versions().await["user_a"], new.version("m2"));
}

async fn a_late_created_changes_nothing_after_an_update(db: &Db) {
    let (signed_up, edited) = (user("a"), user("a").named("Edited").at(1));
    db.apply(&[edited.updated("m2")]).await;
    assert_eq!(db.apply(&[signed_up.created("m1")]).await, ["stale"]);
    assert_eq!(db.rows().await, [edited.row()]);
}

async fn an_update_that_arrives_first_creates_the_row(db: &Db) {
    let edited = user("a").named("Edited").at(1);
    assert_eq!(db.apply(&[edited.updated("m2")]).await, ["created"]);
    assert_eq!(db.rows().await, [edited.row()]);
    // In one batch too, whichever comes first in it.
    let (signed_up, edited) = (user("b"), user("b").named("Edited").at(1));
    let batch = [edited.updated("m4"), signed_up.created("m3")];
    assert_eq!(db.apply(&batch).await, ["created", "stale"]);
    assert_eq!(db.rows().await[1], edited.row());
}

async fn updates_in_one_batch_end_with_the_newest(db: &Db) {
    let version = |at: i64| user("a").named(&format!("Name {at}")).at(at);
    // The ids sort the other way round.
    let batch = [3, 1, 5, 2, 4].map(|at| version(at).updated(&format!("m{}", 9 - at)));
    assert_eq!(
        db.apply(&batch).await,
        ["stale", "stale", "created", "stale", "stale"]
    );
    assert_eq!(db.rows().await, [version(5).row()]);
}

async fn the_same_updated_at_is_resolved_by_the_envelopes_timestamp(db: &Db) {
    let first = user("a").named("First").at(1).sent_at(START + 1_100);
    let second = user("a").named("Second").at(1).sent_at(START + 1_101);
    // The ids sort the other way round.
    assert_eq!(db.apply(&[second.updated("m1")]).await, ["created"]);
    assert_eq!(db.apply(&[first.updated("m2")]).await, ["stale"]);
    assert_eq!(db.rows().await, [second.row()]);
    let third = user("a").named("Third").at(1).sent_at(START + 1_102);
    assert_eq!(db.apply(&[third.updated("m0")]).await, ["updated"]);
    assert_eq!(db.rows().await, [third.row()]);
}

async fn the_same_timestamps_are_resolved_by_the_event_id_bytewise(db: &Db) {
    let named = |name: &str| user("a").named(name);
    // Bytewise `Z` is before `_`, which is before `a`; most locales see it otherwise.
    assert_eq!(db.apply(&[named("2").updated("m_")]).await, ["created"]);
    assert_eq!(db.apply(&[named("1").updated("mZ")]).await, ["stale"]);
    assert_eq!(db.apply(&[named("3").updated("ma")]).await, ["updated"]);
    assert_eq!(db.apply(&[named("2").updated("mB")]).await, ["stale"]);
    assert_eq!(db.rows().await, [named("3").row()]);
    let batch = [
        named("0").updated("mb"),
        named("9").updated("mc"),
        named("0").updated("mA"),
    ];
    assert_eq!(db.apply(&batch).await, ["stale", "updated", "stale"]);
    assert_eq!(db.rows().await, [named("9").row()]);
}

async fn a_session_carries_its_user(db: &Db) {
    let (signed_up, edited) = (user("a"), user("a").named("Edited").at(1));
    assert_eq!(db.apply(&[edited.signed_in("m2")]).await, ["created"]);
    assert_eq!(db.apply(&[signed_up.created("m1")]).await, ["stale"]);
    assert_eq!(db.rows().await, [edited.row()]);
    // A session that began before the edit is no news, whenever it arrives.
    assert_eq!(db.apply(&[signed_up.signed_in("m3")]).await, ["stale"]);
    assert_eq!(db.rows().await, [edited.row()]);
}

async fn a_session_without_its_user_changes_nothing(db: &Db) {
    let body = json!({ "type": "session.ended", "timestamp": START, "object": "event",
                       "data": { "id": "sess_1", "user_id": "user_a" } });
    let ended = crate::clerk::event("m1", "session.ended", body.to_string().into_bytes());
    assert_eq!(db.apply(&[ended]).await, ["ignored"]);
    assert!(db.rows().await.is_empty() && db.versions().await.is_empty());
}

async fn an_envelope_in_seconds_is_compared_in_milliseconds(db: &Db) {
    let second = START / 1000 + 2;
    let earlier = user("a").named("Earlier").sent_at(START + 1_999);
    let in_seconds = user("a").named("In seconds").sent_at(second);
    let later = user("a").named("Later").sent_at(START + 2_001);
    assert_eq!(db.apply(&[in_seconds.updated("m2")]).await, ["created"]);
    assert_eq!(db.apply(&[earlier.updated("m3")]).await, ["stale"]);
    assert_eq!(db.rows().await, [in_seconds.row()]);
    assert_eq!(
        db.versions().await["user_a"],
        in_seconds.sent_at(second * 1000).version("m2")
    );
    assert_eq!(db.apply(&[later.updated("m1")]).await, ["updated"]);
    assert_eq!(db.rows().await, [later.row()]);
}

async fn the_time_of_the_attempt_orders_nothing(db: &Db) {
    let (old, new) = (user("a").named("Old").at(1), user("a").named("New").at(2));
    db.apply(&[new.updated("m2")]).await;
    let mut retried = old.updated("m1");
    retried.attempted_at += 100_000;
    assert_eq!(db.apply(&[retried]).await, ["stale"]);
    assert_eq!(db.rows().await, [new.row()]);
}

async fn an_id_never_changes(db: &Db) {
    db.apply(&[user("a").created("m1")]).await;
    let id = db.users().await[0].id.clone();
    let moved = user("a").email("new@a.example").at(1);
    assert_eq!(db.apply(&[moved.updated("m2")]).await, ["updated"]);
    assert_eq!(db.apply(&[moved.at(2).signed_in("m3")]).await, ["updated"]);
    assert_eq!(db.users().await[0].id, id);
}

async fn a_name_that_is_taken_away_is_null(db: &Db) {
    db.apply(&[user("a").created("m1")]).await;
    let bare = user("a")
        .with("first_name", json!(null))
        .with("last_name", json!(null))
        .with("image_url", json!(null))
        .at(1);
    assert_eq!(db.apply(&[bare.updated("m2")]).await, ["updated"]);
    assert_eq!(db.rows().await, [bare.row()]);
    assert_eq!(db.rows().await[0].name, None);
}
