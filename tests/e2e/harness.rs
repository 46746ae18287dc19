//! Processes, servers and a sender for the tests.

pub(crate) mod clerk;
#[cfg(target_os = "linux")]
pub(crate) mod measure;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod rights;
pub(crate) mod servers;
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
