//! Clerk on one side, the application's database on the other: what a command needs that has to do
//! with both.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use clerk_sync_api::fetch::present;
use clerk_sync_clerk::backend::{
    ApiError, ApiUrl, Backend, BackendConfig, DEFAULT_API_URL, Instance, SecretKey, User,
};
use clerk_sync_pipeline::{retry::Backoff, telemetry::Metrics};
use clerk_sync_projection::{
    Projection, Snapshot, SnapshotOutcome, Unavailable, config::ProjectionArgs,
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::{Instant, sleep};

use crate::{
    data::{self, DataFolder},
    servers::TablesArgs,
};

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
#[command(
    next_help_heading = "Clerk",
    mut_arg("clerk_instance_id", |arg| arg.help_heading("Clerk").help(
        "The only Clerk instance that the rows may be of (ins_…)"
    )),
    mut_arg("missing_email", |arg| arg.help(
        "A user without any address: count it, or write `<clerk id>@no-email.invalid`"
    ))
)]
pub(crate) struct SidesArgs {
    /// The Clerk instance's secret key: sk_live_… or sk_test_…
    #[arg(long, env, hide_env_values = true, value_name = "KEY")]
    clerk_secret_key: SecretKey,
    /// Where Clerk's Backend API is
    #[arg(long, env, default_value = DEFAULT_API_URL, value_name = "URL")]
    clerk_api_url: ApiUrl,
    #[command(flatten, next_help_heading = "Database")]
    tables: TablesArgs,
    /// The data folder of `clerk-sync up`, when there is no DATABASE_URL
    #[arg(long, env = "CLERK_SYNC_DATA", default_value = data::DEFAULT, value_name = "FOLDER")]
    data: DataFolder,
    #[command(flatten)]
    projection: ProjectionArgs,
    /// From now on the rows are of this key's instance, whichever they came from
    #[arg(long, help_heading = "Clerk")]
    adopt_instance: bool,
}

impl SidesArgs {
    /// The two sides, of which nothing is known yet: not whether they answer, nor whether they
    /// belong together.
    pub(crate) async fn open(&self, metrics: Arc<Metrics>) -> anyhow::Result<Unchecked> {
        let url = match &self.tables.database_url {
            Some(url) => url.clone(),
            None => self.data.existing_tables()?,
        };
        let db = self.tables.session.open(&url, CONNECTIONS).await;
        let db = db.context("DATABASE_URL")?;
        let config = self.projection.config_of_any_instance();
        let mut api = BackendConfig::in_the_background(self.clerk_secret_key.clone());
        api.api_url = self.clerk_api_url.clone();
        Ok(Unchecked {
            backend: Backend::new(api)?,
            projection: Projection::new(db, config, metrics),
            configured: self.projection.instance().map(str::to_owned),
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
