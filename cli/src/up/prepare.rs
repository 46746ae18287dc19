//! Tables and topology, made by `up` itself, as soon as the servers are there.

use std::time::Duration;

use clerk_sync_migration::{self as migration, MigrateError, Wanted};
use clerk_sync_pipeline::{
    lifecycle::Shutdown,
    queue::amqp::{self, Server, SetupError},
    retry::Backoff,
};
use clerk_sync_projection::{database::Database, is_unavailable};
use clerk_sync_worker::config::WorkerArgs;
use tokio::time::{sleep, timeout};

/// Migrates, waiting for a database that is away. False when the process is stopping.
///
/// # Errors
/// The database is there and cannot be used.
pub(crate) async fn tables(
    db: &Database,
    worker: &WorkerArgs,
    shutdown: &Shutdown,
) -> anyhow::Result<bool> {
    let migrate = async || {
        let report = migration::up_with(&db.pool, db.opening()).await?;
        migration::check(
            &db.begin().await?,
            Wanted {
                credits: worker.projection.grants(),
            },
        )
        .await?;
        Ok(report)
    };
    let mut waiting = Waiting::new("database", shutdown);
    loop {
        // Given up in the middle, it is rolled back.
        let migrated = tokio::select! {
            migrated = migrate() => migrated,
            () = until_silent(db) => {
                if !waiting.pass("it does not answer").await {
                    return Ok(false);
                }
                continue;
            }
            () = shutdown.requested() => return Ok(false),
        };
        match migrated {
            Ok(report) if report.applied.is_empty() => return Ok(true),
            Ok(report) => {
                let applied = report.applied.join(", ");
                tracing::info!(adopted = report.adopted, applied, "the tables are ready");
                return Ok(true);
            }
            Err(MigrateError::Database(error)) if is_unavailable(&error) => {
                if !waiting.pass(&error.to_string()).await {
                    return Ok(false);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Longest wait for a sign of life while migrating.
const SILENCE: Duration = Duration::from_secs(20);

/// Resolves when the database does not answer any more: a migration may take its time, as long as
/// there is somebody who works on it.
async fn until_silent(db: &Database) {
    loop {
        sleep(SILENCE / 2).await;
        if !matches!(timeout(SILENCE, db.pool.ping()).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// Longest time for a first try, before the webhook port is served.
const FIRST_TRY: Duration = Duration::from_secs(1);

/// Declares the topology if the broker is there. False when it is not.
///
/// # Errors
/// The broker holds other definitions.
pub(crate) async fn topology_now(server: &Server) -> anyhow::Result<bool> {
    match timeout(FIRST_TRY, amqp::setup(server)).await {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(different @ SetupError::Different(_))) => Err(different.into()),
        Ok(Err(SetupError::Broker(_))) | Err(_) => Ok(false),
    }
}

/// Declares the topology, waiting for a broker that is away. False when the process is stopping.
///
/// # Errors
/// The broker holds other definitions.
pub(crate) async fn topology(server: &Server, shutdown: &Shutdown) -> anyhow::Result<bool> {
    let mut waiting = Waiting::new("broker", shutdown);
    loop {
        let declared = tokio::select! {
            declared = amqp::setup(server) => declared,
            () = shutdown.requested() => return Ok(false),
        };
        match declared {
            Ok(_) => return Ok(true),
            Err(SetupError::Broker(cause)) => {
                if !waiting.pass(&cause).await {
                    return Ok(false);
                }
            }
            Err(different @ SetupError::Different(_)) => return Err(different.into()),
        }
    }
}

/// Patience with a server that is not there yet.
struct Waiting<'a> {
    what: &'static str,
    shutdown: &'a Shutdown,
    backoff: Backoff,
    told: bool,
}

impl<'a> Waiting<'a> {
    fn new(what: &'static str, shutdown: &'a Shutdown) -> Self {
        Self {
            what,
            shutdown,
            backoff: Backoff::reconnect(),
            told: false,
        }
    }

    /// Waits before the next try; false when the process is stopping.
    async fn pass(&mut self, cause: &str) -> bool {
        if !self.told {
            tracing::warn!(
                dependency = self.what,
                error = cause,
                "waiting for a server"
            );
            self.told = true;
        }
        tokio::select! {
            () = sleep(self.backoff.next_delay()) => true,
            () = self.shutdown.requested() => false,
        }
    }
}
