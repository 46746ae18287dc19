//! Connecting to the database: PostgreSQL or SQLite, by URL.

use std::time::Duration;

use clerk_sync_pipeline::secret::ServerUrl;
use sea_orm::{ConnectOptions, Database, DatabaseConnection, DbErr};
use sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use tokio::time::timeout;

/// Longest wait for a connection. A database that is away costs this much per attempt.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait for a connection that is given back to say that it is alive, and in no transaction.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection that has rested this long is tested before it is used; one in steady use is not,
/// which saves a round trip per batch.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(30);
/// SQLite: how long to wait for another writer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Prepared statements kept on each connection. A batch of each size has statements of its own.
const STATEMENTS: usize = 400;

/// Parameters of Prisma's that PostgreSQL drivers do not know. Obeyed are `schema` (the search
/// path), `pgbouncer` (no prepared statements that outlive a transaction) and `sslaccept`; the
/// others size Prisma's pool and are left out.
const PRISMA_ONLY: [&str; 8] = [
    "schema",
    "pgbouncer",
    "sslaccept",
    "sslidentity",
    "connection_limit",
    "pool_timeout",
    "connect_timeout",
    "socket_timeout",
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
    let (url, Prisma { schema, pgbouncer }) = driver_url(url, kind);
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
            let statements = if pgbouncer { 0 } else { STATEMENTS };
            let options = options
                .application_name("clerk-sync")
                .statement_cache_capacity(statements);
            match &schema {
                Some(schema) => options.options([("search_path", schema)]),
                None => options,
            }
        })
        // A connection that was given up in the middle of an answer is tested before it goes back;
        // sqlx's own test has no limit, and would keep the place for as long as the kernel tries.
        // Given up before its BEGIN was answered, it is in a transaction that sqlx knows nothing
        // of: the next statement would be said to be done, and never be committed. Hence this
        // test: it ends any transaction, and is silent, unlike a ROLLBACK alone, where there is
        // none.
        .map_sqlx_postgres_pool_opts(|pool| {
            pool.after_release(|connection, _| {
                Box::pin(async move {
                    let ended = sqlx::raw_sql("BEGIN; ROLLBACK").execute(connection);
                    match timeout(RELEASE_TIMEOUT, ended).await {
                        Ok(ended) => ended.map(|_| true),
                        Err(_) => Err(sqlx::Error::PoolTimedOut),
                    }
                })
            })
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

/// What Prisma's parameters ask for beside the URL.
#[derive(Debug, Default, PartialEq, Eq)]
struct Prisma {
    schema: Option<String>,
    pgbouncer: bool,
}

/// The URL as the driver wants it, and what else Prisma's parameters ask for.
fn driver_url(url: &ServerUrl, kind: Kind) -> (String, Prisma) {
    let url = url.expose();
    if kind == Kind::Sqlite {
        return (url.as_str().to_owned(), Prisma::default());
    }
    let value = |wanted: &str| {
        let found = url.query_pairs().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.into_owned())
    };
    let mut kept: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(name, _)| !PRISMA_ONLY.contains(&&**name))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    if value("sslaccept").as_deref() == Some("strict") {
        kept.retain(|(name, _)| name != "sslmode");
        kept.push(("sslmode".to_owned(), "verify-full".to_owned()));
    }
    let mut plain = url.clone();
    plain.set_query(None);
    if !kept.is_empty() {
        plain.query_pairs_mut().extend_pairs(kept);
    }
    let prisma = Prisma {
        schema: value("schema").filter(|schema| schema != "public"),
        pgbouncer: value("pgbouncer").as_deref() == Some("true"),
    };
    (plain.into(), prisma)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(url: &str) -> (String, Prisma) {
        let url: ServerUrl = url.parse().unwrap();
        driver_url(&url, kind(&url).unwrap())
    }

    #[test]
    fn prismas_parameters_are_understood_or_left_out() {
        let (url, prisma) = driver(
            "postgresql://me:pw@db:5432/app?schema=shop&connection_limit=5&sslmode=require&pgbouncer=true",
        );
        assert_eq!(url, "postgresql://me:pw@db:5432/app?sslmode=require");
        assert_eq!(
            prisma,
            Prisma {
                schema: Some("shop".to_owned()),
                pgbouncer: true
            }
        );
        assert_eq!(
            driver("postgres://db/app?schema=public").1,
            Prisma::default()
        );
        let strict = driver("postgres://db/app?sslmode=require&sslaccept=strict").0;
        assert_eq!(strict, "postgres://db/app?sslmode=verify-full");
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
