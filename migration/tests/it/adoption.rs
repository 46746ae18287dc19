//! A database that an application uses already.

use clerk_sync_migration::{MigrateError, Wanted, check, down, up};
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseConnection};

use crate::database::{
    CASCADE, PRISMA, Postgres, Sqlite, added, postgres_catalog, sqlite_catalog, texts,
};

/// Rows, and things an application may have that are no business of ours.
const LIVED_IN: &str = r#"
INSERT INTO users VALUES
    ('u1', 'user_1', 'one@example.com', 'One', NULL, '2024-01-01', '2024-01-02'),
    ('u2', 'user_2', 'two@example.com', NULL, NULL, '2024-01-01', '2024-01-02');
INSERT INTO projects VALUES ('p1', 'u1', 'Kitchen', NULL, '2024-01-01', '2024-01-02');
INSERT INTO designs VALUES ('d1', 'u1', 'p1', 'blue', '2024-01-01', '2024-01-02');
INSERT INTO images VALUES ('i1', 'https://example.com/1.png', 'p1', 'd1', '2024-01-01');
INSERT INTO credits VALUES ('c1', 'u1', 5, '2024-01-01', '2024-01-02');
ALTER TABLE users ADD COLUMN "plan" TEXT NOT NULL DEFAULT 'free';
CREATE TABLE "invoices" ("id" TEXT PRIMARY KEY, "userId" TEXT);
CREATE INDEX "invoices_userId" ON "invoices" ("userId");
"#;

async fn rows(db: &DatabaseConnection) -> Vec<String> {
    let mut rows = Vec::new();
    for table in ["users", "projects", "designs", "images", "credits"] {
        rows.extend(texts(db, &format!("SELECT t::text FROM {table} t ORDER BY 1")).await);
    }
    rows
}

#[tokio::test]
async fn adoption_leaves_everything_as_it_was() {
    let postgres = Postgres::new().await;
    let db = &postgres.db;
    db.execute_unprepared(PRISMA).await.unwrap();
    db.execute_unprepared(LIVED_IN).await.unwrap();
    let (catalog, data) = (postgres_catalog(db).await, rows(db).await);

    let report = up(db).await.unwrap();
    assert!(report.adopted);
    assert_eq!(report.indexes, CASCADE);
    check(db, Wanted { credits: true }).await.unwrap();

    let after = postgres_catalog(db).await;
    assert_eq!(
        added(&after, &catalog),
        [""; 0],
        "nothing is altered or dropped"
    );
    let more = added(&catalog, &after);
    let ours = |line: &str| {
        line.contains("clerk_sync.")
            || line == "schema clerk_sync"
            || CASCADE.iter().any(|index| line.contains(index))
    };
    assert!(more.iter().all(|line| ours(line)), "{more:#?}");
    assert_eq!(rows(db).await, data);

    down(db).await.unwrap();
    assert_eq!(
        postgres_catalog(db).await,
        catalog,
        "nothing of ours is left"
    );
    assert_eq!(rows(db).await, data);
}

