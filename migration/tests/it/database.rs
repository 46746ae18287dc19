//! A database for one test, dropped with it; and pictures of what is in one.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use sea_orm_migration::sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, Statement,
};
use url::Url;

/// Prisma's own SQL for the application's schema.
pub(crate) const PRISMA: &str = include_str!("../../../tests/fixtures/prisma/expected.sql");

/// Names of databases are unique among processes by the process, within one by this.
static DATABASES: AtomicU32 = AtomicU32::new(0);

fn unique_name() -> String {
    let number = DATABASES.fetch_add(1, Ordering::Relaxed);
    format!("clerk_sync_migration_{}_{number}", std::process::id())
}

async fn connect(url: &str, connections: u32) -> DatabaseConnection {
    let mut options = ConnectOptions::new(url);
    options.max_connections(connections).sqlx_logging(false);
    Database::connect(options).await.unwrap()
}

/// A new, empty database of the PostgreSQL server.
pub(crate) struct Postgres {
    server: Url,
    name: String,
    pub(crate) db: DatabaseConnection,
}

impl Postgres {
    pub(crate) async fn new() -> Self {
        let server = std::env::var("DATABASE_URL")
            .expect("DATABASE_URL names no PostgreSQL server: run scripts/test");
        let server = Url::parse(&server).unwrap();
        let name = unique_name();
        let admin = connect(server.as_str(), 1).await;
        admin
            .execute_unprepared(&format!("CREATE DATABASE {name}"))
            .await
            .unwrap();
        admin.close().await.unwrap();
        // Whatever the name of the role is, which by default is the first schema looked at.
        let url = url_of(&server, &name, "public");
        let db = connect(url.as_str(), 4).await;
        Self { server, name, db }
    }

    /// Another connection, whose unqualified names are found in `schema`.
    pub(crate) async fn in_schema(&self, schema: &str) -> DatabaseConnection {
        connect(url_of(&self.server, &self.name, schema).as_str(), 1).await
    }
}

fn url_of(server: &Url, name: &str, schema: &str) -> Url {
    let mut url = server.clone();
    url.set_path(name);
    url.query_pairs_mut()
        .append_pair("options", &format!("-c search_path={schema}"));
    url
}

impl Drop for Postgres {
    /// Also runs when a test panics; on a thread of its own, since a runtime is running on this.
    fn drop(&mut self) {
        let server = self.server.clone();
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                connect(server.as_str(), 1)
                    .await
                    .execute_unprepared(&drop)
                    .await
                    .map(|_| ())
            })
        });
        let dropped = matches!(dropped.join(), Ok(Ok(())));
        assert!(
            dropped || std::thread::panicking(),
            "database {} is left behind",
            self.name
        );
    }
}

/// A new, empty SQLite file.
pub(crate) struct Sqlite {
    path: PathBuf,
    pub(crate) db: DatabaseConnection,
}

impl Sqlite {
    pub(crate) async fn new() -> Self {
        let path = std::env::temp_dir().join(unique_name());
        let db = connect(&format!("sqlite://{}?mode=rwc", path.display()), 1).await;
        Self { path, db }
    }

    /// Another connection, as another process would have it.
    pub(crate) async fn connect(&self) -> DatabaseConnection {
        connect(&format!("sqlite://{}", self.path.display()), 1).await
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok();
    }
}

/// The first column of each row, as text.
pub(crate) async fn texts(db: &impl ConnectionTrait, sql: &str) -> Vec<String> {
    let statement = Statement::from_string(db.get_database_backend(), sql);
    let rows = db.query_all_raw(statement).await.unwrap();
    rows.iter()
        .map(|row| row.try_get_by_index(0).unwrap())
        .collect()
}

/// Every column, index, constraint and table of a PostgreSQL database, one line each, sorted.
pub(crate) async fn postgres_catalog(db: &DatabaseConnection) -> Vec<String> {
    texts(
        db,
        r#"
        WITH own AS (
            SELECT oid, nspname FROM pg_namespace
            WHERE nspname NOT LIKE 'pg\_%' AND nspname <> 'information_schema')
        SELECT format('schema %s', nspname) AS line FROM own
        UNION ALL
        SELECT format('relation %s.%s kind=%s options=%s',
            nspname, relname, relkind, reloptions) FROM pg_class JOIN own ON own.oid = relnamespace
        UNION ALL
        SELECT format('column %s.%s.%s at %s: %s default %s null %s', table_schema, table_name,
            column_name, ordinal_position,
            data_type || coalesce(datetime_precision::text, character_maximum_length::text, ''),
            column_default, is_nullable)
        FROM information_schema.columns JOIN own ON nspname = table_schema
        UNION ALL
        SELECT format('index %s', indexdef) FROM pg_indexes JOIN own ON nspname = schemaname
        UNION ALL
        SELECT format('constraint %s on %s: %s', conname, conrelid::regclass,
            pg_get_constraintdef(c.oid)) FROM pg_constraint c JOIN own ON own.oid = connamespace
        UNION ALL
        SELECT format('type %s.%s', nspname, typname) FROM pg_type JOIN own ON own.oid = typnamespace
        UNION ALL
        SELECT format('trigger %s on %s', tgname, tgrelid::regclass) FROM pg_trigger
        WHERE NOT tgisinternal
        ORDER BY line"#,
    )
    .await
}

/// Every object of an SQLite database, sorted.
pub(crate) async fn sqlite_catalog(db: &DatabaseConnection) -> Vec<String> {
    texts(
        db,
        "SELECT type || ' ' || name || ': ' || coalesce(sql, '') FROM sqlite_master ORDER BY 1",
    )
    .await
}

/// What is in `after` but not in `before`.
pub(crate) fn added(before: &[String], after: &[String]) -> Vec<String> {
    after
        .iter()
        .filter(|line| !before.contains(line))
        .cloned()
        .collect()
}

/// The six indexes on foreign keys.
pub(crate) const CASCADE: [&str; 6] = [
    "clerk_sync_projects_userId_idx",
    "clerk_sync_designs_userId_idx",
    "clerk_sync_designs_projectId_idx",
    "clerk_sync_images_projectId_idx",
    "clerk_sync_images_designId_idx",
    "clerk_sync_credits_userId_idx",
];
