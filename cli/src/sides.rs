//! Clerk on one side, the application's database on the other: what a command needs that has to do
//! with both.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use clerk_sync_clerk::backend::{
    ApiError, ApiUrl, Backend, BackendConfig, DEFAULT_API_URL, Instance, SecretKey, User,
};
use clerk_sync_pipeline::{Millis, retry::Backoff, secret::ServerUrl, telemetry::Metrics};
use clerk_sync_projection::{
    MissingEmail, Projection, ProjectionConfig, Snapshot, SnapshotOutcome, Unavailable,
    change::Rules,
    config::{SessionArgs, database_url},
    database,
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::{Instant, sleep};

use crate::data::{self, DataFolder};

mod instance;

/// Database connections of a command: one at work, one to answer `/readyz`, one to spare.
const CONNECTIONS: u32 = 3;
/// How long the database may be away before a command gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one call may take, once Clerk has answered. A 429 may ask for a pause of ten minutes.
const PATIENCE_WITH_CLERK: Duration = Duration::from_secs(900);
/// How many users are asked for at a time, each by itself.
const AT_A_TIME: usize = 8;
/// Most users in one transaction.
pub(crate) const BATCH: usize = 250;

/// The two sides' settings.
#[derive(Clone, clap::Args)]
pub(crate) struct SidesArgs {
    /// The Clerk instance's secret key: sk_live_… or sk_test_…
    #[arg(
        long,
        env,
        hide_env_values = true,
        value_name = "KEY",
        help_heading = "Clerk"
    )]
    clerk_secret_key: SecretKey,
    /// Where Clerk's Backend API is
    #[arg(long, env, default_value = DEFAULT_API_URL, value_name = "URL", help_heading = "Clerk")]
    clerk_api_url: ApiUrl,
    /// The only Clerk instance that the rows may be of (ins_…)
    #[arg(long, env, value_name = "ID", help_heading = "Clerk")]
    clerk_instance_id: Option<String>,
    /// From now on the rows are of this key's instance, whichever they came from
    #[arg(long, help_heading = "Clerk")]
    adopt_instance: bool,
    /// The application's database: postgres://… or sqlite:…
    #[arg(long, env, hide_env_values = true, value_name = "URL", value_parser = database_url, help_heading = "Database")]
    database_url: Option<ServerUrl>,
    /// The data folder of `clerk-sync up`, when there is no DATABASE_URL
    #[arg(long, env = "CLERK_SYNC_DATA", default_value = data::DEFAULT, value_name = "FOLDER", help_heading = "Database")]
    data: PathBuf,
    #[command(flatten)]
    session: SessionArgs,
    /// Credits granted to a new user, once. 0 grants none
    #[arg(long, env, default_value_t = 0, value_name = "AMOUNT", value_parser = clap::value_parser!(i32).range(0..), help_heading = "Database")]
    initial_credits: i32,
    /// A user without any address: count it, or write `<clerk id>@no-email.invalid`
    #[arg(
        long,
        env,
        default_value = "dead-letter",
        value_enum,
        ignore_case = true,
        help_heading = "Database"
    )]
    missing_email: MissingEmail,
}

impl SidesArgs {
    /// The two sides, of which nothing is known yet: not whether they answer, nor whether they
    /// belong together.
    pub(crate) async fn open(&self, metrics: Arc<Metrics>) -> anyhow::Result<Unchecked> {
        let url = match &self.database_url {
            Some(url) => url.clone(),
            None => DataFolder::new(&self.data).existing_tables()?,
        };
        let prepare = self.session.database_prepared_statements;
        let db = database::open(&url, CONNECTIONS, prepare)
            .await
            .context("DATABASE_URL")?;
        let config = ProjectionConfig {
            rules: Rules {
                missing_email: self.missing_email,
                instance_id: None,
            },
            initial_credits: self.initial_credits,
        };
        let mut api = BackendConfig::in_the_background(self.clerk_secret_key.clone());
        api.api_url = self.clerk_api_url.clone();
        let configured = self.clerk_instance_id.clone().filter(|id| !id.is_empty());
        Ok(Unchecked {
            backend: Backend::new(api)?,
            projection: Projection::new(db, config, metrics),
            configured,
            adopt: self.adopt_instance,
        })
    }
}

/// Two sides that may not belong together.
#[derive(Clone)]
pub(crate) struct Unchecked {
    backend: Backend,
    pub(crate) projection: Projection,
    configured: Option<String>,
    adopt: bool,
}

/// Two sides that belong together.
#[derive(Clone)]
pub(crate) struct Sides {
    pub(crate) backend: Backend,
    pub(crate) projection: Projection,
    pub(crate) instance: Instance,
}

impl Sides {
    /// Applies users, at most [`BATCH`] at once.
    pub(crate) async fn apply(&self, users: &[User]) -> Result<Vec<SnapshotOutcome>, Unavailable> {
        let mut outcomes = Vec::with_capacity(users.len());
        for some in users.chunks(BATCH) {
            let snapshots: Vec<Snapshot<'_>> = some.iter().map(present).collect();
            outcomes.extend(patiently(|| self.projection.apply_snapshots(&snapshots)).await?);
        }
        Ok(outcomes)
    }

    /// What Clerk says now of each, at most `MAX_IDS` at once. Only a 404 for a user alone says
    /// that it is gone.
    pub(crate) async fn ask_again(&self, ids: &[&str]) -> Result<Vec<Option<User>>, ApiError> {
        let found = self.backend.users_by_id(ids).await?;
        let mut found: HashMap<String, User> =
            found.into_iter().map(|it| (it.id.clone(), it)).collect();
        let answers: Vec<_> = ids
            .iter()
            .map(|id| {
                let found = found.remove(*id);
                async move {
                    match found {
                        Some(user) => Ok(Some(user)),
                        None => self.backend.user(id).await,
                    }
                }
            })
            .collect();
        stream::iter(answers)
            .buffered(AT_A_TIME)
            .try_collect()
            .await
    }
}

/// What Clerk answered, for the projection.
pub(crate) fn present(user: &User) -> Snapshot<'_> {
    Snapshot::Present {
        user: user.json.get().as_bytes(),
        asked_at: Millis(user.asked_at),
    }
}

/// Asks the database again while it is away, for a minute.
pub(crate) async fn patiently<T, F>(mut ask: impl FnMut() -> F) -> Result<T, Unavailable>
where
    F: Future<Output = Result<T, Unavailable>>,
{
    let deadline = Instant::now() + PATIENCE;
    let mut backoff = Backoff::weather();
    loop {
        match ask().await {
            Err(_) if Instant::now() < deadline => sleep(backoff.next_delay()).await,
            answer => return answer,
        }
    }
}
