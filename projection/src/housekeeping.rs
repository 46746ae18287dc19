//! What the database is asked for beside batches.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use crate::{
    Projection,
    apply::bounded,
    change,
    database::why_no_connection,
    failure::{Refusal, TransactionError, Unavailable},
    plan,
    standing::unavailable,
    transaction::ledger_row,
};
use chrono::{DateTime, Utc};
use clerk_sync_entity::processed_events;
use clerk_sync_pipeline::{
    Event,
    telemetry::{DbOperation, DbResult, Outcome},
};
use sea_orm::{ConnectionTrait as _, DbBackend, DbErr, ExecResult, StatementBuilder};
use tokio::time::timeout;

/// After this time without an answer, a [`Projection::ping`] looks for the reason.
const SOON: Duration = Duration::from_secs(1);
/// Rows pruned from the ledger in one statement.
const PRUNE_CHUNK: u64 = 1000;

impl Projection {
    /// Writes down events that were put aside, `retried` or `dead_lettered`, so that the ledger
    /// has them. Such a row does not make a later delivery of the event a duplicate.
    ///
    /// # Errors
    /// The weather.
    pub async fn record(&self, events: &[(&Event, Outcome)]) -> Result<(), Unavailable> {
        let now = Utc::now();
        let mut rows: BTreeMap<&str, processed_events::Row> = BTreeMap::new();
        for (event, outcome) in events {
            let read = change::read(event, &self.config.rules).ok();
            rows.insert(
                event.id.as_str(),
                ledger_row(event, read.as_ref(), *outcome, now),
            );
        }
        if rows.is_empty() {
            return Ok(());
        }
        let claim = processed_events::claim(self.backend(), rows.into_values());
        let recorded = bounded(self.execute(&claim)).await;
        self.count(DbOperation::Record, recorded.is_ok());
        match recorded {
            Err(TransactionError::Refused(Refusal { failure, .. })) => {
                // Nothing rests on this row; the event itself must go on its way.
                tracing::warn!(
                    error = failure.detail,
                    "the ledger refuses to note failed events"
                );
                Ok(())
            }
            Err(error) => Err(self.explained(unavailable(error)).await),
            Ok(_) => Ok(()),
        }
    }

    /// Removes ledger rows older than `before`, in chunks, until none is left. Returns how many.
    ///
    /// # Errors
    /// The weather.
    pub async fn prune(&self, before: DateTime<Utc>) -> Result<u64, Unavailable> {
        let backend = self.backend();
        let mut pruned = 0;
        loop {
            let chunk = processed_events::prune(backend, before, PRUNE_CHUNK);
            let result = bounded(self.execute(&chunk)).await;
            self.count(DbOperation::Prune, result.is_ok());
            let removed = result.map_err(unavailable)?.rows_affected();
            pruned += removed;
            if removed < PRUNE_CHUNK {
                return Ok(pruned);
            }
            // The ledger is written by everyone; leave room between the chunks.
            tokio::task::yield_now().await;
        }
    }

    /// Asks whether the database is there and would run every statement of a batch: that the tables
    /// and columns exist, and that the role has the rights. After a second without an answer it looks for the
    /// reason, so that a readiness probe has one.
    ///
    /// # Errors
    /// It is not, or would not: the text says what to do.
    pub async fn ping(&self) -> Result<(), Unavailable> {
        let grants = self.config.initial_credits > 0;
        let plans = plan::of_a_batch(self.backend(), grants);
        let mut answer = pin!(self.would_run(&plans));
        match timeout(SOON, answer.as_mut()).await {
            Ok(Err(unavailable)) => Err(self.explained(unavailable).await),
            Ok(Ok(())) => Ok(()),
            // The pool waits for a connection, or the server for something.
            Err(_) => match why_no_connection(&self.db.pool).await {
                Some(why) => Err(Unavailable::no_connection(&why)),
                None => answer.await,
            },
        }
    }

    /// Asks the same of every statement that is run with a worker's rights: also of those that prune
    /// the ledger, and that remember something of the whole.
    ///
    /// # Errors
    /// As for [`Projection::ping`].
    pub async fn is_fit(&self) -> Result<(), Unavailable> {
        self.ping().await?;
        self.would_run(&plan::of_pruning(self.backend(), Utc::now()))
            .await?;
        self.would_run(&plan::of_bookmarks(self.backend())).await
    }

    /// With the reason why no connection can be made, if that is what it is about.
    pub(crate) async fn explained(&self, unavailable: Unavailable) -> Unavailable {
        if !unavailable.is_unexplained() {
            return unavailable;
        }
        let why = why_no_connection(&self.db.pool).await;
        let why = why.unwrap_or_else(|| "no answer, or all of ours are busy".to_owned());
        Unavailable::no_connection(&why)
    }

    async fn would_run(&self, plans: &str) -> Result<(), Unavailable> {
        let mut planned = bounded(self.plan(plans)).await;
        if matches!(planned, Err(TransactionError::Contention(_))) {
            // Somebody keeps writers off a table, as building an index does. That is no fault of
            // the database, and rights can be asked for later: is everything there to be read?
            let look = plan::look(self.backend(), self.config.initial_credits > 0);
            planned = bounded(self.plan(&look)).await;
        }
        self.count(DbOperation::Ping, planned.is_ok());
        planned.map(drop).map_err(unavailable)
    }

    /// Executes one statement.
    async fn execute(&self, statement: &impl StatementBuilder) -> Result<ExecResult, DbErr> {
        if self.db.opening().is_none() {
            return self.db.pool.execute(statement).await;
        }
        let transaction = self.db.begin().await?;
        let result = transaction.execute(statement).await?;
        transaction.commit().await?;
        Ok(result)
    }

    /// Executes statements that change nothing. Sent together, they are one transaction.
    pub(crate) async fn plan(&self, statements: &str) -> Result<ExecResult, DbErr> {
        let statements = self.db.opened(statements);
        self.db.pool.execute_unprepared(&statements).await
    }

    fn backend(&self) -> DbBackend {
        self.db.pool.get_database_backend()
    }

    fn count(&self, operation: DbOperation, ok: bool) {
        let result = if ok {
            DbResult::Ok
        } else {
            DbResult::Unavailable
        };
        self.metrics.db_operations.get(operation, result).inc();
    }
}
