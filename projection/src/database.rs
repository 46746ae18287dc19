//! Connecting to the database: PostgreSQL or SQLite, by URL.

use std::time::Duration;

use clerk_sync_pipeline::secret::ServerUrl;
use sea_orm::{ConnectOptions, Database, DatabaseConnection, DbErr};
use sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};

/// Longest wait for a connection. A database that is away costs this much per attempt.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection that has rested this long is tested before it is used; one in steady use is not,
/// which saves a round trip per batch.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(30);
/// SQLite: how long to wait for another writer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Parameters that Prisma understands and PostgreSQL drivers do not. `schema` is obeyed; the others
/// size Prisma's own pool.
const PRISMA_ONLY: [&str; 8] = [
    "schema",
    "connection_limit",
    "pool_timeout",
    "pgbouncer",
    "connect_timeout",
    "socket_timeout",
    "sslaccept",
    "sslidentity",
];

/// Which database a URL names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `postgres://`, `postgresql://`
    Postgres,
    /// `sqlite:`
    Sqlite,
}

/// Which database a URL names.
///
/// # Errors
/// Neither of the two; the text says which are.
pub fn kind(url: &ServerUrl) -> Result<Kind, String> {
    match url.expose().scheme() {
        "postgres" | "postgresql" => Ok(Kind::Postgres),
        "sqlite" => Ok(Kind::Sqlite),
        "file" => Err("write Prisma's file: as sqlite:path/to/file.db".to_owned()),
        "mysql" | "mariadb" | "sqlserver" | "mongodb" => {
            Err("only PostgreSQL (postgres://…) and SQLite (sqlite:…) are supported".to_owned())
        }
        scheme => Err(format!(
            "`{scheme}:` is no database that is known here: use postgres://user:password@host/name \
             or sqlite:path/to/file.db"
        )),
    }
}

/// A pool of at most `connections`. It connects lazily: a database that is away is weather, found
/// out by whoever asks first.
///
/// # Errors
/// The URL cannot be understood.
pub async fn connect(url: &ServerUrl, connections: u32) -> Result<DatabaseConnection, DbErr> {
    let kind = kind(url).map_err(DbErr::Custom)?;
    let (url, schema) = driver_url(url, kind);
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(connections)
        .min_connections(0)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .test_before_acquire_if_idle_for(TEST_AFTER_IDLE)
        .connect_lazy(true)
        // Statements are no news, and their values must not be.
        .sqlx_logging(false)
        .map_sqlx_postgres_opts(move |options| {
            let options = options.application_name("clerk-sync");
            match &schema {
                Some(schema) => options.options([("search_path", schema)]),
                None => options,
            }
        })
        .map_sqlx_sqlite_opts(|options| {
            options
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                // An acknowledged delivery must not outlive its row in a power failure.
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(BUSY_TIMEOUT)
                .foreign_keys(true)
        });
    Database::connect(options).await
}

/// The URL as the driver wants it, and the schema that Prisma's `?schema=` names.
fn driver_url(url: &ServerUrl, kind: Kind) -> (String, Option<String>) {
    let url = url.expose();
    match kind {
        Kind::Sqlite => (url.as_str().to_owned(), None),
        Kind::Postgres => {
            let schema = url.query_pairs().find(|(name, _)| name == "schema");
            let schema = schema.map(|(_, value)| value.into_owned());
            let kept: Vec<(String, String)> = url
                .query_pairs()
                .filter(|(name, _)| !PRISMA_ONLY.contains(&&**name))
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect();
            let mut plain = url.clone();
            plain.set_query(None);
            if !kept.is_empty() {
                plain.query_pairs_mut().extend_pairs(kept);
            }
            (plain.into(), schema.filter(|schema| schema != "public"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(url: &str) -> (String, Option<String>) {
        let url: ServerUrl = url.parse().unwrap();
        driver_url(&url, kind(&url).unwrap())
    }

    #[test]
    fn prismas_parameters_are_understood_or_left_out() {
        let (url, schema) =
            driver("postgresql://me:pw@db:5432/app?schema=shop&connection_limit=5&sslmode=require");
        assert_eq!(url, "postgresql://me:pw@db:5432/app?sslmode=require");
        assert_eq!(schema.as_deref(), Some("shop"));
        assert_eq!(driver("postgres://db/app?schema=public").1, None);
        assert_eq!(driver("sqlite:./dev.db").0, "sqlite:./dev.db");
        assert_eq!(
            driver("sqlite:///tmp/a.db?mode=rwc").0,
            "sqlite:///tmp/a.db?mode=rwc"
        );
    }

    #[test]
    fn other_databases_are_refused_by_name() {
        for url in [
            "mysql://db/app",
            "mongodb://db/app",
            "redis://db",
            "file:./dev.db",
        ] {
            assert!(kind(&url.parse().unwrap()).is_err());
        }
    }
}
