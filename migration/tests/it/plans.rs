//! Every query the worker makes is served by an index.

use std::fmt::Write;

use clerk_sync_entity::{credits, processed_events, user_versions, users};
use clerk_sync_migration::up;
use sea_orm_migration::sea_orm::prelude::*;
use sea_orm_migration::sea_orm::sea_query::{PostgresQueryBuilder, QueryBuilder};
use sea_orm_migration::sea_orm::{
    DatabaseTransaction, DbBackend, Statement, StatementBuilder, TransactionTrait,
};

use crate::database::{Postgres, Sqlite, texts};

const POSTGRES: DbBackend = DbBackend::Postgres;

/// 200,000 users, each with a version and an event.
const USERS: &str = r#"
INSERT INTO users SELECT 'cuid_' || n, 'user_' || n, n || '@example.com', 'Name ' || n, NULL,
    '2024-01-01', '2024-01-02' FROM generate_series(1, 200000) n;
INSERT INTO clerk_sync.user_versions SELECT 'user_' || n, n, n, 'msg_' || n
    FROM generate_series(1, 200000) n;
INSERT INTO clerk_sync.processed_events SELECT 'msg_' || n, 'user.created', 'user_' || n,
    to_timestamp(n), to_timestamp(n), to_timestamp(n), 'created' FROM generate_series(1, 200000) n;
ANALYZE;"#;

/// 20,000 users, each with a project, a design, an image and credits.
const RELATED: &str = r#"
INSERT INTO users SELECT 'cuid_' || n, 'user_' || n, n || '@example.com', NULL, NULL,
    '2024-01-01', '2024-01-02' FROM generate_series(1, 20000) n;
INSERT INTO projects SELECT 'p' || n, 'cuid_' || n, 'Kitchen', NULL, '2024-01-01', '2024-01-01'
    FROM generate_series(1, 20000) n;
INSERT INTO designs SELECT 'd' || n, 'cuid_' || n, 'p' || n, NULL, '2024-01-01', '2024-01-01'
    FROM generate_series(1, 20000) n;
INSERT INTO images SELECT 'i' || n, 'url', 'p' || n, 'd' || n, '2024-01-01'
    FROM generate_series(1, 20000) n;
INSERT INTO credits SELECT 'c' || n, 'cuid_' || n, 5, '2024-01-01', '2024-01-01'
    FROM generate_series(1, 20000) n;
ANALYZE;"#;

/// The plan for these values, and the one for any values: PostgreSQL may turn to the second when
/// a prepared statement has run a few times.
async fn plans(db: &DatabaseTransaction, statement: &impl StatementBuilder) -> [String; 2] {
    let Statement { sql, values, .. } = POSTGRES.build(statement);
    let values = values.unwrap();
    let explain = format!("EXPLAIN {sql}");
    let explain = Statement::from_sql_and_values(POSTGRES, explain, values.0.clone());
    let rows = db.query_all_raw(explain).await.unwrap();
    let lines: Vec<String> = rows
        .iter()
        .map(|row| row.try_get_by_index(0).unwrap())
        .collect();

    let mut arguments = String::new();
    for value in &values.0 {
        let separator = if arguments.is_empty() { "" } else { ", " };
        write!(
            arguments,
            "{separator}{}",
            PostgresQueryBuilder.value_to_string(value)
        )
        .unwrap();
    }
    db.execute_unprepared(&format!("PREPARE query AS {sql}"))
        .await
        .unwrap();
    db.execute_unprepared("SET LOCAL plan_cache_mode = force_generic_plan")
        .await
        .unwrap();
    let generic = texts(db, &format!("EXPLAIN EXECUTE query({arguments})")).await;
    db.execute_unprepared("SET LOCAL plan_cache_mode = auto; DEALLOCATE query")
        .await
        .unwrap();
    [lines.join("\n"), generic.join("\n")]
}

