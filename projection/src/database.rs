//! Connecting to the database: PostgreSQL or SQLite, by URL.

use std::{borrow::Cow, time::Duration};

use clerk_sync_pipeline::{
    secret::ServerUrl,
    telemetry::{ConnectionState, Metrics},
};
use sea_orm::{
    ConnectOptions, ConnectionTrait as _, DatabaseConnection, DatabaseTransaction, DbBackend,
    DbErr, TransactionTrait as _,
};
use sqlx::{
    Connection as _, PgConnection,
    sqlite::{SqliteJournalMode, SqliteSynchronous},
};
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

/// Longest time for finding out why there is no connection. With the second that is waited for one
/// before, it fits into a readiness probe.
const DIAGNOSIS_TIMEOUT: Duration = Duration::from_millis(500);

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

/// A pool, and what each transaction on it says first.
#[derive(Clone, Debug)]
pub struct Database {
    /// For single statements that need neither the search path nor a prepared statement; for all
    /// else there is [`Database::begin`].
    pub pool: DatabaseConnection,
    opening: Option<String>,
}

/// A pool whose sessions last: prepared statements, and Prisma's schema as the search path.
impl From<DatabaseConnection> for Database {
    fn from(pool: DatabaseConnection) -> Self {
        let opening = None;
        Self { pool, opening }
    }
}

impl Database {
    /// The statements that every transaction begins with: no session need outlive it, so PgBouncer
    /// may stand between in transaction mode.
    #[must_use]
    pub fn opening(&self) -> Option<&str> {
        self.opening.as_deref()
    }

    /// The first statements of a transaction, with its opening before them.
    pub(crate) fn opened<'a>(&self, statements: &'a str) -> Cow<'a, str> {
        match &self.opening {
            Some(opening) => format!("{opening}; {statements}").into(),
            None => statements.into(),
        }
    }

    /// Has the metrics say how many connections there are, and how many are in use.
    pub(crate) fn watch(&self, metrics: &Metrics) {
        let pool = self.pool.clone();
        metrics.measured(move |metrics| {
            let Some((open, idle, limit)) = connections(&pool) else {
                return;
            };
            let (open, idle) = (i64::from(open), i64::try_from(idle).unwrap_or(i64::MAX));
            let states = &metrics.db_connections;
            states.get(ConnectionState::Idle).set(idle);
            // The two are not read in the same moment.
            states.get(ConnectionState::InUse).set((open - idle).max(0));
            metrics.db_connections_limit.set(limit.into());
        });
    }

    /// Begins a transaction, with its opening said.
    ///
    /// # Errors
    /// The database's.
    pub async fn begin(&self) -> Result<DatabaseTransaction, DbErr> {
        let transaction = self.pool.begin().await?;
        if let Some(opening) = &self.opening {
            transaction.execute_unprepared(opening).await?;
        }
        Ok(transaction)
    }
}

/// A pool as [`connect`] makes it. With `prepare` false, or `pgbouncer=true` in the URL, no prepared
/// statement outlives its transaction.
///
/// # Errors
/// The URL cannot be understood.
pub async fn open(url: &ServerUrl, connections: u32, prepare: bool) -> Result<Database, DbErr> {
    opened(url, connections, prepare, File::Ours).await
}

/// As [`open`], for whoever only looks: a SQLite file that is not there is not made, and one that is
/// keeps its journal mode.
///
/// # Errors
/// The URL cannot be understood.
pub async fn open_to_look(
    url: &ServerUrl,
    connections: u32,
    prepare: bool,
) -> Result<Database, DbErr> {
    opened(url, connections, prepare, File::AsItIs).await
}

/// What becomes of a SQLite file by opening it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum File {
    /// It is made if need be, with a write-ahead log.
    Ours,
    /// Nothing.
    AsItIs,
}

async fn opened(
    url: &ServerUrl,
    connections: u32,
    prepare: bool,
    file: File,
) -> Result<Database, DbErr> {
    let Prisma { schema, pgbouncer } = driver_url(url, kind(url).map_err(DbErr::Custom)?).1;
    let mut opening = Vec::new();
    if kind(url) == Ok(Kind::Postgres) && (pgbouncer || !prepare) {
        // The driver names its statements sqlx_s_1, sqlx_s_2 … on each of its connections, and
        // does not take them away. On a server's connection that was another client's before,
        // such a name may be taken; this frees all of them, as Prisma does.
        opening.push("DEALLOCATE ALL".to_owned());
    }
    if let Some(schema) = schema {
        // In every transaction too: a pooler that nobody told us of may ignore the start-up option.
        let quoted = schema.replace('"', "\"\"");
        opening.push(format!("SET LOCAL search_path TO \"{quoted}\""));
    }
    let keep_statements = !pgbouncer && prepare;
    Ok(Database {
        pool: pool(url, connections, keep_statements, file).await?,
        opening: (!opening.is_empty()).then(|| opening.join("; ")),
    })
}

