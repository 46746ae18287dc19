//! The statements of one transaction, their errors sorted.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Utc};
use clerk_sync_entity::{processed_events, user_versions, users};
use clerk_sync_pipeline::{
    Event, Millis,
    telemetry::{Label as _, Outcome},
};
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, QueryResult, SqliteTransactionMode,
    StatementBuilder, TransactionOptions, TransactionTrait,
};

use crate::{
    apply::ANSWER_WITHIN,
    batch::Batch,
    change::Read,
    database::Database,
    failure::{Step, TransactionError},
    reduce::{Goal, Winner},
    seats::Claims,
    standing,
    standing::Held,
};

pub(crate) fn ledger_row(
    event: &Event,
    read: Option<&Read>,
    outcome: Outcome,
    now: DateTime<Utc>,
) -> processed_events::Row {
    processed_events::Row {
        event_id: event.id.as_str().to_owned(),
        event_type: event.event_type.as_str().to_owned(),
        subject: read.and_then(Read::clerk_id).map(str::to_owned),
        occurred_at: read.and_then(|read| read.occurred_at).and_then(utc),
        received_at: utc(event.received_at).unwrap_or(now),
        processed_at: now,
        outcome: outcome.as_str().to_owned(),
    }
}

/// A moment that both databases can hold: the years 1 to 9999.
fn utc(millis: Millis) -> Option<DateTime<Utc>> {
    use chrono::Datelike as _;
    DateTime::from_timestamp_millis(millis.0).filter(|time| (1..=9999).contains(&time.year()))
}

/// How long a transaction waits for a lock that somebody holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockTimeout {
    /// 8 s. A transaction may wait twice: for another worker, which waits itself, and then for what
    /// that one had waited for. Both together are less than our patience with the whole.
    Long,
    /// 1 s: long enough for a transaction of another worker.
    Short,
    /// 50 ms: for a row that somebody was seen to hold.
    Brief,
}

impl LockTimeout {
    /// The server's own limits, for the transaction alone (nothing rests on the session, so
    /// PgBouncer may stand between). A shorter `statement_timeout` of the role would end a wait for
    /// a lock before its own limit, and look like another fault. The locks of a worker whose machine
    /// has vanished are free again after a minute.
    ///
    /// Every statement looks rows up by their keys. A plan is kept with its prepared statement, and
    /// one made while the tables were empty would scan them for as long as nobody analyzes them.
    fn limits(self) -> String {
        let wait = match self {
            Self::Long => "8s",
            Self::Short => "1s",
            Self::Brief => "50ms",
        };
        format!(
            "SET LOCAL lock_timeout = '{wait}'; \
             SET LOCAL statement_timeout = '{}s'; \
             SET LOCAL idle_in_transaction_session_timeout = '60s'; \
             SET LOCAL enable_seqscan = off",
            ANSWER_WITHIN.as_secs()
        )
    }
}

/// The lock that every write takes on its table: given unless somebody holds the table against
/// writers, whoever holds rows of it.
const LOCK_TABLES: &str = "LOCK TABLE users, clerk_sync.processed_events, \
                           clerk_sync.user_versions IN ROW EXCLUSIVE MODE";

/// A transaction whose errors are sorted.
pub(crate) struct Tx(DatabaseTransaction);

impl Tx {
    /// Begins a transaction that will write.
    pub(crate) async fn begin(
        db: &Database,
        lock_timeout: LockTimeout,
    ) -> Result<Self, TransactionError> {
        let pool = &db.pool;
        let begun = match pool.get_database_backend() {
            // A deferred transaction that reads first could fail to become a writer.
            DbBackend::Sqlite => {
                let options = TransactionOptions {
                    sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
                    ..TransactionOptions::default()
                };
                pool.begin_with_options(options).await
            }
            // READ COMMITTED is enough: guards are checked again under the row's lock.
            _ => pool.begin().await,
        };
        let tx = begun?;
        if tx.get_database_backend() == DbBackend::Postgres {
            tx.execute_unprepared(&db.opened(&lock_timeout.limits()))
                .await?;
        }
        Ok(Self(tx))
    }

