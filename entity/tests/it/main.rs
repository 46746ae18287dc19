//! Every named query, run on a real SQLite database in memory. (On PostgreSQL they are run by the
//! tests of `migration`, which has the tables.)

#![expect(
    clippy::unwrap_used,
    reason = "the helpers panic as the tests that call them would"
)]

use clerk_sync_entity::{credits, processed_events, user_versions, users};
use sea_orm::prelude::*;
use sea_orm::sea_query::Query;
use sea_orm::{Database, DatabaseConnection, DbBackend, FromQueryResult, StatementBuilder};

const SQLITE: DbBackend = DbBackend::Sqlite;

/// The tables as `migration` makes them.
const TABLES: &str = r#"
CREATE TABLE "users" (
    "id" TEXT NOT NULL PRIMARY KEY, "clerkId" TEXT NOT NULL, "email" TEXT NOT NULL, "name" TEXT,
    "imageUrl" TEXT, "createdAt" DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" DATETIME NOT NULL);
CREATE UNIQUE INDEX "users_clerkId_key" ON "users"("clerkId");
CREATE UNIQUE INDEX "users_email_key" ON "users"("email");
CREATE TABLE "credits" (
    "id" TEXT NOT NULL PRIMARY KEY, "userId" TEXT NOT NULL, "amount" INTEGER NOT NULL DEFAULT 0,
    "createdAt" DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP, "updatedAt" DATETIME NOT NULL,
    CONSTRAINT "credits_userId_fkey" FOREIGN KEY ("userId") REFERENCES "users" ("id")
        ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE "clerk_sync_processed_events" (
    "event_id" TEXT NOT NULL PRIMARY KEY, "type" TEXT NOT NULL, "subject" TEXT,
    "occurred_at" DATETIME, "received_at" DATETIME NOT NULL, "processed_at" DATETIME NOT NULL,
    "outcome" TEXT NOT NULL);
CREATE TABLE "clerk_sync_user_versions" (
    "clerk_id" TEXT NOT NULL PRIMARY KEY, "updated_at_ms" BIGINT NOT NULL,
    "occurred_at_ms" BIGINT NOT NULL, "event_id" TEXT NOT NULL, "deleted_at" DATETIME);
"#;

async fn database() -> DatabaseConnection {
    let mut options = sea_orm::ConnectOptions::new("sqlite::memory:");
    options.max_connections(1); // each connection would be a database of its own
    let db = Database::connect(options).await.unwrap();
    db.execute_unprepared(TABLES).await.unwrap();
    db
}

/// Runs a statement that returns one text column, and sorts what comes back.
async fn returned(db: &DatabaseConnection, statement: &impl StatementBuilder) -> Vec<String> {
    let rows = db.query_all(statement).await.unwrap();
    let mut texts: Vec<String> = rows
        .iter()
        .map(|row| row.try_get_by_index(0).unwrap())
        .collect();
    texts.sort();
    texts
}

fn at(seconds: i64) -> DateTimeUtc {
    DateTimeUtc::from_timestamp(seconds, 0).unwrap()
}

fn event(id: &str, outcome: &str, processed_at: DateTimeUtc) -> processed_events::Row {
    processed_events::Row {
        event_id: id.to_owned(),
        event_type: "user.updated".to_owned(),
        subject: Some("user_a".to_owned()),
        occurred_at: None,
        received_at: at(1),
        processed_at,
        outcome: outcome.to_owned(),
    }
}

fn version(clerk_id: &str, parts: (i64, i64, &str)) -> user_versions::Row {
    user_versions::Row {
        clerk_id: clerk_id.to_owned(),
        updated_at_ms: parts.0,
        occurred_at_ms: parts.1,
        event_id: parts.2.to_owned(),
        deleted_at: None,
    }
}

fn user(name: &str) -> users::Model {
    users::Model {
        id: format!("cuid_{name}"),
        clerk_id: format!("user_{name}"),
        email: format!("{name}@example.com"),
        name: None,
        image_url: None,
        created_at: at(1).naive_utc(),
        updated_at: at(2).naive_utc(),
    }
}

async fn ledger(db: &DatabaseConnection) -> Vec<processed_events::Row> {
    use processed_events::Column;
    let select = Query::select()
        .columns([
            Column::EventId,
            Column::Type,
            Column::Subject,
            Column::OccurredAt,
        ])
        .columns([Column::ReceivedAt, Column::ProcessedAt, Column::Outcome])
        .from(processed_events::table(SQLITE))
        .order_by(Column::EventId, sea_orm::Order::Asc)
        .to_owned();
    let rows = db.query_all(&select).await.unwrap();
    rows.iter()
        .map(|row| processed_events::Row::from_query_result(row, "").unwrap())
        .collect()
}

#[tokio::test]
async fn an_event_is_claimed_once_unless_it_was_put_aside() {
    let db = database().await;
    let first = ["created", "retried", "dead_lettered"]
        .map(|outcome| event(&format!("msg_{outcome}"), outcome, at(10)));
    let claimed = returned(&db, &processed_events::claim(SQLITE, first)).await;
    assert_eq!(claimed, ["msg_created", "msg_dead_lettered", "msg_retried"]);

    let again = ["msg_created", "msg_retried", "msg_dead_lettered", "msg_new"].map(|id| {
        let mut row = event(id, "updated", at(20));
        row.subject = None;
        row.received_at = at(15);
        row
    });
    let claimed = returned(&db, &processed_events::claim(SQLITE, again)).await;
    assert_eq!(claimed, ["msg_dead_lettered", "msg_new", "msg_retried"]);

    let rows = ledger(&db).await;
    assert_eq!(
        rows[0],
        event("msg_created", "created", at(10)),
        "a duplicate changes nothing"
    );
    let mut retried = event("msg_retried", "updated", at(20));
    retried.subject = None;
    assert_eq!(rows[3], retried, "received_at is the first one");
}

#[tokio::test]
async fn outcomes_are_corrected_for_the_named_events_only() {
    let db = database().await;
    let rows = ["msg_1", "msg_2", "msg_3"].map(|id| event(id, "updated", at(10)));
    db.execute(&processed_events::claim(SQLITE, rows))
        .await
        .unwrap();
    let update =
        processed_events::set_outcomes(SQLITE, &[("msg_1", "stale"), ("msg_3", "retried")]);
    assert_eq!(db.execute(&update).await.unwrap().rows_affected(), 2);
    let outcomes: Vec<String> = ledger(&db)
        .await
        .into_iter()
        .map(|row| row.outcome)
        .collect();
    assert_eq!(outcomes, ["stale", "updated", "retried"]);

    let select = processed_events::outcomes(SQLITE, &["msg_3", "msg_unknown"]);
    let rows = db.query_all(&select).await.unwrap();
    let read: Vec<(String, String)> = rows
        .iter()
        .map(|row| row.try_get_many_by_index().unwrap())
        .collect();
    assert_eq!(read, [("msg_3".to_owned(), "retried".to_owned())]);
}

#[tokio::test]
async fn prune_deletes_the_oldest_up_to_the_limit() {
    let db = database().await;
    // SQLite keeps times as text, without a fraction where it is zero: the order must hold.
    let times = [5_000, 3_000, 3_001, 3_999].map(DateTimeUtc::from_timestamp_millis);
    let rows = times.iter().enumerate().map(|(i, time)| {
        let mut row = event(&format!("msg_{i}"), "updated", at(0));
        row.processed_at = time.unwrap();
        row
    });
    db.execute(&processed_events::claim(SQLITE, rows))
        .await
        .unwrap();
    let prune = processed_events::prune(SQLITE, at(5), 2);
    assert_eq!(db.execute(&prune).await.unwrap().rows_affected(), 2);
    let left: Vec<String> = ledger(&db)
        .await
        .into_iter()
        .map(|row| row.event_id)
        .collect();
    assert_eq!(left, ["msg_0", "msg_3"]);
    assert_eq!(db.execute(&prune).await.unwrap().rows_affected(), 1);
    assert_eq!(db.execute(&prune).await.unwrap().rows_affected(), 0);
}

#[tokio::test]
async fn only_a_newer_version_wins() {
    let db = database().await;
    let held = version("user_a", (10, 10, "msg_m"));
    let advance = |row: user_versions::Row| user_versions::advance(SQLITE, [row]);
    assert_eq!(returned(&db, &advance(held.clone())).await, ["user_a"]);
    for older in [
        (9, 99, "msg_z"),
        (10, 9, "msg_z"),
        (10, 10, "msg_Z"),
        (10, 10, "msg_m"),
    ] {
        assert!(
            returned(&db, &advance(version("user_a", older)))
                .await
                .is_empty(),
            "{older:?}"
        );
    }
    let lock = user_versions::Row::lock_only("user_a");
    assert!(returned(&db, &advance(lock)).await.is_empty());
    for newer in [(10, 10, "msg_n"), (10, 11, "msg_a"), (11, 0, "msg_a")] {
        let newer = version("user_a", newer);
        assert_eq!(returned(&db, &advance(newer)).await, ["user_a"]);
    }
}

#[tokio::test]
async fn a_tombstone_is_final() {
    let db = database().await;
    let advance = |row: user_versions::Row| user_versions::advance(SQLITE, [row]);
    let mut tombstone = version("user_a", (0, 5, "msg_delete"));
    tombstone.deleted_at = Some(at(5));
    returned(&db, &advance(version("user_a", (10, 10, "msg_m")))).await;
    assert_eq!(returned(&db, &advance(tombstone.clone())).await, ["user_a"]);
    assert!(returned(&db, &advance(tombstone)).await.is_empty());
    assert!(
        returned(&db, &advance(version("user_a", (99, 99, "msg_z"))))
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn an_upsert_keeps_the_id_and_overwrites_the_rest() {
    let db = database().await;
    let first = returned(&db, &users::upsert(SQLITE, [user("a"), user("b")])).await;
    assert_eq!(first, ["cuid_a", "cuid_b"]);

    let changed = users::Model {
        id: "another".into(),
        email: "new@example.com".into(),
        name: Some("Ann".into()),
        updated_at: at(9).naive_utc(),
        ..user("a")
    };
    assert_eq!(
        returned(&db, &users::upsert(SQLITE, [changed.clone()])).await,
        ["cuid_a"]
    );
    let kept = users::Entity::find_by_id("cuid_a")
        .one(&db)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        kept,
        users::Model {
            id: "cuid_a".into(),
            ..changed
        }
    );
}

#[tokio::test]
async fn a_holder_never_written_by_the_sync_has_no_version() {
    let db = database().await;
    db.execute(&users::upsert(SQLITE, [user("a"), user("b"), user("c")]))
        .await
        .unwrap();
    let versions = [version("user_a", (7, 8, "msg_a"))];
    db.execute(&user_versions::advance(SQLITE, versions))
        .await
        .unwrap();

    let select = users::holders(SQLITE, &["a@example.com", "b@example.com", "x@example.com"]);
    let rows = db.query_all(&select).await.unwrap();
    let mut holders: Vec<users::Holder> = rows
        .iter()
        .map(|row| users::Holder::from_query_result(row, "").unwrap())
        .collect();
    holders.sort_by(|a, b| a.clerk_id.cmp(&b.clerk_id));
    let ours = users::Holder {
        clerk_id: "user_a".into(),
        email: "a@example.com".into(),
        updated_at_ms: Some(7),
        occurred_at_ms: Some(8),
        event_id: Some("msg_a".into()),
    };
    let theirs = users::Holder {
        clerk_id: "user_b".into(),
        email: "b@example.com".into(),
        updated_at_ms: None,
        occurred_at_ms: None,
        event_id: None,
    };
    assert_eq!(holders, [ours, theirs]);
}

#[tokio::test]
async fn two_users_swap_addresses_once_both_are_released() {
    let db = database().await;
    db.execute(&users::upsert(SQLITE, [user("a"), user("b")]))
        .await
        .unwrap();
    let mut swapped = [user("a"), user("b")];
    swapped[0].email = "b@example.com".into();
    swapped[1].email = "a@example.com".into();
    let swap = users::upsert(SQLITE, swapped);
    db.execute(&swap).await.unwrap_err();

    db.execute(&users::release(SQLITE, &["user_a", "user_b"]))
        .await
        .unwrap();
    let released = users::Entity::find_by_id("cuid_a")
        .one(&db)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(released.email, format!("user_a{}", users::REASSIGNED));
    db.execute(&swap).await.unwrap();
    let row = users::Entity::find_by_id("cuid_a")
        .one(&db)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(row.email, "b@example.com");
}

#[tokio::test]
async fn deleting_a_user_deletes_its_credits() {
    let db = database().await;
    db.execute(&users::upsert(SQLITE, [user("a"), user("b")]))
        .await
        .unwrap();
    let grants = ["a", "b"].map(|name| credits::Model {
        id: format!("credit_{name}"),
        user_id: format!("cuid_{name}"),
        amount: 5,
        created_at: at(1).naive_utc(),
        updated_at: at(1).naive_utc(),
    });
    db.execute(&credits::grant(grants.clone())).await.unwrap();
    db.execute(&users::delete(SQLITE, &["user_a", "user_unknown"]))
        .await
        .unwrap();
    assert_eq!(credits::Entity::find().all(&db).await.unwrap(), grants[1..]);
    let of_b = user("b")
        .find_related(credits::Entity)
        .one(&db)
        .await
        .unwrap();
    assert_eq!(of_b.as_ref(), Some(&grants[1]));
}
