//! Reading the database: single statements, within a time.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use clerk_sync_projection::{Unavailable, database::Database, is_unavailable};
use sea_orm::{
    ConnectionTrait as _, DbBackend, DbErr, FromQueryResult, QueryResult, StatementBuilder,
};
use tokio::time::timeout;

/// Longest time for a statement. A pool waits 3 s for a connection.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// A moment, as the ledger has it.
pub(crate) type Time = chrono::DateTime<chrono::Utc>;

/// Now.
pub(crate) fn now() -> Time {
    chrono::Utc::now()
}

/// Reads rows. Cloning shares the pool.
#[derive(Clone)]
pub(crate) struct Reader(Arc<Database>);

impl Reader {
    pub(crate) fn new(database: Database) -> Self {
        Self(Arc::new(database))
    }

    pub(crate) fn backend(&self) -> DbBackend {
        self.0.pool.get_database_backend()
    }

    /// All rows of a statement.
    pub(crate) async fn rows<S: StatementBuilder>(
        &self,
        statement: &S,
    ) -> Result<Vec<QueryResult>, Unavailable> {
        match timeout(READ_WITHIN, self.read(statement)).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => Err(unavailable(&error)),
            Err(_) => Err(Unavailable(format!("no answer within {READ_WITHIN:?}"))),
        }
    }

    /// The same, as what they are.
    pub(crate) async fn all<T: FromQueryResult>(
        &self,
        statement: &impl StatementBuilder,
    ) -> Result<Vec<T>, Unavailable> {
        let rows = self.rows(statement).await?;
        let read = rows.iter().map(|row| T::from_query_result(row, ""));
        read.collect::<Result<_, _>>()
            .map_err(|error| unavailable(&error))
    }

    /// The first one, if there is one.
    pub(crate) async fn one<T: FromQueryResult>(
        &self,
        statement: &impl StatementBuilder,
    ) -> Result<Option<T>, Unavailable> {
        Ok(self.all(statement).await?.into_iter().next())
    }

    /// In a transaction only where the session must be told something first.
    async fn read<S: StatementBuilder>(&self, statement: &S) -> Result<Vec<QueryResult>, DbErr> {
        if self.0.opening().is_none() {
            return self.0.pool.query_all(statement).await;
        }
        let transaction = self.0.begin().await?;
        let rows = transaction.query_all(statement).await?;
        transaction.commit().await?;
        Ok(rows)
    }
}

/// What is not the weather may hold the database's own words, which are not repeated.
fn unavailable(error: &DbErr) -> Unavailable {
    if !is_unavailable(error) {
        return Unavailable("it refuses to read that".to_owned());
    }
    let mut text = error.to_string();
    if text.contains("permission denied") {
        let _ = write!(
            text,
            "; run deploy/postgres/roles.sql with -v api=on for this role"
        );
    }
    Unavailable(text)
}