#[tokio::test]
async fn every_query_is_served_by_an_index() {
    let postgres = Postgres::new().await;
    up(&postgres.db).await.unwrap();
    postgres.db.execute_unprepared(USERS).await.unwrap();
    let db = postgres.db.begin().await.unwrap();

    let numbers: Vec<i64> = (1..=100).map(|n| n * 1999).collect();
    let clerk_ids: Vec<String> = numbers.iter().map(|n| format!("user_{n}")).collect();
    let clerk_ids: Vec<&str> = clerk_ids.iter().map(String::as_str).collect();
    let emails: Vec<String> = numbers.iter().map(|n| format!("{n}@example.com")).collect();
    let emails: Vec<&str> = emails.iter().map(String::as_str).collect();
    let event_ids: Vec<String> = numbers.iter().map(|n| format!("msg_{n}")).collect();
    let event_ids: Vec<&str> = event_ids.iter().map(String::as_str).collect();
    let outcomes: Vec<_> = event_ids.iter().map(|id| (*id, "retried")).collect();
    let now = DateTimeUtc::from_timestamp(1_000_000, 0).unwrap();
    let events = event_ids.iter().map(|id| processed_events::Row {
        event_id: (*id).to_owned(),
        event_type: "user.created".into(),
        subject: None,
        occurred_at: None,
        received_at: now,
        processed_at: now,
        outcome: "created".into(),
    });
    let versions = clerk_ids
        .iter()
        .map(|id| user_versions::Row::lock_only(*id));
    let rows = numbers.iter().map(|n| users::Model {
        id: format!("new_{n}"),
        clerk_id: format!("user_{n}"),
        email: format!("{n}@example.com"),
        name: None,
        image_url: None,
        created_at: now.naive_utc(),
        updated_at: now.naive_utc(),
    });
    let grants = numbers.iter().map(|n| credits::Model {
        id: format!("new_{n}"),
        user_id: format!("cuid_{n}"),
        amount: 5,
        created_at: now.naive_utc(),
        updated_at: now.naive_utc(),
    });
    let middle = DateTimeUtc::from_timestamp(100_000, 0).unwrap();

    let place = processed_events::Place {
        processed_at: middle,
        event_id: "msg_100000".into(),
    };
    let further_back = processed_events::Place {
        processed_at: DateTimeUtc::from_timestamp(80_000, 0).unwrap(),
        event_id: "msg_80000".into(),
    };
    let wanted = processed_events::Wanted {
        subject: Some("user_90000".into()),
        ..Default::default()
    };
    let soon = DateTimeUtc::from_timestamp(100_100, 0).unwrap();
    let by_time = || vec!["processed_events_processed_at_idx".to_owned()];

    let arbiter = "Conflict Arbiter Indexes: ";
    let cases = [
        (
            "an event",
            plans(&db, &processed_events::by_id(POSTGRES, "msg_5")).await,
            vec!["processed_events_pkey".into()],
        ),
        (
            "the newest events",
            plans(
                &db,
                &processed_events::newest_first(POSTGRES, &Default::default(), None, None, 50),
            )
            .await,
            by_time(),
        ),
        (
            "events of a user, in a stretch",
            plans(
                &db,
                &processed_events::newest_first(
                    POSTGRES,
                    &wanted,
                    Some(&place),
                    Some(&further_back),
                    50,
                ),
            )
            .await,
            by_time(),
        ),
        (
            "the end of a stretch",
            plans(
                &db,
                &processed_events::end_of_stretch(POSTGRES, Some(&place), 20_000),
            )
            .await,
            by_time(),
        ),
        (
            "outcomes of some seconds",
            plans(
                &db,
                &processed_events::count_between(POSTGRES, middle, soon),
            )
            .await,
            by_time(),
        ),
        (
            "events of some seconds",
            plans(
                &db,
                &processed_events::newest_between(POSTGRES, middle, soon, 100),
            )
            .await,
            by_time(),
        ),
        (
            "the newest of a user, among so many",
            plans(
                &db,
                &processed_events::newest_among(POSTGRES, &wanted, middle, 5000, 100),
            )
            .await,
            by_time(),
        ),
        (
            "who has an address",
            plans(&db, &users::by_email("5@example.com")).await,
            vec!["users_email_key".into()],
        ),
        (
            "a version",
            plans(&db, &user_versions::of(POSTGRES, "user_5")).await,
            vec!["user_versions_pkey".into()],
        ),
        (
            "claim",
            plans(&db, &processed_events::claim(POSTGRES, events)).await,
            vec![format!("{arbiter}processed_events_pkey")],
        ),
        (
            "set_outcomes",
            plans(&db, &processed_events::set_outcomes(POSTGRES, &outcomes)).await,
            vec!["processed_events_pkey".into()],
        ),
        (
            "outcomes",
            plans(&db, &processed_events::outcomes(POSTGRES, &event_ids)).await,
            vec!["processed_events_pkey".into()],
        ),
        (
            "prune",
            plans(&db, &processed_events::prune(POSTGRES, middle, 1000)).await,
            vec![
                "processed_events_processed_at_idx".into(),
                "processed_events_pkey".into(),
            ],
        ),
        (
            "advance",
            plans(&db, &user_versions::advance(POSTGRES, versions)).await,
            vec![format!("{arbiter}user_versions_pkey")],
        ),
        (
            "upsert",
            plans(&db, &users::upsert(POSTGRES, rows)).await,
            vec![format!("{arbiter}users_clerkId_key")],
        ),
        (
            "holders",
            plans(&db, &users::holders(POSTGRES, &emails)).await,
            vec!["users_email_key".into(), "user_versions_pkey".into()],
        ),
        (
            "release",
            plans(&db, &users::release(POSTGRES, &clerk_ids)).await,
            vec!["users_clerkId_key".into()],
        ),
        (
            "delete",
            plans(&db, &users::delete(POSTGRES, &clerk_ids)).await,
            vec!["users_clerkId_key".into()],
        ),
        ("grant", plans(&db, &credits::grant(grants)).await, vec![]),
        (
            "held",
            plans(&db, &user_versions::held(POSTGRES, &clerk_ids)).await,
            vec!["user_versions_pkey".into()],
        ),
        (
            "the first users",
            plans(&db, &user_versions::ends(POSTGRES, 50)[0]).await,
            vec!["user_versions_pkey".into()],
        ),
        (
            "the last users",
            plans(&db, &user_versions::ends(POSTGRES, 50)[1]).await,
            vec!["user_versions_pkey".into()],
        ),
        (
            "rows",
            plans(&db, &users::rows(POSTGRES, &clerk_ids)).await,
            vec!["users_clerkId_key".into()],
        ),
        (
            "list_after",
            plans(&db, &users::list_after(POSTGRES, "user_5", 2000)).await,
            vec!["users_clerkId_key".into(), "user_versions_pkey".into()],
        ),
    ];
    for (query, plans, indexes) in cases {
        for plan in plans {
            assert!(!plan.contains("Seq Scan"), "{query}:\n{plan}");
            for index in &indexes {
                assert!(plan.contains(index), "{query} should use {index}:\n{plan}");
            }
        }
    }
}

