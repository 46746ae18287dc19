//! `clerk-sync up`: ingester, worker, API and console in one process.

use std::{process::ExitCode, str::FromStr as _};

use anyhow::Context as _;
use clerk_sync_api::{ApiArgs, config::CONNECTIONS as API_CONNECTIONS};
use clerk_sync_clerk::backend::SecretKey;
use clerk_sync_console::{CONNECTIONS as CONSOLE_CONNECTIONS, ConsoleArgs, Token};
use clerk_sync_ingest::{
    IngestArgs,
    config::{older_signing_secret, signing_secret},
    verify::Verifier,
};
use clerk_sync_pipeline::{
    admin::reachable,
    config::{self, Given, ProcessArgs, given},
    lifecycle::Shutdown,
    secret::Secret,
    telemetry::Metrics,
};
use clerk_sync_projection::database::{self, Kind};
use clerk_sync_worker::config::WorkerArgs;

use crate::{
    data::{self, DataFolder},
    servers::{BrokerArgs, TablesArgs},
};

mod announce;
mod demo;
mod prepare;
mod serve;

use announce::{Served, announce};
use serve::{Parts, with_files, with_rabbitmq};

/// Run everything in one process
///
/// Receives webhooks, queues them, and applies them; with CLERK_SECRET_KEY, it also answers
/// applications who is signed in. Without servers named, queue and tables are
/// SQLite files in the data folder, and without a secret one is made there. With AMQP_URL and
/// DATABASE_URL, RabbitMQ and PostgreSQL are used, and set up.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  clerk-sync up --demo
  clerk-sync up --listen 0.0.0.0:8080
  clerk-sync up --database-url postgres://user:password@localhost/app
  AMQP_URL=amqp://… DATABASE_URL=postgres://… \\
    CLERK_WEBHOOK_SIGNING_SECRET=whsec_… clerk-sync up")]
pub(crate) struct UpArgs {
    /// Show it: post the samples, shuffled and with duplicates, and what became of them. Uses a
    /// data folder of its own, and no server
    #[arg(long)]
    demo: bool,
    /// Folder of the SQLite files and of a secret that we made
    #[arg(long, env = "CLERK_SYNC_DATA", default_value = data::DEFAULT, value_name = "FOLDER")]
    data: DataFolder,
    #[command(flatten)]
    tables: TablesArgs,
    /// The Clerk endpoint's Signing Secret (whsec_…); several with commas between them
    #[arg(
        long, env, hide_env_values = true, hide_default_value = true, value_name = "SECRETS",
        value_parser = configured_secret, default_value = ""
    )]
    clerk_webhook_signing_secret: ConfiguredSecret,
    #[command(flatten)]
    broker: BrokerArgs,
    /// Secret key of the Clerk instance (sk_live_…), from the dashboard: Configure, API keys. With
    /// it, the API for applications is served on the port of webhooks
    #[arg(
        long, env, hide_env_values = true, hide_default_value = true, default_value = "",
        value_name = "KEY", value_parser = given(SecretKey::from_str),
        help_heading = "API for applications"
    )]
    clerk_secret_key: Given<SecretKey>,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    console: ConsoleArgs,
    #[command(flatten)]
    ingest: IngestArgs,
    #[command(flatten)]
    worker: WorkerArgs,
    #[command(flatten)]
    process: ProcessArgs,
}

/// Who may sign, unless that was left to us: unset, or blank as `.env.example` has it.
#[derive(Clone)]
struct ConfiguredSecret(Option<(Verifier, Secret)>);

fn configured_secret(text: &str) -> Result<ConfiguredSecret, String> {
    if text.trim().is_empty() && older_signing_secret().is_none() {
        return Ok(ConfiguredSecret(None));
    }
    // A blank one is taken from the older name by the parser itself.
    let written = if text.trim().is_empty() {
        older_signing_secret().unwrap_or_default()
    } else {
        text
    };
    let verifier = signing_secret(text)?;
    Ok(ConfiguredSecret(Some((verifier, Secret::new(written)))))
}

