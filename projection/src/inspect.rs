//! What a database is like, for a command that tells a person: asked, and nothing changed.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use clerk_sync_entity::{processed_events, user_versions, users};
use clerk_sync_pipeline::secret::ServerUrl;
use sea_orm::{ConnectionTrait as _, DbBackend, DbErr, FromQueryResult, RuntimeErr, Statement};
use sqlx::{Connection as _, PgConnection};
use tokio::time::timeout;

use crate::{
    Projection,
    apply::bounded,
    database::{self, Database, Kind},
    failure::{INSUFFICIENT_PRIVILEGE, TransactionError, Unavailable},
    plan,
    standing::unavailable,
};

/// What a PostgreSQL server says of itself, of this session and of its limits.
#[derive(Clone, Debug, FromQueryResult)]
pub struct Server {
    /// `15.18`
    pub version: String,
    /// Whether this session is encrypted; behind a pooler, the pooler's.
    pub encrypted: bool,
    /// What time it is there.
    pub now: DateTime<Utc>,
    /// Whether nothing can be written: a standby, or made so.
    pub read_only: bool,
    /// Connections that there may be, superusers' included.
    pub max_connections: i64,
    /// How many of them are kept for superusers and the like.
    pub reserved: i64,
    /// Connections that there are, this one included.
    pub in_use: i64,
    /// How many the role may have, if that is limited.
    pub role_limit: Option<i64>,
    /// How many of them it has.
    pub role_in_use: i64,
    /// How many the database may have, if that is limited.
    pub database_limit: Option<i64>,
    /// How many of them it has.
    pub database_in_use: i64,
}

impl Server {
    /// Connections that this role can have in this database: at most, and beside those there are.
    #[must_use]
    pub fn connections(&self) -> (i64, i64) {
        let all = self.max_connections - self.reserved;
        let limits = [
            Some((all, self.in_use)),
            self.role_limit.map(|limit| (limit, self.role_in_use)),
            self.database_limit
                .map(|limit| (limit, self.database_in_use)),
        ];
        let limits = limits.into_iter().flatten();
        limits.fold((i64::MAX, i64::MAX), |(most, free), (limit, in_use)| {
            (most.min(limit), free.min((limit - in_use).max(0)))
        })
    }
}

const SERVER: &str = "
    SELECT current_setting('server_version') AS version,
        coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS encrypted,
        clock_timestamp() AS now,
        pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean AS read_only,
        current_setting('max_connections')::bigint AS max_connections,
        current_setting('superuser_reserved_connections')::bigint
            + coalesce(current_setting('reserved_connections', true), '0')::bigint AS reserved,
        (SELECT coalesce(sum(numbackends), 0)::bigint FROM pg_stat_database) AS in_use,
        (SELECT nullif(rolconnlimit, -1)::bigint FROM pg_roles WHERE rolname = current_user
            AND NOT rolsuper) AS role_limit,
        (SELECT count(*) FROM pg_stat_activity WHERE usename = current_user) AS role_in_use,
        (SELECT nullif(datconnlimit, -1)::bigint FROM pg_database
            WHERE datname = current_database()) AS database_limit,
        (SELECT coalesce(sum(numbackends), 0)::bigint FROM pg_stat_database
            WHERE datname = current_database()) AS database_in_use";

/// Whether the statements that are run with a worker's rights would run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fitness {
    /// Why some would not: every reason once.
    pub reasons: Vec<String>,
    /// Whether somebody keeps others off a table, as building an index does, so that not all could
    /// be asked.
    pub is_held: bool,
}

/// The event that was processed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromQueryResult)]
pub struct LastEvent {
    /// When the ingester had it.
    pub received_at: DateTime<Utc>,
    /// When its outcome was written.
    pub processed_at: DateTime<Utc>,
}

/// What there is of a user and of the events about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// Id and outcome of those of the events that are in the ledger.
    pub outcomes: Vec<(String, String)>,
    /// Whether there is a row.
    pub has_row: bool,
}

impl Traces {
    /// What became of an event, if the ledger has it.
    #[must_use]
    pub fn outcome(&self, event_id: &str) -> Option<&str> {
        let mut outcomes = self.outcomes.iter();
        let found = outcomes.find(|(id, _)| id == event_id);
        found.map(|(_, outcome)| outcome.as_str())
    }
}

/// Where a SQLite database is; `None` for one that is no file, and for PostgreSQL.
#[must_use]
pub fn file(url: &ServerUrl) -> Option<PathBuf> {
    if database::kind(url) != Ok(Kind::Sqlite) {
        return None;
    }
    let options: sqlx::sqlite::SqliteConnectOptions = url.expose().as_str().parse().ok()?;
    let path = options.get_filename().to_owned();
    let in_memory = path.to_string_lossy().starts_with("file:") || path.as_os_str() == ":memory:";
    (!in_memory).then_some(path)
}

