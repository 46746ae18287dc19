//! The client against the stand-in for Clerk, over the wire.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod failures;
mod limits;
mod token;
mod users;
mod walks;

use std::time::Duration;

use clerk_sync_clerk::backend::{Backend, BackendConfig};
use clerk_sync_stand_in::{Settings, StandIn};

/// Longer than anything here takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A production instance, and a client of it.
async fn clerk() -> (StandIn, Backend) {
    clerk_as(Settings::production()).await
}

async fn clerk_as(settings: Settings) -> (StandIn, Backend) {
    let clerk = StandIn::start_as(settings).await;
    let backend = Backend::new(config(&clerk)).unwrap();
    (clerk, backend)
}

fn config(clerk: &StandIn) -> BackendConfig {
    let secret_key = clerk.settings().secret_key.parse().unwrap();
    BackendConfig {
        api_url: clerk.url().parse().unwrap(),
        patience: PATIENCE,
        ..BackendConfig::new(secret_key)
    }
}