#[tokio::test]
async fn deleting_a_user_scans_no_related_table() {
    let postgres = Postgres::new().await;
    up(&postgres.db).await.unwrap();
    postgres.db.execute_unprepared(RELATED).await.unwrap();
    let db = postgres.db.begin().await.unwrap();
    // What the foreign keys' triggers run, from the comments of PostgreSQL's ri_triggers.c.
    for (table, column, action) in [
        ("projects", "userId", "DELETE FROM ONLY projects"),
        ("designs", "userId", "DELETE FROM ONLY designs"),
        (
            "designs",
            "projectId",
            r#"UPDATE ONLY designs SET "projectId" = NULL"#,
        ),
        ("images", "projectId", "DELETE FROM ONLY images"),
        ("images", "designId", "DELETE FROM ONLY images"),
        ("credits", "userId", "DELETE FROM ONLY credits"),
    ] {
        let prepare = format!(r#"PREPARE query(text) AS {action} WHERE $1 = "{column}""#);
        db.execute_unprepared(&prepare).await.unwrap();
        for mode in ["force_generic_plan", "force_custom_plan"] {
            db.execute_unprepared(&format!("SET LOCAL plan_cache_mode = {mode}"))
                .await
                .unwrap();
            let plan = texts(&db, "EXPLAIN EXECUTE query('cuid_7')")
                .await
                .join("\n");
            let index = format!("clerk_sync_{table}_{column}_idx");
            assert!(
                plan.contains(&index) && !plan.contains("Seq Scan"),
                "{mode}\n{plan}"
            );
        }
        db.execute_unprepared("DEALLOCATE query").await.unwrap();
    }
    let before = texts(&db, SEQUENTIAL).await;
    db.execute(&users::delete(POSTGRES, &["user_7"]))
        .await
        .unwrap();
    let left = r#"SELECT count(*)::text FROM images WHERE "id" = 'i7'"#;
    assert_eq!(texts(&db, left).await, ["0"]);
    assert_eq!(texts(&db, SEQUENTIAL).await, before);
}

/// Sequential scans of each table in this transaction so far.
const SEQUENTIAL: &str = "SELECT relname || ' ' || seq_scan FROM pg_stat_xact_user_tables
    WHERE schemaname = 'public' ORDER BY 1";

#[tokio::test]
async fn every_query_on_a_file_is_served_by_an_index() {
    let file = Sqlite::new().await;
    up(&file.db).await.unwrap();
    let sqlite = DbBackend::Sqlite;
    let middle = DateTimeUtc::from_timestamp(100_000, 0).unwrap();
    // The inserts look nothing up but their conflict target, which must be unique to be one.
    let statements = [
        sqlite.build(&processed_events::set_outcomes(
            sqlite,
            &[("msg_1", "stale")],
        )),
        sqlite.build(&processed_events::outcomes(sqlite, &["msg_1", "msg_2"])),
        sqlite.build(&processed_events::prune(sqlite, middle, 1000)),
        sqlite.build(&users::holders(sqlite, &["1@example.com", "2@example.com"])),
        sqlite.build(&users::rows(sqlite, &["user_1", "user_2"])),
        sqlite.build(&users::list_after(sqlite, "user_5", 2000)),
        sqlite.build(&user_versions::held(sqlite, &["user_1", "user_2"])),
        sqlite.build(&users::release(sqlite, &["user_1", "user_2"])),
        sqlite.build(&users::delete(sqlite, &["user_1", "user_2"])),
    ];
    for Statement { sql, values, .. } in statements {
        let explain = format!("EXPLAIN QUERY PLAN {sql}");
        let explain = Statement::from_sql_and_values(sqlite, explain, values.unwrap().0);
        let rows = file.db.query_all_raw(explain).await.unwrap();
        let plan: Vec<String> = rows
            .iter()
            .map(|row| row.try_get("", "detail").unwrap())
            .collect();
        assert!(
            !plan.is_empty() && plan.iter().all(|step| !step.starts_with("SCAN")),
            "{plan:#?}"
        );
    }
}
