//! What the database is asked for beside batches.

use std::collections::BTreeMap;

use crate::{
    Projection,
    apply::bounded,
    change,
    failure::{Refusal, TransactionError, Unavailable},
    plan,
    transaction::ledger_row,
};
use chrono::{DateTime, Utc};
use clerk_sync_entity::processed_events;
use clerk_sync_pipeline::{
    Event,
    telemetry::{DbOperation, DbResult, Outcome},
};
use sea_orm::ConnectionTrait as _;

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
        let claim = processed_events::claim(self.db.get_database_backend(), rows.into_values());
        let recorded = bounded(self.db.execute(&claim)).await;
        self.count(DbOperation::Record, recorded.is_ok());
        match recorded {
            Err(TransactionError::Refused(Refusal { failure, .. })) => {
                // Nothing rests on this row; the event itself must go on its way.
                tracing::warn!(
                    cause = failure.detail,
                    "the ledger refuses to note failed events"
                );
                Ok(())
            }
            recorded => recorded.map(drop).map_err(unavailable),
        }
    }

    /// Removes ledger rows older than `before`, in chunks, until none is left. Returns how many.
    ///
    /// # Errors
    /// The weather.
    pub async fn prune(&self, before: DateTime<Utc>) -> Result<u64, Unavailable> {
        let backend = self.db.get_database_backend();
        let mut pruned = 0;
        loop {
            let chunk = processed_events::prune(backend, before, PRUNE_CHUNK);
            let result = bounded(self.db.execute(&chunk)).await;
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
    /// and columns exist, and that the role has the rights.
    ///
    /// # Errors
    /// It is not, or would not: the text says what to do.
    pub async fn ping(&self) -> Result<(), Unavailable> {
        let backend = self.db.get_database_backend();
        let grants = self.config.initial_credits > 0;
        self.would_run(&plan::of_a_batch(backend, grants)).await
    }

    /// Asks the same of every statement of a worker, the one that prunes the ledger too.
    ///
    /// # Errors
    /// As for [`Projection::ping`].
    pub async fn is_fit(&self) -> Result<(), Unavailable> {
        self.ping().await?;
        let backend = self.db.get_database_backend();
        self.would_run(&plan::of_pruning(backend, Utc::now())).await
    }

    async fn would_run(&self, plans: &str) -> Result<(), Unavailable> {
        let mut planned = bounded(self.db.execute_unprepared(plans)).await;
        if matches!(planned, Err(TransactionError::Contention(_))) {
            // Somebody keeps writers off a table, as building an index does. That is no fault of
            // the database, and rights can be asked for later: is everything there to be read?
            let backend = self.db.get_database_backend();
            let look = plan::look(backend, self.config.initial_credits > 0);
            planned = bounded(self.db.execute_unprepared(&look)).await;
        }
        self.count(DbOperation::Ping, planned.is_ok());
        planned.map(drop).map_err(unavailable)
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

/// Where no event is at fault, every failure is the weather.
fn unavailable(error: TransactionError) -> Unavailable {
    match error {
        TransactionError::Unavailable(weather) => weather,
        TransactionError::Refused(refusal) => Unavailable(refusal.failure.detail),
        other => Unavailable(format!("{other:?}")),
    }
}
