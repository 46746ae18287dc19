//! Runs: many at once, again, backwards; and what a process learns without running one.

use clerk_sync_migration::{Report, Step, down, pending, status, up};
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseConnection};

use crate::database::{Postgres, Sqlite, postgres_catalog, sqlite_catalog, texts};

/// Eight runs at once: all succeed, one does the work.
async fn eight_at_once(connections: Vec<DatabaseConnection>) {
    let runs: Vec<_> = connections
        .into_iter()
        .map(|db| tokio::spawn(async move { up(&db).await }))
        .collect();
    let mut worked = 0;
    for run in runs {
        let report = run.await.unwrap().unwrap();
        worked += usize::from(!report.applied.is_empty());
    }
    assert_eq!(worked, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_migrators_at_once_all_succeed() {
    let postgres = Postgres::new().await;
    let mut connections = Vec::new();
    for _ in 0..8 {
        connections.push(postgres.in_schema("public").await);
    }
    eight_at_once(connections).await;
    assert_eq!(pending(&postgres.db).await.unwrap(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_migrators_of_one_file_all_succeed() {
    let file = Sqlite::new().await;
    let mut connections = Vec::new();
    for _ in 0..8 {
        connections.push(file.connect().await);
    }
    eight_at_once(connections).await;
    assert_eq!(pending(&file.db).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_second_run_does_nothing() {
    let (postgres, file) = (Postgres::new().await, Sqlite::new().await);
    up(&postgres.db).await.unwrap();
    up(&file.db).await.unwrap();
    let catalogs = (
        postgres_catalog(&postgres.db).await,
        sqlite_catalog(&file.db).await,
    );
    let nothing = |domain: &str| Report {
        domain: domain.to_owned(),
        adopted: true,
        applied: Vec::new(),
        indexes: Vec::new(),
    };
    assert_eq!(up(&postgres.db).await.unwrap(), nothing("public"));
    assert_eq!(up(&file.db).await.unwrap(), nothing("main"));
    assert_eq!(
        (
            postgres_catalog(&postgres.db).await,
            sqlite_catalog(&file.db).await
        ),
        catalogs
    );
}

#[tokio::test]
async fn down_leaves_the_users_and_up_adopts_them_again() {
    let (postgres, file) = (Postgres::new().await, Sqlite::new().await);
    for db in [&postgres.db, &file.db] {
        up(db).await.unwrap();
        let insert = "INSERT INTO users VALUES
            ('u1', 'user_1', 'one@example.com', NULL, NULL, '2024-01-01', '2024-01-02')";
        db.execute_unprepared(insert).await.unwrap();

        let removed = down(db).await.unwrap();
        assert!(
            removed.contains(&"m0002_bookkeeping".to_owned()),
            "{removed:?}"
        );
        assert_eq!(
            texts(db, r#"SELECT "clerkId" FROM users"#).await,
            ["user_1"]
        );
        assert_eq!(down(db).await.unwrap(), [""; 0]);

        assert!(up(db).await.unwrap().adopted);
        assert_eq!(
            texts(db, r#"SELECT "clerkId" FROM users"#).await,
            ["user_1"]
        );
    }
}

#[tokio::test]
async fn down_keeps_a_schema_that_holds_something_else() {
    let postgres = Postgres::new().await;
    up(&postgres.db).await.unwrap();
    postgres
        .db
        .execute_unprepared("CREATE TABLE clerk_sync.notes (id INT)")
        .await
        .unwrap();
    let removed = down(&postgres.db).await.unwrap();
    assert!(!removed.contains(&"clerk_sync".to_owned()), "{removed:?}");
    postgres
        .db
        .execute_unprepared("SELECT id FROM clerk_sync.notes")
        .await
        .unwrap();
    up(&postgres.db).await.unwrap();
}

#[tokio::test]
async fn a_process_can_ask_what_is_pending_without_changing_anything() {
    let (postgres, file) = (Postgres::new().await, Sqlite::new().await);
    for db in [&postgres.db, &file.db] {
        let both = ["m0001_domain", "m0002_bookkeeping", "m0003_bookmarks"];
        assert_eq!(pending(db).await.unwrap(), both);
        let steps = |applied| {
            both.map(|name| Step {
                name: name.to_owned(),
                applied,
            })
        };
        assert_eq!(status(db).await.unwrap(), steps(false));
        up(db).await.unwrap();
        assert_eq!(pending(db).await.unwrap(), [""; 0]);
        assert_eq!(status(db).await.unwrap(), steps(true));
    }
    down(&postgres.db).await.unwrap();
    let catalog = postgres_catalog(&postgres.db).await;
    pending(&postgres.db).await.unwrap();
    assert_eq!(postgres_catalog(&postgres.db).await, catalog);
}

#[tokio::test]
async fn a_database_ahead_of_this_release_is_current() {
    let postgres = Postgres::new().await;
    up(&postgres.db).await.unwrap();
    let later = "INSERT INTO clerk_sync.migrations VALUES ('m9999_later', 0)";
    postgres.db.execute_unprepared(later).await.unwrap();
    assert_eq!(pending(&postgres.db).await.unwrap(), [""; 0]);
    up(&postgres.db).await.unwrap_err();
}

#[tokio::test]
async fn a_run_leaves_nothing_in_the_connection() {
    let postgres = Postgres::new().await;
    let db = postgres.in_schema("public").await;
    up(&db).await.unwrap();
    assert_eq!(texts(&db, "SHOW search_path").await, ["public"]);
    let locks = "SELECT count(*)::text FROM pg_locks
        WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
    assert_eq!(texts(&db, locks).await, ["0"]);
    db.close().await.unwrap();
}

#[tokio::test]
async fn a_role_that_may_not_create_schemas_migrates_into_one_it_was_given() {
    let postgres = Postgres::new().await;
    // A role that every server has.
    let give = "CREATE SCHEMA clerk_sync AUTHORIZATION pg_monitor;
        GRANT ALL ON SCHEMA public TO pg_monitor";
    postgres.db.execute_unprepared(give).await.unwrap();
    let db = postgres.in_schema("public -c role=pg_monitor").await;
    assert_eq!(
        texts(&db, "SELECT current_user::text").await,
        ["pg_monitor"]
    );
    up(&db).await.unwrap();
    up(&db).await.unwrap();
    down(&db).await.unwrap();
    db.close().await.unwrap();
}