    /// Commits. An error may mean that it happened and nobody could say so.
    pub(crate) async fn commit(self) -> Result<(), TransactionError> {
        self.0.commit().await.map_err(TransactionError::from)
    }

    /// Asks whether the tables may be written at all, whoever holds rows of them.
    pub(crate) async fn lock_tables(&self) -> Result<(), TransactionError> {
        if self.backend() == DbBackend::Postgres {
            self.0.execute_unprepared(LOCK_TABLES).await?;
        }
        Ok(())
    }

    pub(crate) fn backend(&self) -> DbBackend {
        self.0.get_database_backend()
    }

    pub(crate) async fn execute(
        &self,
        statement: &impl StatementBuilder,
    ) -> Result<(), TransactionError> {
        self.execute_step(statement, Step::Other).await
    }

    pub(crate) async fn execute_step(
        &self,
        statement: &impl StatementBuilder,
        step: Step,
    ) -> Result<(), TransactionError> {
        let executed = self.0.execute(statement).await;
        executed
            .map(drop)
            .map_err(|error| TransactionError::of(&error, step))
    }

    pub(crate) async fn query(
        &self,
        statement: &impl StatementBuilder,
    ) -> Result<Vec<QueryResult>, TransactionError> {
        self.0
            .query_all(statement)
            .await
            .map_err(TransactionError::from)
    }

    /// Ids of a statement that returns one text column.
    async fn ids(
        &self,
        statement: &impl StatementBuilder,
    ) -> Result<HashSet<String>, TransactionError> {
        let rows = self.query(statement).await?;
        rows.iter()
            .map(|row| row.try_get_by_index(0).map_err(TransactionError::from))
            .collect()
    }

    /// Takes the events in the ledger; those not returned were applied before.
    pub(crate) async fn claim(
        &self,
        batch: &Batch<'_>,
        firsts: &[usize],
        expected: &HashMap<usize, Outcome>,
        now: DateTime<Utc>,
    ) -> Result<HashSet<String>, TransactionError> {
        let row = |index: &usize| {
            let event = batch.event(*index);
            ledger_row(event, Some(batch.understood(*index)), expected[index], now)
        };
        self.ids(&processed_events::claim(
            self.backend(),
            firsts.iter().map(row),
        ))
        .await
    }

    pub(crate) async fn holders(
        &self,
        claims: &Claims<'_>,
    ) -> Result<Vec<users::Holder>, TransactionError> {
        let holders = standing::holders(&self.0, &claims.emails()).await;
        holders.map_err(TransactionError::from)
    }

    /// What is held of these users.
    pub(crate) async fn held(&self, clerk_ids: &BTreeSet<&str>) -> Result<Held, TransactionError> {
        let held = Held::read(&self.0, clerk_ids).await;
        held.map_err(TransactionError::from)
    }

    /// Advances the versions of the candidates that are newer, and locks those of `locked`, all in
    /// the order of their ids; returns who won.
    pub(crate) async fn advance(
        &self,
        candidates: &BTreeMap<&str, Winner<'_>>,
        locked: &BTreeSet<&str>,
        now: DateTime<Utc>,
    ) -> Result<HashSet<String>, TransactionError> {
        let mut rows: BTreeMap<&str, user_versions::Row> = locked
            .iter()
            .map(|clerk_id| (*clerk_id, user_versions::Row::lock_only(*clerk_id)))
            .collect();
        for (clerk_id, winner) in candidates {
            let row = match winner.goal {
                Goal::Row(_, version) => user_versions::Row {
                    clerk_id: (*clerk_id).to_owned(),
                    updated_at_ms: version.updated_at.0,
                    occurred_at_ms: version.occurred_at.0,
                    event_id: version.event_id().to_owned(),
                    deleted_at: None,
                },
                Goal::Gone => user_versions::Row {
                    deleted_at: Some(now),
                    ..user_versions::Row::lock_only(*clerk_id)
                },
            };
            rows.insert(clerk_id, row);
        }
        self.ids(&user_versions::advance(self.backend(), rows.into_values()))
            .await
    }
}