#[tokio::test]
async fn adoption_of_a_file_leaves_everything_as_it_was() {
    let file = Sqlite::new().await;
    let db = &file.db;
    db.execute_unprepared(include_str!("../../src/m0001_domain/sqlite.sql"))
        .await
        .unwrap();
    db.execute_unprepared(LIVED_IN).await.unwrap();
    let catalog = sqlite_catalog(db).await;

    let report = up(db).await.unwrap();
    assert!(report.adopted);
    assert_eq!(report.indexes, CASCADE);
    let after = sqlite_catalog(db).await;
    assert_eq!(added(&after, &catalog), [""; 0]);
    let more = added(&catalog, &after);
    assert!(
        more.iter().all(|line| line.contains("clerk_sync_")),
        "{more:#?}"
    );

    down(db).await.unwrap();
    assert_eq!(sqlite_catalog(db).await, catalog);
    assert_eq!(
        texts(db, r#"SELECT "clerkId" FROM users ORDER BY 1"#).await,
        ["user_1", "user_2"]
    );
}

/// Adopted as it is, though not as Prisma would have made it: wider and narrower types, nullable
/// columns, constraints instead of indexes.
const UNLIKE_PRISMA: &str = r#"
CREATE TABLE users (
    "id" VARCHAR(40) PRIMARY KEY, "clerkId" VARCHAR(255) UNIQUE, "email" TEXT NOT NULL UNIQUE,
    "name" VARCHAR(200), "imageUrl" TEXT, "createdAt" TIMESTAMP NOT NULL,
    "updatedAt" TIMESTAMP(6) NOT NULL, "role" TEXT, "number" INTEGER NOT NULL DEFAULT 7)"#;

#[tokio::test]
async fn users_adopted_alone_get_no_related_table() {
    let (postgres, file) = (Postgres::new().await, Sqlite::new().await);
    for db in [&postgres.db, &file.db] {
        db.execute_unprepared(UNLIKE_PRISMA).await.unwrap();
        let report = up(db).await.unwrap();
        assert!(report.adopted);
        assert!(report.indexes.is_empty());
        for table in ["projects", "designs", "images", "credits"] {
            db.execute_unprepared(&format!("SELECT 1 FROM {table}"))
                .await
                .unwrap_err();
        }
    }
}

#[tokio::test]
async fn related_tables_that_come_later_are_indexed_by_the_next_run() {
    let (postgres, file) = (Postgres::new().await, Sqlite::new().await);
    for db in [&postgres.db, &file.db] {
        db.execute_unprepared(UNLIKE_PRISMA).await.unwrap();
        up(db).await.unwrap();
        // `credits` has an index of its own; `designs` has no project.
        db.execute_unprepared(
            r#"
            CREATE TABLE credits ("id" TEXT PRIMARY KEY, "userId" TEXT, "amount" INTEGER);
            CREATE INDEX "theirs" ON credits ("userId", "amount");
            CREATE TABLE designs ("id" TEXT PRIMARY KEY, "userId" TEXT);"#,
        )
        .await
        .unwrap();
        let report = up(db).await.unwrap();
        assert_eq!(report.indexes, ["clerk_sync_designs_userId_idx"]);
        assert!(report.applied.is_empty());
    }
}

#[tokio::test]
async fn an_index_whose_building_failed_is_built_again() {
    let postgres = Postgres::new().await;
    up(&postgres.db).await.unwrap();
    let invalid = r#"UPDATE pg_index SET indisvalid = false
        WHERE indexrelid = '"clerk_sync_credits_userId_idx"'::regclass"#;
    postgres.db.execute_unprepared(invalid).await.unwrap();
    let report = up(&postgres.db).await.unwrap();
    assert_eq!(report.indexes, ["clerk_sync_credits_userId_idx"]);
    assert!(up(&postgres.db).await.unwrap().indexes.is_empty());
}

#[tokio::test]
async fn the_applications_schema_need_not_be_public() {
    let postgres = Postgres::new().await;
    postgres
        .db
        .execute_unprepared(r#"CREATE SCHEMA "the app""#)
        .await
        .unwrap();
    let db = postgres
        .in_schema(r#""the app""#.replace(' ', "\\ ").as_str())
        .await;
    let report = up(&db).await.unwrap();
    assert_eq!(report.domain, "the app");
    check(&db, Wanted { credits: true }).await.unwrap();
    let tables = texts(
        &db,
        "SELECT table_schema || '.' || table_name FROM information_schema.tables
         WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1",
    )
    .await;
    assert_eq!(
        tables,
        [
            "clerk_sync.bookmarks",
            "clerk_sync.migrations",
            "clerk_sync.processed_events",
            "clerk_sync.user_versions",
            "the app.credits",
            "the app.designs",
            "the app.images",
            "the app.projects",
            "the app.users",
        ]
    );
    down(&db).await.unwrap();
    db.close().await.unwrap();
}

#[tokio::test]
async fn users_are_found_wherever_the_search_path_finds_them() {
    let postgres = Postgres::new().await;
    postgres
        .db
        .execute_unprepared("CREATE SCHEMA first")
        .await
        .unwrap();
    postgres.db.execute_unprepared(PRISMA).await.unwrap();
    let db = postgres.in_schema("first,public").await;
    let report = up(&db).await.unwrap();
    assert_eq!((report.domain.as_str(), report.adopted), ("public", true));
    db.close().await.unwrap();
}

#[tokio::test]
async fn the_applications_tables_never_land_in_our_schema() {
    let postgres = Postgres::new().await;
    postgres
        .db
        .execute_unprepared("CREATE SCHEMA clerk_sync")
        .await
        .unwrap();
    // What a role named `clerk_sync` has by default.
    let db = postgres.in_schema("clerk_sync,public").await;
    for adopted in [false, true] {
        let report = up(&db).await.unwrap();
        assert_eq!(
            (report.domain.as_str(), report.adopted),
            ("public", adopted)
        );
        down(&db).await.unwrap();
    }
    db.close().await.unwrap();

    let create = "CREATE SCHEMA clerk_sync";
    postgres.db.execute_unprepared(create).await.unwrap();
    let db = postgres.in_schema("clerk_sync").await;
    assert!(matches!(up(&db).await, Err(MigrateError::NoSchema)));
    db.close().await.unwrap();
}
