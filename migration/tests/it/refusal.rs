//! Databases that do not fit: every problem named at once, and nothing left behind.

use clerk_sync_migration::{MigrateError, Wanted, check, up};
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseConnection};

use crate::database::{Postgres, Sqlite, postgres_catalog, sqlite_catalog};

/// The problems, one line each.
fn problems<T: std::fmt::Debug>(result: Result<T, MigrateError>) -> Vec<String> {
    match result.unwrap_err() {
        MigrateError::Schema(errors) => errors.0.iter().map(ToString::to_string).collect(),
        other => panic!("not a matter of the schema: {other:?}"),
    }
}

/// Runs `up` on this schema and returns the problems; the database must stay as it was.
async fn refused(db: &DatabaseConnection, sql: &str) -> Vec<String> {
    db.execute_unprepared(sql).await.unwrap();
    let postgres = db.get_database_backend() == sea_orm_migration::sea_orm::DbBackend::Postgres;
    let catalog = if postgres {
        postgres_catalog(db).await
    } else {
        sqlite_catalog(db).await
    };
    let problems = problems(up(db).await);
    let after = if postgres {
        postgres_catalog(db).await
    } else {
        sqlite_catalog(db).await
    };
    assert_eq!(after, catalog);
    problems
}

#[tokio::test]
async fn every_mismatch_is_named_at_once() {
    let postgres = Postgres::new().await;
    let found = refused(
        &postgres.db,
        r#"
        CREATE TABLE users (
            "id" UUID PRIMARY KEY,
            "clerkId" TEXT NOT NULL,
            "email" TEXT NOT NULL,
            "name" TEXT NOT NULL,
            "createdAt" TIMESTAMPTZ NOT NULL,
            "updatedAt" TIMESTAMP(3) GENERATED ALWAYS AS ('2024-01-01'::timestamp) STORED,
            "password" TEXT NOT NULL,
            "number" SERIAL NOT NULL,
            "other" INTEGER GENERATED ALWAYS AS IDENTITY,
            "plan" TEXT NOT NULL DEFAULT 'free'
        );
        CREATE UNIQUE INDEX ON users ("clerkId", "email");
        CREATE UNIQUE INDEX ON users ("clerkId") WHERE "plan" = 'free';
        ALTER TABLE users ADD UNIQUE ("email") DEFERRABLE;"#,
    )
    .await;
    let unique = "found none, wanted a unique index on exactly this column, neither partial nor \
                  deferrable";
    assert_eq!(
        found,
        [
            r#"column users."id": found uuid, wanted text or character varying"#,
            &format!(r#"column users."clerkId": {unique}"#),
            &format!(r#"column users."email": {unique}"#),
            r#"column users."name": found NOT NULL, wanted NULL allowed: Clerk has users without it"#,
            r#"column users."imageUrl": found no such column, wanted text or character varying"#,
            r#"column users."createdAt": found timestamp with time zone, wanted timestamp(3) without time zone"#,
            r#"column users."updatedAt": found a generated column, wanted one that can be written"#,
            r#"column users."password": found NOT NULL without a default, wanted a default or NULL allowed: an insert of ours does not name it"#,
        ]
    );
}

/// Clerk's times have milliseconds: rounded ones would differ from them for ever.
#[tokio::test]
async fn times_without_milliseconds_are_refused_with_the_cure() {
    let postgres = Postgres::new().await;
    let found = refused(
        &postgres.db,
        r#"
        CREATE TABLE users (
            "id" TEXT PRIMARY KEY, "clerkId" TEXT NOT NULL UNIQUE, "email" TEXT NOT NULL UNIQUE,
            "name" TEXT, "imageUrl" TEXT, "createdAt" TIMESTAMP(0) NOT NULL,
            "updatedAt" TIMESTAMP(2) NOT NULL
        );"#,
    )
    .await;
    let problem = |column: &str, digits: u8| {
        format!(
            r#"column users."{column}": found timestamp({digits}) without time zone, wanted timestamp(3) without time zone: ALTER TABLE users ALTER COLUMN "{column}" TYPE TIMESTAMP(3)"#
        )
    };
    assert_eq!(found, [problem("createdAt", 0), problem("updatedAt", 2)]);
}

#[tokio::test]
async fn every_mismatch_of_a_file_is_named_at_once() {
    let file = Sqlite::new().await;
    let found = refused(
        &file.db,
        r#"
        CREATE TABLE users (
            "id" INTEGER PRIMARY KEY,
            "clerkId" TEXT NOT NULL,
            "email" TEXT NOT NULL,
            "name" TEXT NOT NULL,
            "createdAt" REAL NOT NULL,
            "updatedAt" DATETIME GENERATED ALWAYS AS ('2024-01-01') STORED,
            "password" TEXT NOT NULL,
            "plan" VARCHAR(10) NOT NULL DEFAULT 'free'
        );
        CREATE UNIQUE INDEX a ON users ("clerkId", "email");
        CREATE UNIQUE INDEX b ON users ("clerkId") WHERE "plan" = 'free';
        CREATE UNIQUE INDEX c ON users (lower("email"));"#,
    )
    .await;
    let unique = "found none, wanted a unique index on exactly this column, neither partial nor \
                  deferrable";
    assert_eq!(
        found,
        [
            r#"column users."id": found INTEGER, wanted TEXT"#,
            &format!(r#"column users."clerkId": {unique}"#),
            &format!(r#"column users."email": {unique}"#),
            r#"column users."name": found NOT NULL, wanted NULL allowed: Clerk has users without it"#,
            r#"column users."imageUrl": found no such column, wanted TEXT"#,
            r#"column users."createdAt": found REAL, wanted DATETIME"#,
            r#"column users."updatedAt": found a generated column, wanted one that can be written"#,
            r#"column users."password": found NOT NULL without a default, wanted a default or NULL allowed: an insert of ours does not name it"#,
        ]
    );
}

#[tokio::test]
async fn a_view_named_users_is_no_table() {
    let (postgres, file) = (Postgres::new().await, Sqlite::new().await);
    for db in [&postgres.db, &file.db] {
        let found = refused(db, "CREATE VIEW users AS SELECT 1 AS one").await;
        assert_eq!(found, ["table users: found a view, wanted a table"]);
    }
}

#[tokio::test]
async fn related_tables_without_users_are_neither_empty_nor_adoptable() {
    let (postgres, file) = (Postgres::new().await, Sqlite::new().await);
    for db in [&postgres.db, &file.db] {
        let found = refused(db, "CREATE TABLE images (id TEXT)").await;
        assert_eq!(
            found,
            [
                "table users: found nothing of this name, but a table images, wanted a table to \
                 adopt, or a database without any of the five"
            ]
        );
    }
}

#[tokio::test]
async fn credits_are_required_of_those_who_write_them() {
    let (postgres, file) = (Postgres::new().await, Sqlite::new().await);
    for db in [&postgres.db, &file.db] {
        up(db).await.unwrap();
        let alter = "DROP TABLE credits; CREATE TABLE credits (id TEXT, amount TEXT, note TEXT);";
        db.execute_unprepared(alter).await.unwrap();
        check(db, Wanted { credits: false }).await.unwrap();
        let found = problems(check(db, Wanted { credits: true }).await);
        assert_eq!(found.len(), 4, "{found:#?}");
        assert_eq!(
            found[1],
            r#"column credits."amount": found text, wanted integer"#.replace(
                "text",
                if db.get_database_backend() == sea_orm_migration::sea_orm::DbBackend::Sqlite {
                    "TEXT"
                } else {
                    "text"
                },
            )
        );
    }
}

#[tokio::test]
async fn users_dropped_after_the_migration_are_missed() {
    let (postgres, file) = (Postgres::new().await, Sqlite::new().await);
    for db in [&postgres.db, &file.db] {
        up(db).await.unwrap();
        for table in ["credits", "images", "designs", "projects", "users"] {
            db.execute_unprepared(&format!("DROP TABLE {table}"))
                .await
                .unwrap();
        }
        let found = problems(up(db).await);
        assert_eq!(
            found,
            ["table users: found nothing of this name, wanted a table"]
        );
    }
}

#[tokio::test]
async fn a_search_path_that_leads_nowhere_is_said_so() {
    let postgres = Postgres::new().await;
    let db = postgres.in_schema("nowhere").await;
    assert!(matches!(up(&db).await, Err(MigrateError::NoSchema)));
    assert!(matches!(
        check(&db, Wanted::default()).await,
        Err(MigrateError::NoSchema)
    ));
    db.close().await.unwrap();
}
