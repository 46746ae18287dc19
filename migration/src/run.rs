//! Up and down, each one transaction.

use sea_orm_migration::MigratorTraitSelf;
use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{
    DatabaseConnection, DatabaseTransaction, DbBackend, SqliteTransactionMode, Statement,
    TransactionOptions, TransactionTrait,
};

use crate::check::{Problem, SchemaErrors, Wanted, check_in};
use crate::history::{self, Migrator};
use crate::{MigrateError, cascade, catalog};

/// Names our advisory lock among all others in a PostgreSQL database.
const LOCK: i64 = i64::from_be_bytes(*b"clrksync");

/// The related tables.
const RELATED: [&str; 4] = ["projects", "designs", "images", "credits"];

/// What a run of [`up`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The application's schema (`main` on SQLite).
    pub domain: String,
    /// Whether `users` was there before.
    pub adopted: bool,
    /// The migrations applied; empty when the database was current.
    pub applied: Vec<String>,
    /// The indexes made on foreign keys of the related tables.
    pub indexes: Vec<String>,
}

/// Brings the database up to date, or changes nothing.
///
/// Creates the application's tables in an empty database, adopts them in one that has `users`,
/// and makes our bookkeeping. Several processes may do this at once: one works, the others wait
/// and find nothing to do.
/// An adopted table of many million rows is locked against writing while an index on its foreign
/// key is built. To avoid that, build it before, by the name [`Report::indexes`] would show:
/// `CREATE INDEX CONCURRENTLY "clerk_sync_designs_userId_idx" ON "designs" ("userId") WHERE
/// "userId" IS NOT NULL`.
pub async fn up(db: &DatabaseConnection) -> Result<Report, MigrateError> {
    up_with(db, None).await
}

/// As [`up`]; `opening` is run first in its transaction, such as `SET LOCAL search_path`.
pub async fn up_with(
    db: &DatabaseConnection,
    opening: Option<&str>,
) -> Result<Report, MigrateError> {
    let transaction = begin(db, opening).await?;
    finish(up_within(&transaction).await, transaction).await
}

/// Whether [`up`] would take the application's tables as they are; false where it would make them.
/// Changes nothing.
///
/// # Errors
/// It would refuse them: every problem is named. Or the database's own.
pub async fn adoptable(db: &DatabaseTransaction, wanted: Wanted) -> Result<bool, MigrateError> {
    let domain = catalog::domain(db).await?.ok_or(MigrateError::NoSchema)?;
    if catalog::relation(db, &domain, "users").await?.is_none() {
        refuse_related_without_users(db, &domain).await?;
        return Ok(false);
    }
    check_in(db, &domain, wanted).await?;
    Ok(true)
}

/// Removes what is ours, and tells what that was: the bookkeeping tables, their history, our
/// indexes, and the schema `clerk_sync` if nothing else is in it. The application's tables and
/// rows stay.
pub async fn down(db: &DatabaseConnection) -> Result<Vec<String>, MigrateError> {
    down_with(db, None).await
}

/// As [`down`]; `opening` is run first in its transaction.
pub async fn down_with(
    db: &DatabaseConnection,
    opening: Option<&str>,
) -> Result<Vec<String>, MigrateError> {
    let transaction = begin(db, opening).await?;
    finish(down_within(&transaction).await, transaction).await
}

async fn up_within(db: &DatabaseTransaction) -> Result<Report, MigrateError> {
    let domain = catalog::domain(db).await?.ok_or(MigrateError::NoSchema)?;
    let adopted = catalog::relation(db, &domain, "users").await?.is_some();
    if !adopted {
        refuse_related_without_users(db, &domain).await?;
    }

    let before = history::applied(db).await?;
    make_schema(db).await?;
    let migrator = Migrator {
        backend: db.get_database_backend(),
        domain,
    };
    enter_schema(db).await?;
    migrator.up(db, None).await?;
    let domain = migrator.domain;

    let mut applied = history::applied(db).await?;
    applied.retain(|name| !before.contains(name));
    let indexes = cascade::ensure(db, &domain).await?;
    check_in(db, &domain, Wanted::default()).await?;
    Ok(Report {
        domain,
        adopted,
        applied,
        indexes,
    })
}

