//! The API's settings. Each is checked while it is parsed; what they must be together, by
//! [`ApiArgs::build`].

use std::{net::SocketAddr, str::FromStr, sync::Arc, time::Duration};

use clerk_sync_clerk::{
    backend::{ApiUrl, DEFAULT_API_URL, SecretKey},
    token::{
        Cookies, Expected, FrontendApi, Keys, PublicKey, PublishableKey, Verifier, clock_skew,
    },
};
use clerk_sync_ingest::PortLimits;
use clerk_sync_pipeline::{
    config::{self, Given, ProcessArgs, given},
    telemetry::Metrics,
};
use clerk_sync_projection::{
    Projection,
    config::{DatabaseArgs, ProjectionArgs},
    database::Database,
};

use crate::{Api, Origin, account::Accounts, credential::Credentials, desk::Desk, fetch::Fetcher};

/// Database connections beside those of others in the process: reads are short.
pub const CONNECTIONS: u32 = 8;

/// Answers applications: who is signed in, with the user's row
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "clerk-sync-api",
    version,
    mut_arg("clerk_instance_id", |arg| arg.help(
        "The only Clerk instance whose users are applied (ins_…). Unset: the one that a command \
         has made sure of, if any"
    )),
    mut_arg("missing_email", |arg| arg.help(
        "A user without any address: refuse it, or write `<clerk id>@no-email.invalid`"
    ))
)]
pub struct Args {
    /// Address of the API's port
    #[arg(long, env, default_value = "127.0.0.1:8081", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment would become the help's heading")]
    pub database: DatabaseArgs,
    /// Secret key of the Clerk instance (sk_live_…), from the dashboard: Configure, API keys
    #[arg(long, env, hide_env_values = true, value_name = "KEY")]
    pub clerk_secret_key: SecretKey,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment would become the help's heading")]
    pub projection: ProjectionArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment would become the help's heading")]
    pub port: PortLimits,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment would become the help's heading")]
    pub api: ApiArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment would become the help's heading")]
    pub process: ProcessArgs,
}

impl AsRef<ProcessArgs> for Args {
    fn as_ref(&self) -> &ProcessArgs {
        &self.process
    }
}

/// Whose tokens are believed, and who may ask from a browser.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "API for applications")]
pub struct ApiArgs {
    /// Publishable key of the Clerk instance (pk_live_…): tells the issuer and the cookie's name
    #[arg(
        long, env, hide_default_value = true, default_value = "", value_name = "KEY",
        value_parser = given(PublishableKey::from_str)
    )]
    pub clerk_publishable_key: Given<PublishableKey>,
    /// PEM public key of the instance: with it, tokens are checked without a network. Otherwise
    /// the keys are fetched from Clerk, and kept for 5 minutes
    #[arg(
        long, env, hide_env_values = true, hide_default_value = true, default_value = "",
        value_name = "PEM", allow_hyphen_values = true, value_parser = given(PublicKey::from_pem)
    )]
    pub clerk_jwt_key: Given<PublicKey>,
    /// Where Clerk's Backend API is, if not at Clerk
    #[arg(long, env, default_value = DEFAULT_API_URL, value_name = "URL")]
    pub clerk_api_url: ApiUrl,
    /// Your proxy in front of Clerk's Frontend API, if you have one: the issuer of tokens then
    #[arg(
        long, env, hide_default_value = true, default_value = "", value_name = "URL",
        value_parser = given(FrontendApi::from_str)
    )]
    pub clerk_proxy_url: Given<FrontendApi>,
    /// Origins of your application, with commas between them: tokens made for others are refused
    #[arg(
        long, env, value_name = "ORIGINS", value_delimiter = ',', hide_default_value = true,
        default_value = "", value_parser = given(Origin::from_str)
    )]
    pub authorized_parties: Vec<Given<Origin>>,
    /// Origins whose pages may call from a browser, with commas between them
    #[arg(
        long, env, value_name = "ORIGINS", value_delimiter = ',', hide_default_value = true,
        default_value = "", value_parser = given(Origin::from_str)
    )]
    pub allowed_origins: Vec<Given<Origin>>,
    /// How far Clerk's clock and ours may be apart
    #[arg(long, env, default_value = "5s", value_name = "TIME", value_parser = clock_skew)]
    pub clerk_clock_skew: Duration,
    /// Shortest time between two fetches of one user from Clerk
    #[arg(long, env, default_value = "2s", value_name = "TIME", value_parser = config::time)]
    pub sync_floor: Duration,
}

impl ApiArgs {
    /// What answers, with these settings.
    ///
    /// # Errors
    /// No HTTPS client can be made.
    pub fn build(
        self,
        secret_key: &SecretKey,
        database: Database,
        projection: Projection,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Api> {
        let publishable = self.clerk_publishable_key.0;
        let own = publishable.as_ref().map(PublishableKey::frontend);
        let frontend = self.clerk_proxy_url.0.as_ref().or(own);
        let parties = listed(self.authorized_parties);
        if parties.is_empty() {
            tracing::warn!(
                "AUTHORIZED_PARTIES is not set: tokens that Clerk made for any other application \
                 of the instance are taken too"
            );
        }
        let expected = Expected {
            issuer: frontend.map(|frontend| frontend.issuer().to_owned()),
            authorized_parties: parties.iter().map(ToString::to_string).collect(),
            clock_skew: self.clerk_clock_skew,
            ..Expected::default()
        };
        let keys = Keys::resolve(
            self.clerk_jwt_key.0,
            frontend,
            Some((&self.clerk_api_url, secret_key)),
        )?;
        let credentials = Credentials {
            verifier: Verifier::new(keys, expected),
            cookies: Cookies::of(publishable.as_ref()),
            allowed: listed(self.allowed_origins),
        };
        let fetcher = Fetcher::new(
            secret_key.clone(),
            self.clerk_api_url,
            projection,
            metrics.clone(),
        )?;
        Ok(Api::new(
            credentials,
            Accounts::new(database),
            Desk::new(fetcher, self.sync_floor),
            metrics,
        ))
    }
}

fn listed(origins: Vec<Given<Origin>>) -> Vec<Origin> {
    origins.into_iter().filter_map(|origin| origin.0).collect()
}
