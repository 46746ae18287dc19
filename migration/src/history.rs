//! Which migrations there are, and which of them a database has had.

use std::collections::HashSet;

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{DbBackend, Statement};
use sea_orm_migration::{MigrationTrait, MigratorTraitSelf};

use crate::{m0001_domain, m0002_bookkeeping, m0003_bookmarks};

/// A migration, and whether the database has had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name in the history.
    pub name: String,
    /// Whether it was applied.
    pub applied: bool,
}

/// All migrations, for one backend and one schema of the application.
pub(crate) struct Migrator {
    pub(crate) backend: DbBackend,
    /// Where the application's tables are: a schema of PostgreSQL, `main` on SQLite.
    pub(crate) domain: String,
}

impl MigratorTraitSelf for Migrator {
    /// Append only: a migration that was released is never changed or removed.
    fn migrations(&self) -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_domain::Migration {
                domain: self.domain.clone(),
            }),
            Box::new(m0002_bookkeeping::Migration),
            Box::new(m0003_bookmarks::Migration),
        ]
    }

    fn migration_table_name(&self) -> DynIden {
        // Unqualified, as SeaORM wants it; `run` points the search_path at schema `clerk_sync`.
        match self.backend {
            DbBackend::Postgres => "migrations".into_iden(),
            _ => "clerk_sync_migrations".into_iden(),
        }
    }
}

/// Every migration, in order, and whether the database has had it. Changes nothing.
pub async fn status(db: &impl ConnectionTrait) -> Result<Vec<Step>, DbErr> {
    let applied: HashSet<String> = applied(db).await?.into_iter().collect();
    let migrator = Migrator {
        backend: db.get_database_backend(),
        domain: String::new(),
    };
    let steps = migrator.migrations().into_iter().map(|migration| Step {
        name: migration.name().to_owned(),
        applied: applied.contains(migration.name()),
    });
    Ok(steps.collect())
}

/// The migrations the database still needs; empty when it is current. Changes nothing.
///
/// A worker that gets names here waits and says: run `clerk-sync migrate up`. Migrations of a
/// later release that the database has had already are no hindrance.
pub async fn pending(db: &impl ConnectionTrait) -> Result<Vec<String>, DbErr> {
    let steps = status(db).await?;
    Ok(steps
        .into_iter()
        .filter(|step| !step.applied)
        .map(|step| step.name)
        .collect())
}

/// Migrations that the database has had and this release does not know: a later one made them.
/// Changes nothing.
pub async fn unknown(db: &impl ConnectionTrait) -> Result<Vec<String>, DbErr> {
    let known = status(db).await?;
    let mut applied = applied(db).await?;
    applied.retain(|name| !known.iter().any(|step| step.name == *name));
    Ok(applied)
}

/// Names in the history table; none when there is no such table.
pub(crate) async fn applied(db: &impl ConnectionTrait) -> Result<Vec<String>, DbErr> {
    if !exists(db).await? {
        return Ok(Vec::new());
    }
    let names = match db.get_database_backend() {
        DbBackend::Postgres => "SELECT version FROM clerk_sync.migrations ORDER BY version",
        _ => "SELECT version FROM clerk_sync_migrations ORDER BY version",
    };
    let rows = db.query_all_raw(statement(db, names)).await?;
    rows.iter().map(|row| row.try_get_by_index(0)).collect()
}

/// Whether there is a history table.
pub(crate) async fn exists(db: &impl ConnectionTrait) -> Result<bool, DbErr> {
    let exists = match db.get_database_backend() {
        DbBackend::Postgres => "SELECT to_regclass('clerk_sync.migrations') IS NOT NULL",
        _ => "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'clerk_sync_migrations')",
    };
    let row = db.query_one_raw(statement(db, exists)).await?;
    row.map_or(Ok(false), |row| row.try_get_by_index(0))
}

fn statement(db: &impl ConnectionTrait, sql: &str) -> Statement {
    Statement::from_string(db.get_database_backend(), sql)
}
