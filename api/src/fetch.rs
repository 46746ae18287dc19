//! One user, asked of Clerk and applied by the projection.

use std::{sync::Arc, time::Duration};

use clerk_sync_clerk::{
    backend::{ApiError, Backend},
    token::Session,
};
use clerk_sync_pipeline::{
    event::Millis,
    queue::Reason,
    telemetry::{ClerkFetch, Metrics},
};
use clerk_sync_projection::{Projection, Snapshot, SnapshotOutcome};
use tokio::sync::OnceCell;

use crate::refusal::Refusal;

/// Longest time for asking Clerk, with its attempts: an answer to the browser leaves within 10 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(6);

/// Asks and applies.
pub(crate) struct Fetcher {
    backend: Backend,
    projection: Projection,
    metrics: Arc<Metrics>,
    /// The instance of the secret key, once it was needed.
    instance: OnceCell<String>,
}

impl Fetcher {
    pub(crate) fn new(backend: Backend, projection: Projection, metrics: Arc<Metrics>) -> Self {
        Self {
            backend,
            projection,
            metrics,
            instance: OnceCell::new(),
        }
    }

    /// Makes the row what Clerk says now. What is in the database already may be newer, and stays.
    pub(crate) async fn fetch(&self, session: &Session) -> Result<(), Refusal> {
        let asked_at = Millis::now();
        let answer = self.backend.user(&session.user_id).await;
        self.count(&answer);
        let outcome = match answer? {
            Some(user) => {
                let user = user.json.get().as_bytes();
                self.apply(Snapshot::Present { user, asked_at }).await?
            }
            None => {
                // A delete is final. The key of another instance knows nobody of this one, and
                // would take each user away who signs in.
                if session.instance_id.as_ref() != Some(self.instance().await?) {
                    return Err(Refusal::OtherInstance);
                }
                let clerk_id = &session.user_id;
                self.apply(Snapshot::Gone { clerk_id }).await?
            }
        };
        match outcome {
            SnapshotOutcome::Created
            | SnapshotOutcome::Updated
            | SnapshotOutcome::Current
            | SnapshotOutcome::Stale
            | SnapshotOutcome::Deleted => Ok(()),
            SnapshotOutcome::MissingEmail => Err(Refusal::Unwritable(Reason::MissingEmail)),
            SnapshotOutcome::Failed(failure) => Err(failure.into()),
        }
    }

    async fn apply(&self, snapshot: Snapshot<'_>) -> Result<SnapshotOutcome, Refusal> {
        let outcomes = self.projection.apply_snapshots(&[snapshot]).await?;
        let one = outcomes.into_iter().next();
        Ok(one.expect("there is an outcome for each snapshot"))
    }

    async fn instance(&self) -> Result<&String, ApiError> {
        let ask = async || Ok(self.backend.instance().await?.id);
        self.instance.get_or_try_init(ask).await
    }

    fn count(&self, answer: &Result<Option<clerk_sync_clerk::backend::User>, ApiError>) {
        let outcome = match answer {
            Ok(Some(_)) => ClerkFetch::Found,
            Ok(None) => ClerkFetch::Gone,
            Err(ApiError::RateLimited { .. }) => ClerkFetch::RateLimited,
            Err(ApiError::Unavailable { .. }) => ClerkFetch::Unavailable,
            Err(
                ApiError::KeyRefused { .. }
                | ApiError::NotFound { .. }
                | ApiError::CursorLost { .. }
                | ApiError::Refused { .. }
                | ApiError::Unreadable { .. }
                | ApiError::Client(_),
            ) => ClerkFetch::Refused,
        };
        self.metrics.clerk_fetches.get(outcome).inc();
    }
}
