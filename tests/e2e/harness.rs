//! Processes, servers and a sender for the tests. Shared with `tests/weather`, which is why the
//! files are named: a module that is included by its path looks for its own beside itself.

#[path = "harness/clerk.rs"]
pub(crate) mod clerk;
#[cfg(target_os = "linux")]
#[path = "harness/measure.rs"]
pub(crate) mod measure;
#[path = "harness/process.rs"]
pub(crate) mod process;
#[path = "harness/proxy.rs"]
pub(crate) mod proxy;
#[path = "harness/rights.rs"]
pub(crate) mod rights;
#[path = "harness/servers.rs"]
pub(crate) mod servers;
#[path = "harness/wire.rs"]
pub(crate) mod wire;

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep};

/// Longest wait for anything that should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Waits until `condition` holds, or fails the test.
pub(crate) async fn eventually<F>(what: &str, within: Duration, mut condition: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    let deadline = Instant::now() + within;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        sleep(Duration::from_millis(25)).await;
    }
}
