//! The named queries of `clerk-sync-entity`, run on PostgreSQL. (Its own tests run them on SQLite.)

use clerk_sync_entity::{credits, processed_events, user_versions, users};
use clerk_sync_migration::up;
use sea_orm_migration::sea_orm::prelude::*;
use sea_orm_migration::sea_orm::{DbBackend, FromQueryResult, StatementBuilder};

use crate::database::Postgres;

const POSTGRES: DbBackend = DbBackend::Postgres;

/// A table that an application might have: other types, and a collation of its own that ignores
/// the bytes.
const UNLIKE_PRISMA: &str = r#"
CREATE COLLATION "by language" (provider = icu, locale = 'en-US');
CREATE TABLE users (
    "id" VARCHAR(40) COLLATE "by language" PRIMARY KEY,
    "clerkId" VARCHAR(255) COLLATE "by language" UNIQUE,
    "email" VARCHAR(255) COLLATE "by language" NOT NULL UNIQUE, "name" VARCHAR(200),
    "imageUrl" VARCHAR(2000), "createdAt" TIMESTAMP NOT NULL, "updatedAt" TIMESTAMP NOT NULL);
CREATE TABLE credits (
    "id" VARCHAR(40) PRIMARY KEY,
    "userId" VARCHAR(40) COLLATE "by language" REFERENCES users ("id") ON DELETE CASCADE,
    "amount" INTEGER, "createdAt" TIMESTAMP NOT NULL, "updatedAt" TIMESTAMP NOT NULL)"#;

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

