//! The projection on real PostgreSQL (`DATABASE_URL`, a user that may create databases) and on
//! real SQLite files: the three rules, the ledger, and what becomes of an event that fails.
//!
//! Every test has a database of its own and, where nothing else is said, runs on both.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers panic as the tests that call them would"
)]

/// Runs each test on both databases, as `sqlite::name` and `postgres::name`. A test that is not
/// listed is dead code, and so a warning.
macro_rules! on_both_databases {
    ($($test:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test] async fn $test() {
                super::$test(&crate::database::Db::sqlite().await).await;
            })+
        }
        mod postgres {
            $(#[tokio::test] async fn $test() {
                super::$test(&crate::database::Db::postgres().await).await;
            })+
        }
    };
}

mod addresses;
mod adoption;
mod allocations;
mod awkward;
mod cancellation;
mod clerk;
mod cost;
mod database;
mod ledger;
mod model;
mod poison;
mod pool;
mod proxy;
mod relations;
mod server;
mod snapshots;
mod story;
mod survey;
mod tombstones;
mod versions;
mod weather;
mod workers;
