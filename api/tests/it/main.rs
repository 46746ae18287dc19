//! The API over the wire: a real stand-in for Clerk, and a real database. `DATABASE_URL` names the
//! PostgreSQL server of the tests that need one.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod browser;
mod database;
mod fetches;
mod process;
mod refusals;
mod rig;
mod rows;
mod sign_up;

use std::time::Duration;

/// Longest wait for anything that should happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A test on SQLite, and the same on PostgreSQL.
macro_rules! on_both {
    ($($name:ident)+) => {
        mod sqlite { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(crate::database::Home::sqlite().await).await; }
        )+ }
        mod postgres { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(crate::database::Home::postgres().await).await; }
        )+ }
    };
}
use on_both;