/// Makes a connection, beside the pool, which would try again for as long as it has patience.
/// Returns how long that took.
///
/// # Errors
/// Why there is none, for an operator.
pub async fn reach(db: &Database, patience: Duration) -> Result<Duration, String> {
    let started = Instant::now();
    if db.pool.get_database_backend() != DbBackend::Postgres {
        let answer = db
            .pool
            .execute_unprepared("SELECT 1 FROM sqlite_schema LIMIT 1");
        return match timeout(patience, answer).await {
            Ok(Ok(_)) => Ok(started.elapsed()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {patience:?}")),
        };
    }
    let options = db.pool.get_postgres_connection_pool().connect_options();
    match timeout(patience, PgConnection::connect_with(&options)).await {
        Ok(Ok(connection)) => {
            let took = started.elapsed();
            // The server notices a rude end too.
            let _ = timeout(patience, connection.close()).await;
            Ok(took)
        }
        Ok(Err(sqlx::Error::Database(error))) => {
            Err(refused(error.code().as_deref().unwrap_or_default()))
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {patience:?}")),
    }
}

/// Whether the database says that the role may not do this.
#[must_use]
pub fn is_right_refused(error: &DbErr) -> bool {
    let (DbErr::Exec(RuntimeErr::SqlxError(source)) | DbErr::Query(RuntimeErr::SqlxError(source))) =
        error
    else {
        return false;
    };
    let answer = source.as_database_error();
    answer.and_then(|answer| answer.code()).as_deref() == Some(INSUFFICIENT_PRIVILEGE)
}

/// The server's own text may name a role or a database.
fn refused(code: &str) -> String {
    let why = match code {
        "28P01" => "the password is wrong, or there is no such role",
        "28000" => "the role may not log in from here; pg_hba.conf of the server decides",
        "3D000" => "there is no such database",
        "42501" => "the role may not connect to this database",
        "53300" => "there are too many connections",
        "57P03" => "the server is starting up or shutting down",
        _ => "the server refuses the connection",
    };
    format!("{why} ({code})")
}

impl Projection {
    /// What a PostgreSQL server says of itself.
    ///
    /// # Errors
    /// The weather.
    pub async fn server(&self) -> Result<Server, Unavailable> {
        let answered = bounded(async {
            let transaction = self.db.begin().await?;
            let question = Statement::from_string(DbBackend::Postgres, SERVER);
            let answer = Server::find_by_statement(question)
                .one(&transaction)
                .await?;
            answer.ok_or_else(|| DbErr::RecordNotFound("the server".to_owned()))
        });
        answered.await.map_err(unavailable)
    }

    /// Whether the statements that are run with a worker's rights would run.
    pub async fn fitness(&self) -> Fitness {
        let grants = self.config.initial_credits > 0;
        let mut fitness = Fitness::default();
        for plan in plan::each(self.db.pool.get_database_backend(), grants, Utc::now()) {
            match bounded(self.plan(&plan)).await {
                Ok(_) => {}
                Err(TransactionError::Contention(_)) => fitness.is_held = true,
                Err(error) => {
                    let Unavailable(reason) = unavailable(error);
                    if !fitness.reasons.contains(&reason) {
                        fitness.reasons.push(reason);
                    }
                }
            }
        }
        fitness
    }

    /// The event that was processed last, those of probes left out.
    ///
    /// # Errors
    /// The weather.
    pub async fn last_event(&self) -> Result<Option<LastEvent>, Unavailable> {
        let last = processed_events::last(self.db.pool.get_database_backend());
        self.look(async |db| {
            let row = db.query_one(&last).await?;
            row.map(|row| LastEvent::from_query_result(&row, ""))
                .transpose()
        })
        .await
    }

    /// What there is of a user and of these events.
    ///
    /// # Errors
    /// The weather.
    pub async fn traces(&self, clerk_id: &str, event_ids: &[&str]) -> Result<Traces, Unavailable> {
        let backend = self.db.pool.get_database_backend();
        let outcomes = processed_events::outcomes(backend, event_ids);
        let rows = users::rows(backend, &[clerk_id]);
        self.look(async |db| {
            let outcomes = db.query_all(&outcomes).await?;
            let outcome = |row: &sea_orm::QueryResult| {
                Ok::<_, DbErr>((row.try_get_by_index(0)?, row.try_get_by_index(1)?))
            };
            Ok(Traces {
                outcomes: outcomes.iter().map(outcome).collect::<Result<_, _>>()?,
                has_row: db.query_one(&rows).await?.is_some(),
            })
        })
        .await
    }

    /// Forgets the tombstones of probes that ended before `before`; how many there were. A worker
    /// has no right to it.
    ///
    /// # Errors
    /// The weather; the right is missing.
    pub async fn forget_probes(&self, before: DateTime<Utc>) -> Result<u64, Unavailable> {
        let forget = user_versions::forget_probes(self.db.pool.get_database_backend(), before);
        let forgotten = bounded(async {
            let transaction = self.db.begin().await?;
            let forgotten = transaction.execute(&forget).await?;
            transaction.commit().await?;
            Ok::<_, DbErr>(forgotten.rows_affected())
        });
        forgotten.await.map_err(unavailable)
    }
}
