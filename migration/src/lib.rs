//! The schema of `clerk-sync`, on PostgreSQL and SQLite: made, adopted, checked, removed.
//!
//! What enters is a connection; what leaves is a database in which `users` is as Prisma makes it
//! (or as the application has it), with our bookkeeping beside it: in schema `clerk_sync` on
//! PostgreSQL, under the prefix `clerk_sync_` on SQLite, migration history included.
//!
//! Guaranteed: a run is one transaction, so a database that cannot be adopted is left as it was;
//! any number of runs at the same moment all succeed; an existing table of the application is
//! never altered or dropped, and no run depends on the state of a connection (`PgBouncer` in
//! transaction mode is fine). Never done: creating a related table beside an adopted `users`,
//! touching rows, linking the entities.

mod cascade;
mod catalog;
mod check;
mod history;
mod m0001_domain;
mod m0002_bookkeeping;
mod m0003_bookmarks;
mod run;

pub use check::{Problem, SchemaErrors, Wanted, check};
pub use history::{Step, pending, status, unknown};
pub use run::{Report, adoptable, down, down_with, up, up_with};

/// Why a database could not be migrated or is not fit for use.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The application's tables are not what we can write to. Nothing was changed.
    #[error(transparent)]
    Schema(#[from] SchemaErrors),
    /// The connection's `search_path` names no schema that exists, or only ours.
    #[error("the search_path of this connection names no schema for the application's tables")]
    NoSchema,
    /// A statement or the connection failed. Nothing was changed.
    #[error("the database failed")]
    Database(#[from] sea_orm_migration::DbErr),
}