fn event(id: &str, outcome: &str) -> processed_events::Row {
    processed_events::Row {
        event_id: id.to_owned(),
        event_type: "user.updated".to_owned(),
        subject: None,
        occurred_at: None,
        received_at: at(1),
        processed_at: at(2),
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

/// All of them, on whatever tables the database has.
async fn every_query(db: &DatabaseConnection) {
    // Ledger.
    let rows = [
        event("msg_1", "created"),
        event("msg_2", "retried"),
        event("msg_3", "stale"),
    ];
    let claim = processed_events::claim(POSTGRES, rows);
    assert_eq!(returned(db, &claim).await, ["msg_1", "msg_2", "msg_3"]);
    assert_eq!(returned(db, &claim).await, ["msg_2"]);
    let update = processed_events::set_outcomes(
        POSTGRES,
        &[
            ("msg_1", "dead_lettered"),
            ("msg_2", "updated"),
            ("msg_unknown", "stale"),
        ],
    );
    assert_eq!(db.execute(&update).await.unwrap().rows_affected(), 2);
    let outcomes = processed_events::outcomes(POSTGRES, &["msg_2", "msg_3", "msg_unknown"]);
    assert_eq!(returned(db, &outcomes).await, ["msg_2", "msg_3"]);
    assert_eq!(returned(db, &claim).await, ["msg_1"]);
    let prune = processed_events::prune(POSTGRES, at(3), 2);
    assert_eq!(db.execute(&prune).await.unwrap().rows_affected(), 2);
    assert_eq!(db.execute(&prune).await.unwrap().rows_affected(), 1);

    // Versions, bytewise: Z before a.
    let advance = |row| user_versions::advance(POSTGRES, [row]);
    let lock = || user_versions::Row::lock_only("user_b");
    let first = [version("user_a", (7, 7, "msg_a")), lock()];
    let first = user_versions::advance(POSTGRES, first);
    assert_eq!(returned(db, &first).await, ["user_a", "user_b"]);
    assert!(returned(db, &first).await.is_empty());
    assert!(
        returned(db, &advance(version("user_a", (7, 7, "msg_Z"))))
            .await
            .is_empty()
    );
    assert_eq!(
        returned(db, &advance(version("user_a", (7, 7, "msg_b")))).await,
        ["user_a"]
    );
    assert!(
        returned(db, &advance(version("user_a", (7, 6, "msg_z"))))
            .await
            .is_empty()
    );

    // Users.
    let upsert = users::upsert(POSTGRES, [user("a"), user("c")]);
    assert_eq!(returned(db, &upsert).await, ["cuid_a", "cuid_c"]);
    let again = users::Model {
        id: "another".into(),
        name: Some(r#"Ann "{NULL}," \ O'Hara, 音"#.into()),
        ..user("a")
    };
    let upsert = users::upsert(POSTGRES, [again.clone()]);
    assert_eq!(returned(db, &upsert).await, ["cuid_a"]);
    let written = users::Entity::find_by_id("cuid_a").one(db).await.unwrap();
    assert_eq!(written.unwrap().name, again.name);
    let holders = users::holders(
        POSTGRES,
        &["a@example.com", "c@example.com", "x@example.com"],
    );
    let rows = db.query_all(&holders).await.unwrap();
    let mut found: Vec<_> = rows
        .iter()
        .map(|row| users::Holder::from_query_result(row, "").unwrap())
        .collect();
    found.sort_by(|a, b| a.clerk_id.cmp(&b.clerk_id));
    assert_eq!(found[0].event_id.as_deref(), Some("msg_b"));
    assert_eq!(
        (found[1].clerk_id.as_str(), found[1].updated_at_ms),
        ("user_c", None)
    );
    assert_eq!(
        db.execute(&users::release(POSTGRES, &["user_a"]))
            .await
            .unwrap()
            .rows_affected(),
        1
    );
    let released = users::Entity::find_by_clerk_id("user_a")
        .one(db)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(released.email, "user_a@reassigned.invalid");
    let grant = credits::grant([credits::Model {
        id: "credit".into(),
        user_id: "cuid_a".into(),
        amount: 5,
        created_at: at(1).naive_utc(),
        updated_at: at(1).naive_utc(),
    }]);
    db.execute(&grant).await.unwrap();

    // A tombstone is final.
    let mut tombstone = version("user_a", (0, 0, "msg_delete"));
    tombstone.deleted_at = Some(at(9));
    assert_eq!(returned(db, &advance(tombstone)).await, ["user_a"]);
    assert!(
        returned(db, &advance(version("user_a", (99, 99, "msg_z"))))
            .await
            .is_empty()
    );
    let delete = users::delete(POSTGRES, &["user_a", "user_unknown"]);
    assert_eq!(db.execute(&delete).await.unwrap().rows_affected(), 1);
    assert!(credits::Entity::find().all(db).await.unwrap().is_empty());
}

#[tokio::test]
async fn every_query_runs_on_prismas_tables() {
    let postgres = Postgres::new().await;
    up(&postgres.db).await.unwrap();
    every_query(&postgres.db).await;
}

#[tokio::test]
async fn every_query_runs_on_adopted_tables_of_other_types_and_collations() {
    let postgres = Postgres::new().await;
    postgres.db.execute_unprepared(UNLIKE_PRISMA).await.unwrap();
    up(&postgres.db).await.unwrap();
    every_query(&postgres.db).await;

    let theirs = "INSERT INTO users VALUES ('x', NULL, 'x@example.com', NULL, NULL, now(), now())";
    postgres.db.execute_unprepared(theirs).await.unwrap();
    let holders = users::holders(POSTGRES, &["x@example.com"]);
    let row = postgres.db.query_one(&holders).await.unwrap().unwrap();
    assert_eq!(
        users::Holder::from_query_result(&row, "").unwrap().clerk_id,
        ""
    );
}

#[tokio::test]
async fn prune_passes_over_rows_that_another_holds() {
    let postgres = Postgres::new().await;
    up(&postgres.db).await.unwrap();
    let claim =
        processed_events::claim(POSTGRES, [event("msg_1", "stale"), event("msg_2", "stale")]);
    postgres.db.execute(&claim).await.unwrap();

    use sea_orm_migration::sea_orm::TransactionTrait;
    let other = postgres.db.begin().await.unwrap();
    let hold = processed_events::set_outcomes(POSTGRES, &[("msg_1", "updated")]);
    other.execute(&hold).await.unwrap();
    let prune = processed_events::prune(POSTGRES, at(3), 10);
    assert_eq!(
        postgres.db.execute(&prune).await.unwrap().rows_affected(),
        1
    );
    other.rollback().await.unwrap();
}
