//! The ledger: a delivery counts once, and nothing rests on rows that are gone.

use chrono::{TimeDelta, Utc};
use clerk_sync_entity::processed_events;
use clerk_sync_pipeline::{
    Event, Millis,
    telemetry::{DbOperation, DbResult, Outcome},
};
use clerk_sync_projection::{Projection, ProjectionConfig, database::Kind};
use sea_orm::{ConnectionTrait as _, FromQueryResult as _, sea_query::Query};

use crate::{
    clerk::{START, event, user},
    database::{Db, metrics},
};

on_both_databases! {
    a_delivery_twice_in_one_batch_is_applied_once,
    a_delivery_again_in_a_later_batch_is_a_duplicate,
    an_event_that_was_put_aside_can_be_applied_later,
    noting_an_event_that_was_applied_changes_nothing,
    an_event_of_a_type_that_is_not_projected_is_ignored_once,
    the_ledger_tells_what_became_of_which_event,
    pruning_removes_only_old_rows_in_chunks,
    an_old_event_delivered_again_after_pruning_changes_nothing,
    an_empty_batch_is_applied,
}

async fn a_delivery_twice_in_one_batch_is_applied_once(db: &Db) {
    let (a, b) = (user("a").created("m1"), user("b").at(1).deleted("m2"));
    let batch = [b.clone(), a.clone(), a.clone(), b.clone(), a];
    let expected = ["deleted", "created", "duplicate", "duplicate", "duplicate"];
    assert_eq!(db.apply(&batch).await, expected);
    assert_eq!(db.rows().await, [user("a").row()]);
}

async fn a_delivery_again_in_a_later_batch_is_a_duplicate(db: &Db) {
    let (old, new) = (user("a").created("m1"), user("a").at(1).updated("m2"));
    assert_eq!(db.apply(std::slice::from_ref(&new)).await, ["created"]);
    assert_eq!(db.apply(std::slice::from_ref(&old)).await, ["stale"]);
    let before = db.users().await;
    assert_eq!(
        db.apply(&[old.clone(), new.clone()]).await,
        ["duplicate"; 2]
    );
    assert_eq!(db.users().await, before);
    // The verdict that stands is the first one.
    assert_eq!(db.outcome(&old).await.as_deref(), Some("stale"));
    assert_eq!(db.outcome(&new).await.as_deref(), Some("created"));
}

async fn an_event_that_was_put_aside_can_be_applied_later(db: &Db) {
    let projection = db.projection();
    for (name, aside) in [("a", Outcome::Retried), ("b", Outcome::DeadLettered)] {
        let event = user(name).created(&format!("m{name}"));
        projection.record(&[(&event, aside)]).await.unwrap();
        let expected = if name == "a" {
            "retried"
        } else {
            "dead_lettered"
        };
        assert_eq!(db.outcome(&event).await.as_deref(), Some(expected));
        assert_eq!(db.apply(std::slice::from_ref(&event)).await, ["created"]);
        assert_eq!(db.apply(&[event]).await, ["duplicate"]);
    }
    // Put aside twice, as on two rungs; and one that nobody can read.
    let unreadable = event("m3", "unparsable", "{");
    for aside in [Outcome::Retried, Outcome::DeadLettered] {
        projection.record(&[(&unreadable, aside)]).await.unwrap();
    }
    assert_eq!(
        db.outcome(&unreadable).await.as_deref(),
        Some("dead_lettered")
    );
    assert_eq!(db.apply(&[unreadable]).await, ["dead: malformed"]);
}

async fn noting_an_event_that_was_applied_changes_nothing(db: &Db) {
    // Two workers had the same delivery; one of them applied it, the other gave up.
    let (applied, other) = (user("a").created("m1"), user("b").created("m2"));
    db.apply(std::slice::from_ref(&applied)).await;
    let noted = [
        (&applied, Outcome::DeadLettered),
        (&other, Outcome::Retried),
    ];
    db.projection().record(&noted).await.unwrap();
    assert_eq!(db.outcome(&applied).await.as_deref(), Some("created"));
    assert_eq!(db.outcome(&other).await.as_deref(), Some("retried"));
    assert_eq!(db.apply(&[applied, other]).await, ["duplicate", "created"]);
    db.projection().record(&[]).await.unwrap();
}

async fn an_event_of_a_type_that_is_not_projected_is_ignored_once(db: &Db) {
    let body = r#"{"type":"userPasskey.enrolled","data":{"id":"pk_1"},"timestamp":1790000000777}"#;
    let unknown = event("m1", "userPasskey.enrolled", body);
    let batch = [unknown.clone(), user("a").created("m2"), unknown];
    assert_eq!(db.apply(&batch).await, ["ignored", "created", "duplicate"]);
}