async fn down_within(db: &DatabaseTransaction) -> Result<Vec<String>, MigrateError> {
    let mut removed = Vec::new();
    let domain = catalog::domain(db).await?;
    if let Some(domain) = &domain {
        removed.extend(cascade::remove(db, domain).await?);
    }
    if history::exists(db).await? {
        removed.extend(history::applied(db).await?);
        let domain = domain.unwrap_or_default();
        let migrator = Migrator {
            backend: db.get_database_backend(),
            domain,
        };
        enter_schema(db).await?;
        migrator.reset(db).await?;
    }
    if drop_schema(db).await? {
        removed.push("clerk_sync".to_owned());
    }
    Ok(removed)
}

/// Starts the transaction in which everything happens, alone among its kind.
async fn begin(
    db: &DatabaseConnection,
    opening: Option<&str>,
) -> Result<DatabaseTransaction, DbErr> {
    if db.get_database_backend() != DbBackend::Postgres {
        let sqlite_transaction_mode = Some(SqliteTransactionMode::Immediate);
        return db
            .begin_with_options(TransactionOptions {
                sqlite_transaction_mode,
                ..Default::default()
            })
            .await;
    }
    // READ COMMITTED whatever the server's default is: after the wait for the lock, the next
    // statement must see what the other process committed. Sent as text with the rest: the option
    // of a transaction would be a prepared statement, before the opening has freed their names.
    let transaction = db.begin().await?;
    let opening = opening.map(|sql| format!("{sql}; ")).unwrap_or_default();
    let isolation = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED";
    // A server that cannot reach us any more must not keep the locks: nothing here leaves it idle.
    let idle = "SET LOCAL idle_in_transaction_session_timeout = '60s'";
    let lock = format!("{isolation}; {idle}; {opening}SELECT pg_advisory_xact_lock({LOCK})");
    transaction.execute_unprepared(&lock).await?;
    Ok(transaction)
}

async fn finish<T>(
    result: Result<T, MigrateError>,
    transaction: DatabaseTransaction,
) -> Result<T, MigrateError> {
    match result {
        Ok(done) => transaction
            .commit()
            .await
            .map(|()| done)
            .map_err(Into::into),
        Err(error) => {
            // The first error is the one to tell; a connection that cannot roll back is closed,
            // which does the same.
            transaction.rollback().await.ok();
            Err(error)
        }
    }
}

/// A database with `projects` but no `users` is neither empty nor ours to adopt.
async fn refuse_related_without_users(
    db: &DatabaseTransaction,
    domain: &str,
) -> Result<(), MigrateError> {
    for table in RELATED {
        if catalog::relation(db, domain, table).await?.is_some() {
            return Err(SchemaErrors(vec![Problem {
                table: "users".to_owned(),
                column: None,
                found: format!("nothing of this name, but a table {table}"),
                wanted: "a table to adopt, or a database without any of the five".to_owned(),
            }])
            .into());
        }
    }
    Ok(())
}

/// Creates schema `clerk_sync` on PostgreSQL. Asks first, since `IF NOT EXISTS` demands the right
/// to create even where there is nothing to create.
async fn make_schema(db: &DatabaseTransaction) -> Result<(), DbErr> {
    if db.get_database_backend() == DbBackend::Postgres
        && !asked(db, "SELECT to_regnamespace('clerk_sync') IS NOT NULL").await?
    {
        db.execute_unprepared("CREATE SCHEMA clerk_sync").await?;
    }
    Ok(())
}

/// Lets SeaORM find its history table, which it cannot qualify; until the transaction ends.
async fn enter_schema(db: &DatabaseTransaction) -> Result<(), DbErr> {
    if db.get_database_backend() == DbBackend::Postgres {
        db.execute_unprepared("SET LOCAL search_path TO clerk_sync")
            .await?;
    }
    Ok(())
}

/// Drops schema `clerk_sync` on PostgreSQL if it is there, empty, and ours to drop.
async fn drop_schema(db: &DatabaseTransaction) -> Result<bool, DbErr> {
    let droppable = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace n
        WHERE n.nspname = 'clerk_sync' AND pg_has_role(n.nspowner, 'USAGE')
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
            WHERE d.refclassid = 'pg_catalog.pg_namespace'::regclass AND d.refobjid = n.oid))";
    if db.get_database_backend() != DbBackend::Postgres || !asked(db, droppable).await? {
        return Ok(false);
    }
    db.execute_unprepared("DROP SCHEMA clerk_sync").await?;
    Ok(true)
}

/// The answer to a question of one boolean.
async fn asked(db: &DatabaseTransaction, sql: &str) -> Result<bool, DbErr> {
    let question = Statement::from_string(db.get_database_backend(), sql);
    let row = db.query_one_raw(question).await?;
    row.map_or(Ok(false), |row| row.try_get_by_index(0))
}
