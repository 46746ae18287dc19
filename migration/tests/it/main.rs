//! Migrations on real PostgreSQL (`DATABASE_URL`, a user that may create databases) and on real
//! SQLite files. Each test has a database of its own.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers panic as the tests that call them would"
)]

mod adoption;
mod database;
mod empty;
mod plans;
mod queries;
mod refusal;
mod runs;
