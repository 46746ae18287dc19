//! One user, asked of Clerk and applied by the projection.

use std::{sync::Arc, time::Duration};

use clerk_sync_clerk::backend::{ApiError, ApiUrl, Backend, BackendConfig, SecretKey, User};
use clerk_sync_pipeline::{
    event::Millis,
    telemetry::{ClerkFetch, Metrics},
};
use clerk_sync_projection::{Projection, Snapshot, SnapshotOutcome, Standing, Unavailable};
use tokio::{sync::OnceCell, time::sleep};

/// Longest time for asking Clerk, with its attempts: an answer to the browser leaves within 10 s.
const PATIENCE: Duration = Duration::from_secs(6);

/// How long after Clerk said that it has no such user it is asked again: right after a sign-up its
/// word may be behind, and it costs a row.
const SECOND_LOOK: Duration = Duration::from_secs(2);

/// Asks and applies.
pub struct Fetcher {
    backend: Backend,
    projection: Projection,
    metrics: Arc<Metrics>,
    /// The instance of the secret key, once it was needed.
    key_instance: OnceCell<String>,
}

/// Why a row could not be made what Clerk says.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Clerk gave no answer that could be used.
    #[error(transparent)]
    Clerk(#[from] ApiError),
    /// The key's instance has no such user, and nobody knows that the user is of this instance.
    #[error(
        "the key is of another Clerk instance than the user, or nobody knows of which the user is"
    )]
    OtherInstance,
    /// Clerk has no such user, and there is no row.
    #[error("Clerk has no such user, and no row is here")]
    Unknown,
    /// The database gave no answer.
    #[error(transparent)]
    Database(#[from] Unavailable),
}

/// What Clerk answered, for the projection.
#[must_use]
pub fn present(user: &User) -> Snapshot<'_> {
    Snapshot::Present {
        user: user.json.get().as_bytes(),
        asked_at: Millis(user.asked_at),
    }
}

impl Fetcher {
    /// Asks the instance of this key, with the patience of somebody who has a browser waiting.
    ///
    /// # Errors
    /// No HTTPS client can be made.
    pub fn new(
        secret_key: SecretKey,
        api_url: ApiUrl,
        projection: Projection,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ApiError> {
        let backend = Backend::new(BackendConfig {
            api_url,
            patience: PATIENCE,
            ..BackendConfig::new(secret_key)
        })?;
        Ok(Self {
            backend,
            projection,
            metrics,
            key_instance: OnceCell::new(),
        })
    }

    /// Makes the row what Clerk says now. What is in the database already may be newer, and stays.
    ///
    /// `instance` is the instance that the user is known to be of. A delete is final, and the key of
    /// another instance knows nobody of this one: that Clerk has no such user counts only if the
    /// key is of that instance.
    ///
    /// # Errors
    /// No answer, or none that may be believed; nothing was changed.
    pub async fn fetch(
        &self,
        user_id: &str,
        instance: Option<&str>,
    ) -> Result<SnapshotOutcome, FetchError> {
        self.check_instance(instance).await?;
        match self.ask(user_id).await? {
            Some(outcome) => Ok(outcome),
            None => self.look_again(user_id, instance).await,
        }
    }

    /// Clerk has said that it has no such user.
    async fn look_again(
        &self,
        user_id: &str,
        instance: Option<&str>,
    ) -> Result<SnapshotOutcome, FetchError> {
        if instance != Some(self.key_instance().await?) {
            return Err(FetchError::OtherInstance);
        }
        sleep(SECOND_LOOK).await;
        if let Some(outcome) = self.ask(user_id).await? {
            return Ok(outcome);
        }
        let gone = Snapshot::Gone { clerk_id: user_id };
        match self
            .projection
            .compare(std::slice::from_ref(&gone))
            .await?
            .as_slice()
        {
            // Nothing need be deleted, and if Clerk is only behind, whoever has just signed up
            // would be dead for good.
            [Standing::Current] => Err(FetchError::Unknown),
            _ => self.apply(gone).await,
        }
    }

    /// Applies what Clerk has of a user, if it has any.
    async fn ask(&self, user_id: &str) -> Result<Option<SnapshotOutcome>, FetchError> {
        let answer = self.backend.user(user_id).await;
        self.count(&answer);
        match answer? {
            Some(user) => self.apply(present(&user)).await.map(Some),
            None => Ok(None),
        }
    }

    /// The rows are of one instance, where somebody has said which; what is of another one must not
    /// bring its users.
    async fn check_instance(&self, instance: Option<&str>) -> Result<(), FetchError> {
        let Some(rows) = self.projection.instance().await? else {
            return Ok(());
        };
        let instance = match instance {
            Some(id) => id,
            None => self.key_instance().await?,
        };
        if instance == rows {
            Ok(())
        } else {
            Err(FetchError::OtherInstance)
        }
    }

    async fn apply(&self, snapshot: Snapshot<'_>) -> Result<SnapshotOutcome, FetchError> {
        let outcomes = self.projection.apply_snapshots(&[snapshot]).await?;
        let one = outcomes.into_iter().next();
        Ok(one.expect("there is an outcome for each snapshot"))
    }

    async fn key_instance(&self) -> Result<&str, ApiError> {
        let ask = async || Ok(self.backend.instance().await?.id);
        Ok(self.key_instance.get_or_try_init(ask).await?.as_str())
    }

    fn count(&self, answer: &Result<Option<User>, ApiError>) {
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
