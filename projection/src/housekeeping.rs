//! What the database is asked for beside batches.

use std::collections::BTreeMap;

use crate::{
    Projection,
    apply::bounded,
    change,
    failure::{Refusal, TransactionError, Unavailable},
    transaction::ledger_row,
};
use chrono::{DateTime, Utc};
use clerk_sync_entity::{credits, processed_events, user_versions, users};
use clerk_sync_pipeline::{
    Event,
    telemetry::{DbOperation, DbResult, Outcome},
};
use sea_orm::{
    ConnectionTrait as _,
    sea_query::{Expr, Query},
};

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

    /// Asks whether the database is there, with the tables that every batch needs.
    ///
    /// # Errors
    /// It is not, or the tables are not: the text names the command that makes them.
    pub async fn ping(&self) -> Result<(), Unavailable> {
        let backend = self.db.get_database_backend();
        let mut look = Query::select();
        look.expr(Expr::val(1))
            .from(users::Entity)
            .from(user_versions::table(backend))
            .from(processed_events::table(backend))
            .limit(0);
        if self.config.initial_credits > 0 {
            look.from(credits::Entity);
        }
        let answer = bounded(self.db.query_all(&look)).await;
        self.count(DbOperation::Ping, answer.is_ok());
        answer.map(drop).map_err(unavailable)
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