async fn the_ledger_tells_what_became_of_which_event(db: &Db) {
    let mut created = user("a").at(7).created("m1");
    created.received_at = Millis(START + 8_123);
    db.apply(&[created]).await;
    let look = Query::select()
        .columns([
            processed_events::Column::EventId,
            processed_events::Column::Type,
            processed_events::Column::Subject,
            processed_events::Column::OccurredAt,
            processed_events::Column::ReceivedAt,
            processed_events::Column::ProcessedAt,
            processed_events::Column::Outcome,
        ])
        .from(processed_events::table(db.backend()))
        .to_owned();
    let rows = db.pool.query_all(&look).await.unwrap();
    let row = processed_events::Row::from_query_result(&rows[0], "").unwrap();
    assert_eq!(row.event_id, "m1");
    assert_eq!(row.event_type, "user.created");
    assert_eq!(row.subject.as_deref(), Some("user_a"));
    assert_eq!(row.occurred_at.unwrap().timestamp_millis(), START + 7_018);
    assert_eq!(row.received_at.timestamp_millis(), START + 8_123);
    assert!((Utc::now() - row.processed_at).abs() < TimeDelta::minutes(5));
    assert_eq!(row.outcome, "created");
}

/// Ledger rows that were written so many days ago.
async fn fill_ledger(db: &Db, rows: u32, days_ago: i64) {
    let at = (Utc::now() - TimeDelta::days(days_ago)).to_rfc3339();
    let (table, series) = match db.kind {
        Kind::Postgres => (
            "clerk_sync.processed_events",
            format!("generate_series(1, {rows}) n"),
        ),
        Kind::Sqlite => (
            "clerk_sync_processed_events",
            format!(
                "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s LIMIT {rows})
                  SELECT n FROM s)"
            ),
        ),
    };
    db.execute(&format!(
        "INSERT INTO {table} (event_id, type, received_at, processed_at, outcome)
         SELECT 'old_{days_ago}_' || n, 'user.updated', '{at}', '{at}', 'updated' FROM {series}"
    ))
    .await;
}

async fn pruning_removes_only_old_rows_in_chunks(db: &Db) {
    fill_ledger(db, 2_500, 31).await;
    fill_ledger(db, 700, 29).await;
    let young = user("a").created("m1");
    db.apply(std::slice::from_ref(&young)).await;

    let metrics = metrics();
    let projection = Projection::new(
        db.pool.clone(),
        ProjectionConfig::default(),
        metrics.clone(),
    );
    let before = Utc::now() - TimeDelta::days(30);
    assert_eq!(projection.prune(before).await.unwrap(), 2_500);
    let chunks = metrics.db_operations.get(DbOperation::Prune, DbResult::Ok);
    assert_eq!(chunks.get(), 3, "2,500 rows in chunks of 1,000");
    assert_eq!(projection.prune(before).await.unwrap(), 0);

    assert_eq!(
        projection
            .prune(Utc::now() - TimeDelta::days(28))
            .await
            .unwrap(),
        700
    );
    assert_eq!(db.apply(&[young]).await, ["duplicate"]);
}

async fn an_old_event_delivered_again_after_pruning_changes_nothing(db: &Db) {
    let old: Vec<Event> = vec![
        user("a").created("m1"),
        user("a").email("new@a.example").at(1).updated("m2"),
        user("b").email("a@a.example").at(2).created("m3"),
        user("c").created("m4"),
        user("c").at(3).deleted("m5"),
    ];
    db.apply(&old).await;
    let (rows, versions) = (db.users().await, db.versions().await);
    let pruned = db
        .projection()
        .prune(Utc::now() + TimeDelta::days(1))
        .await
        .unwrap();
    assert_eq!(pruned, 5);
    for event in &old {
        assert_eq!(db.apply(std::slice::from_ref(event)).await, ["stale"]);
    }
    db.projection()
        .prune(Utc::now() + TimeDelta::days(1))
        .await
        .unwrap();
    assert_eq!(db.apply(&old).await, ["stale"; 5]);
    assert_eq!((db.users().await, db.versions().await), (rows, versions));
}

async fn an_empty_batch_is_applied(db: &Db) {
    let nothing: [&str; 0] = [];
    let mut batch = db.projection().read([]);
    db.projection().apply(&mut batch).await.unwrap();
    assert_eq!(batch.into_verdicts().len(), nothing.len());
}