/// A pool of at most `connections`. It connects lazily: a database that is away is weather, found
/// out by whoever asks first.
///
/// # Errors
/// The URL cannot be understood.
pub async fn connect(url: &ServerUrl, connections: u32) -> Result<DatabaseConnection, DbErr> {
    pool(url, connections, true, File::Ours).await
}

async fn pool(
    url: &ServerUrl,
    connections: u32,
    keep_statements: bool,
    file: File,
) -> Result<DatabaseConnection, DbErr> {
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
            let prepare = keep_statements && !pgbouncer;
            let statements = if prepare { STATEMENTS } else { 0 };
            let options = options
                .application_name("clerk-sync")
                // We read no floats, and PgBouncer refuses start-up parameters it does not know.
                .extra_float_digits(None)
                .statement_cache_capacity(statements);
            match &schema {
                Some(schema) if keep_statements => options.options([("search_path", schema)]),
                _ => options,
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
        .map_sqlx_sqlite_opts(move |options| {
            let options = match file {
                File::Ours => options
                    .create_if_missing(true)
                    .journal_mode(SqliteJournalMode::Wal),
                File::AsItIs => options.create_if_missing(false),
            };
            options
                // An acknowledged delivery must not outlive its row in a power failure.
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(BUSY_TIMEOUT)
                .foreign_keys(true)
        });
    sea_orm::Database::connect(options).await
}

/// How many connections of a pool are open, how many of these rest, and how many it opens at most.
fn connections(pool: &DatabaseConnection) -> Option<(u32, usize, u32)> {
    match pool.get_database_backend() {
        DbBackend::Postgres => {
            let pool = pool.get_postgres_connection_pool();
            let limit = pool.options().get_max_connections();
            Some((pool.size(), pool.num_idle(), limit))
        }
        DbBackend::Sqlite => {
            let pool = pool.get_sqlite_connection_pool();
            let limit = pool.options().get_max_connections();
            Some((pool.size(), pool.num_idle(), limit))
        }
        _ => None,
    }
}

/// Why no connection can be made, asked by making one beside the pool, which keeps the reason to
/// itself. `None`: one can be made, or there is no answer either.
pub(crate) async fn why_no_connection(pool: &DatabaseConnection) -> Option<String> {
    if pool.get_database_backend() != DbBackend::Postgres {
        return None;
    }
    let options = pool.get_postgres_connection_pool().connect_options();
    match timeout(DIAGNOSIS_TIMEOUT, PgConnection::connect_with(&options)).await {
        Ok(Ok(connection)) => {
            // It came too late to be of use.
            let _ = timeout(DIAGNOSIS_TIMEOUT, connection.close()).await;
            None
        }
        // The server's own text may name a role or a database.
        Ok(Err(sqlx::Error::Database(error))) => Some(match error.code().as_deref() {
            Some("53300") => "too many connections (53300)".to_owned(),
            Some("57P03") => "the server is starting up or shutting down (57P03)".to_owned(),
            code => format!("refused with {}", code.unwrap_or("an unknown code")),
        }),
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => None,
    }
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

    #[tokio::test]
    async fn a_transaction_says_what_no_session_can_be_relied_on_to_know() {
        for (url, prepare, opening) in [
            ("postgres://db/app", true, None),
            ("postgres://db/app", false, Some("DEALLOCATE ALL")),
            (
                "postgres://db/app?pgbouncer=true",
                true,
                Some("DEALLOCATE ALL"),
            ),
            (
                r#"postgres://db/app?schema=my"shop"#,
                true,
                Some(r#"SET LOCAL search_path TO "my""shop""#),
            ),
            (
                "postgres://db/app?schema=shop",
                false,
                Some(r#"DEALLOCATE ALL; SET LOCAL search_path TO "shop""#),
            ),
            ("sqlite::memory:", true, None),
        ] {
            let database = open(&url.parse().unwrap(), 1, prepare).await.unwrap();
            assert_eq!(database.opening(), opening, "{url}");
        }
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
