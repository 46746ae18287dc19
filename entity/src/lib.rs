//! The tables of `clerk-sync` as SeaORM entities, their named queries beside them.
//!
//! The five domain tables ([`users`], [`projects`], [`designs`], [`images`], [`credits`]) are the
//! Prisma application's: column names in camel case, times in UTC without a zone.
//! The three bookkeeping tables ([`processed_events`], [`user_versions`], [`bookmarks`]) are ours. They live in
//! PostgreSQL's schema `clerk_sync`, and in SQLite, which has no schemas, under the prefix
//! `clerk_sync_`, so they are named by a function of the backend instead of an entity.
//!
//! What enters is plain rows, what leaves is a statement of sea-query that
//! [`ConnectionTrait`](sea_orm::ConnectionTrait) runs on either database. Nothing here runs a
//! statement, opens a transaction or decides which event wins.
//!
//! Rules for every statement of several rows: give at least one row; give a key only once
//! (PostgreSQL refuses a second, SQLSTATE 21000); give the rows sorted by key, so that
//! concurrent writers lock them in one order.

pub mod accounts;
pub mod bookmarks;
pub mod credits;
pub mod designs;
pub mod images;
pub mod processed_events;
pub mod projects;
mod rows;
pub mod user_versions;
pub mod users;
