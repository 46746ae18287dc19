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
use tokio::{sync::OnceCell, time::sleep};

use crate::{
    account::{Accounts, Known},
    refusal::Refusal,
};

/// Longest time for asking Clerk, with its attempts: an answer to the browser leaves within 10 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(6);

/// How long after Clerk said that it has no such user it is asked again: right after a sign-up its
/// word may be behind, and it costs a row.
const SECOND_LOOK: Duration = Duration::from_secs(2);

/// Asks and applies.
pub(crate) struct Fetcher {
    backend: Backend,
    projection: Projection,
    accounts: Arc<Accounts>,
    metrics: Arc<Metrics>,
    /// The instance of the secret key, once it was needed.
    key_instance: OnceCell<String>,
}

impl Fetcher {
    pub(crate) fn new(
        backend: Backend,
        projection: Projection,
        accounts: Arc<Accounts>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            backend,
            projection,
            accounts,
            metrics,
            key_instance: OnceCell::new(),
        }
    }

    /// Makes the row what Clerk says now. What is in the database already may be newer, and stays.
    pub(crate) async fn fetch(&self, session: &Session) -> Result<(), Refusal> {
        self.check_instance(session).await?;
        let clerk_id = &session.user_id;
        let outcome = match self.ask(clerk_id).await? {
            Some(outcome) => outcome,
            None => self.look_again(session).await?,
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

    /// Clerk has said that it has no such user.
    async fn look_again(&self, session: &Session) -> Result<SnapshotOutcome, Refusal> {
        // A delete is final. The key of another instance knows nobody of this one, and would take
        // each user away who signs in.
        if session.instance_id.as_ref() != Some(self.key_instance().await?) {
            return Err(Refusal::OtherInstance);
        }
        let clerk_id = &session.user_id;
        if let Known::Deleted = self.accounts.find(clerk_id).await? {
            return Err(Refusal::Deleted);
        }
        sleep(SECOND_LOOK).await;
        if let Some(outcome) = self.ask(clerk_id).await? {
            return Ok(outcome);
        }
        match self.accounts.find(clerk_id).await? {
            Known::Row(_) => self.apply(Snapshot::Gone { clerk_id }).await,
            Known::Deleted => Err(Refusal::Deleted),
            // Nothing need be deleted, and if Clerk is only behind, whoever has just signed up
            // would be dead for good.
            Known::Nothing => Err(Refusal::Unknown),
        }
    }

    /// Applies what Clerk has of a user, if it has any.
    async fn ask(&self, clerk_id: &str) -> Result<Option<SnapshotOutcome>, Refusal> {
        let answer = self.backend.user(clerk_id).await;
        self.count(&answer);
        let Some(user) = answer? else {
            return Ok(None);
        };
        let snapshot = Snapshot::Present {
            user: user.json.get().as_bytes(),
            asked_at: Millis(user.asked_at),
        };
        self.apply(snapshot).await.map(Some)
    }

    /// The rows are of one instance, where somebody has said which; tokens of another one must not
    /// bring its users.
    async fn check_instance(&self, session: &Session) -> Result<(), Refusal> {
        let Some(rows) = self.projection.instance().await? else {
            return Ok(());
        };
        let signed_by = match &session.instance_id {
            Some(id) => id,
            None => self.key_instance().await?,
        };
        if *signed_by == rows {
            Ok(())
        } else {
            Err(Refusal::OtherInstance)
        }
    }

    async fn apply(&self, snapshot: Snapshot<'_>) -> Result<SnapshotOutcome, Refusal> {
        let outcomes = self.projection.apply_snapshots(&[snapshot]).await?;
        let one = outcomes.into_iter().next();
        Ok(one.expect("there is an outcome for each snapshot"))
    }

    async fn key_instance(&self) -> Result<&String, ApiError> {
        let ask = async || Ok(self.backend.instance().await?.id);
        self.key_instance.get_or_try_init(ask).await
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
