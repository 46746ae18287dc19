//! The answer: a user's row, as the application knows it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use clerk_sync_entity::{
    accounts::{self, Account, Related},
    user_versions,
};
use clerk_sync_projection::{Unavailable, database::Database, is_unavailable};
use sea_orm::{
    ConnectionTrait, DbErr, FromQueryResult, QueryResult, StatementBuilder, prelude::DateTime,
};
use serde::Serialize;
use tokio::time::{Instant, timeout};

/// Longest time for a read. A pool waits 3 s for a connection.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// How long the tables that there are count as those that there are.
const TABLES_FOR: Duration = Duration::from_secs(60);

/// Reads rows.
pub(crate) struct Accounts {
    database: Database,
    /// Which of the application's tables there are, and when that was looked up. They come with
    /// migrations of the application.
    related: Mutex<Option<(Instant, Related)>>,
}

/// What is known of a user.
pub(crate) enum Known {
    /// Its row.
    Row(Box<Account>),
    /// It was deleted, and is remembered as deleted.
    Deleted,
    /// Nothing.
    Nothing,
}

impl Accounts {
    pub(crate) fn new(database: Database) -> Self {
        let related = Mutex::default();
        Self { database, related }
    }

    pub(crate) async fn find(&self, clerk_id: &str) -> Result<Known, Unavailable> {
        match timeout(READ_WITHIN, self.read(clerk_id)).await {
            Ok(Ok(known)) => Ok(known),
            Ok(Err(error)) => {
                // A table that is gone is not asked again.
                *self.seen() = None;
                Err(unavailable(&error))
            }
            Err(_) => Err(Unavailable(format!("no answer within {READ_WITHIN:?}"))),
        }
    }

    async fn read(&self, clerk_id: &str) -> Result<Known, DbErr> {
        let backend = self.database.pool.get_database_backend();
        let related = self.related().await?;
        let row = self.one(&accounts::by_clerk_id(clerk_id, related)).await?;
        if let Some(row) = row {
            let account = Account::from_query_result(&row, "")?;
            return Ok(Known::Row(Box::new(account)));
        }
        let held = self.one(&user_versions::held(backend, &[clerk_id])).await?;
        match held {
            Some(row) if row.try_get_by("is_tombstone")? => Ok(Known::Deleted),
            Some(_) | None => Ok(Known::Nothing),
        }
    }

    async fn related(&self) -> Result<Related, DbErr> {
        if let Some((at, related)) = *self.seen()
            && at.elapsed() < TABLES_FOR
        {
            return Ok(related);
        }
        let backend = self.database.pool.get_database_backend();
        let row = self.one(&accounts::related(backend)).await?;
        let missing = || DbErr::Custom("the tables are not there yet".to_owned());
        let related = Related::from_query_result(&row.ok_or_else(missing)?, "")?;
        if !related.users {
            return Err(missing());
        }
        *self.seen() = Some((Instant::now(), related));
        Ok(related)
    }

    fn seen(&self) -> MutexGuard<'_, Option<(Instant, Related)>> {
        self.related.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One statement; in a transaction only where the session must be told something first.
    async fn one<S: StatementBuilder>(&self, statement: &S) -> Result<Option<QueryResult>, DbErr> {
        if self.database.opening().is_none() {
            return self.database.pool.query_one(statement).await;
        }
        let transaction = self.database.begin().await?;
        let row = transaction.query_one(statement).await?;
        transaction.commit().await?;
        Ok(row)
    }
}

/// Every error of a read is the weather to who asked. Its text may hold the database's own words,
/// which are not repeated unless they are about the weather.
fn unavailable(error: &DbErr) -> Unavailable {
    match error {
        DbErr::Custom(text) => Unavailable(text.clone()),
        error if is_unavailable(error) => {
            let text = error.to_string();
            let cure = if text.contains("permission denied") {
                "; run deploy/postgres/roles.sql with -v api=on for this role"
            } else {
                ""
            };
            Unavailable(format!("{text}{cure}"))
        }
        _ => Unavailable("it refuses to read an account".to_owned()),
    }
}

/// The row in Prisma's names and forms.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    id: &'a str,
    clerk_id: &'a str,
    email: &'a str,
    name: Option<&'a str>,
    image_url: Option<&'a str>,
    created_at: String,
    updated_at: String,
    credits: Option<i64>,
    projects: Option<i64>,
    designs: Option<i64>,
}

/// An account as JSON.
pub(crate) fn json(account: &Account) -> Bytes {
    let shown = Shown {
        id: &account.id,
        clerk_id: &account.clerk_id,
        email: &account.email,
        name: account.name.as_deref(),
        image_url: account.image_url.as_deref(),
        created_at: iso(account.created_at),
        updated_at: iso(account.updated_at),
        credits: account.credits,
        projects: account.projects,
        designs: account.designs,
    };
    serde_json::to_vec(&shown)
        .expect("texts and numbers are JSON")
        .into()
}

/// As JavaScript's `Date` writes itself: milliseconds, and Z.
fn iso(moment: DateTime) -> String {
    moment.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}