pub(crate) fn run(args: UpArgs) -> ExitCode {
    let mut process = args.process.clone();
    if args.demo && process.rust_log == "info" {
        // The demonstration tells its own story.
        process.rust_log = "error,clerk_sync_pipeline::config=info".to_owned();
    }
    config::start(&process, |shutdown| up(args, shutdown))
}

async fn up(mut args: UpArgs, shutdown: Shutdown) -> anyhow::Result<()> {
    let mut folder = args.data.clone();
    folder.create()?;
    let (verifier, secret, made) = match args.clerk_webhook_signing_secret.0.take() {
        Some((verifier, secret)) => (verifier, secret, None),
        None => {
            let (secret, path) = folder.secret_or_new()?;
            let verifier = signing_secret(secret.expose())
                .map_err(|problem| anyhow::anyhow!("{}: {problem}", path.display()))?;
            (verifier, secret, Some(path))
        }
    };
    if args.demo {
        folder = folder.demo();
        demo::prepare(&mut args, &folder).await?;
    }
    let url = match args.tables.database_url.clone() {
        Some(url) => url,
        None => folder.tables()?,
    };
    if database::kind(&url).map_err(anyhow::Error::msg)? == Kind::Sqlite {
        // SQLite has one writer; a second lane would only wait for the first.
        args.worker.worker_lanes = 1;
    }

    let listener = config::bind("LISTEN", args.ingest.listen).await?;
    let webhooks = listener.local_addr()?;
    let metrics = Metrics::new(verifier.secrets());
    let admin = args.process.bind_admin(metrics).await?;
    let api = args.clerk_secret_key.0.take().filter(|_| !args.demo);
    // A demonstration's folder is cleared; the token stays.
    let (console, token) = console(&args.console, &args.data)?;
    let connections = args.worker.connections()
        + api.as_ref().map_or(0, |_| API_CONNECTIONS)
        + console.as_ref().map_or(0, |_| CONSOLE_CONNECTIONS);
    let db = args.tables.session.open(&url, connections).await;
    let db = db.context("DATABASE_URL")?;
    let host = reachable(webhooks);
    let webhook_url = format!("http://{host}{}", args.ingest.webhook_path);
    args.process.admin_listen = admin.address()?;
    let served = Served {
        webhooks: webhook_url.clone(),
        api: api.is_some().then_some(host),
        console: console.is_some().then_some((host, token)),
    };
    announce(&args, &served, &url, &folder, made.as_deref());

    let demo = if args.demo {
        Some(demo::Demo::new(&webhook_url, &secret)?)
    } else {
        None
    };
    let parts = Parts {
        verifier,
        listener,
        db,
        demo,
        api: api.map(|key| (key, args.api)),
        console,
        ingest: args.ingest,
        worker: args.worker,
        metrics: admin.metrics.clone(),
        shutdown: shutdown.clone(),
    };
    let mut result = Ok(());
    let work = async {
        let (topology, readiness) = (&args.broker.topology, &admin.readiness);
        result = match args.broker.server() {
            Some(server) => Box::pin(with_rabbitmq(parts, server, readiness)).await,
            None => Box::pin(with_files(parts, topology, &folder, readiness)).await,
        };
    };
    admin.serve(shutdown, work).await;
    result
}

/// The console's token, unless there is to be no console; with its text, if it was made by us.
fn console(
    args: &ConsoleArgs,
    folder: &DataFolder,
) -> anyhow::Result<(Option<Token>, Option<Secret>)> {
    if !args.console {
        return Ok((None, None));
    }
    if let Some(token) = args.console_token.0.clone() {
        return Ok((Some(token), None));
    }
    let text = folder.token_or_new(|| Token::random().1)?;
    let token = text.expose().parse().map_err(anyhow::Error::msg);
    Ok((Some(token.context("console-token")?), Some(text)))
}
