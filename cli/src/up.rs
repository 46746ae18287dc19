//! `clerk-sync up`: ingester, worker, API and console in one process.

use std::{
    future::ready, net::SocketAddr, path::PathBuf, process::ExitCode, str::FromStr as _, sync::Arc,
};

use anyhow::Context as _;
use clerk_sync_api::{Api, ApiArgs, config::CONNECTIONS as API_CONNECTIONS};
use clerk_sync_clerk::backend::SecretKey;
use clerk_sync_console::{
    CONNECTIONS as CONSOLE_CONNECTIONS, Clerk, ConsoleArgs, ConsoleParts, Numbers, Queue, Token,
};
use clerk_sync_ingest::{
    Both, IngestArgs,
    config::{older_signing_secret, signing_secret},
    verify::Verifier,
};
use clerk_sync_pipeline::{
    admin::{self, Readiness},
    config::{self, Given, ProcessArgs, TopologyArgs, given},
    lifecycle::Shutdown,
    queue::{
        Consume, Publish, RetryLadder,
        amqp::{AmqpConsumers, AmqpPublisher},
        embedded::EmbeddedQueue,
    },
    secret::{Secret, ServerUrl},
    telemetry::Metrics,
};
use clerk_sync_projection::{
    Projection,
    database::{self, Database, Kind},
};
use clerk_sync_worker::config::WorkerArgs;
use tokio::net::TcpListener;

use crate::{
    data::{self, DataFolder},
    servers::{BrokerArgs, TablesArgs},
};

mod demo;
mod prepare;

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

/// Everything that is there whatever the queue is.
struct Parts {
    ingest: IngestArgs,
    worker: WorkerArgs,
    api: Option<(SecretKey, ApiArgs)>,
    console: Option<Token>,
    verifier: Verifier,
    listener: TcpListener,
    db: Database,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
    demo: Option<demo::Demo>,
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
    let webhook_url = format!("http://{}{}", local(webhooks), args.ingest.webhook_path);
    args.process.admin_listen = admin.address()?;
    let host = local(webhooks);
    let served = Served {
        webhooks: webhook_url.clone(),
        api: api.is_some().then_some(host),
        console: console.is_some().then_some((host, token)),
    };
    announce(&args, &served, &url, &folder, made.as_ref());

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

async fn with_rabbitmq(
    parts: Parts,
    server: clerk_sync_pipeline::queue::amqp::Server,
    readiness: &Readiness,
) -> anyhow::Result<()> {
    // Tried once before anything connects. A broker that is away is waited for while webhooks are
    // answered 503, as they are whenever it is away.
    let declared = prepare::topology_now(&server).await?;
    let wanted = server.clone();
    let stopping = parts.shutdown.clone();
    let declaring = async move {
        if declared {
            Ok(true)
        } else {
            prepare::topology(&wanted, &stopping).await
        }
    };
    let queue = Queue::Rabbit(server.clone());
    let ladder = server.topology.ladder.clone();
    let told = readiness.told("queue_publish");
    let publisher = AmqpPublisher::start(server.clone(), parts.metrics.clone(), told);
    let lanes = parts.worker.worker_lanes.into();
    let mut consumers = AmqpConsumers::start(
        server,
        lanes,
        parts.worker.prefetch,
        &parts.metrics,
        readiness,
    );
    let lanes = consumers.take_lanes();
    let serving = serve(
        parts,
        publisher.clone(),
        lanes,
        (queue, ladder),
        readiness,
        declaring,
    );
    let result = Box::pin(serving).await;
    tokio::join!(publisher.close(), consumers.close());
    result
}

async fn with_files(
    parts: Parts,
    topology: &TopologyArgs,
    folder: &DataFolder,
    readiness: &Readiness,
) -> anyhow::Result<()> {
    let queue = EmbeddedQueue::open_bounded(
        &folder.queue(),
        topology.retry_delays.clone(),
        parts.metrics.clone(),
        topology.queue_max_bytes,
    )?;
    let problem = queue.problem();
    readiness.asked("queue", move || {
        let problem = problem.borrow().clone();
        ready(problem.map_or(Ok(()), Err))
    });
    let lanes = (0..parts.worker.worker_lanes)
        .map(|_| queue.consumer())
        .collect();
    let ladder = topology.retry_delays.clone();
    let file = Queue::File {
        path: folder.queue(),
        ladder: ladder.clone(),
    };
    let serving = serve(
        parts,
        queue.publisher(),
        lanes,
        (file, ladder),
        readiness,
        ready(Ok(true)),
    );
    // Large, and only once.
    let result = Box::pin(serving).await;
    queue.close().await;
    result
}

/// Receives and applies until shutdown is requested. `declaring` makes the queue what it should be;
/// false when the process is stopping.
async fn serve<P: Publish, C: Consume>(
    parts: Parts,
    publisher: P,
    lanes: Vec<C>,
    (queue, ladder): (Queue, RetryLadder),
    readiness: &Readiness,
    declaring: impl Future<Output = anyhow::Result<bool>>,
) -> anyhow::Result<()> {
    let Parts {
        ingest,
        worker,
        api,
        console,
        verifier,
        listener,
        db,
        metrics,
        shutdown,
        demo,
    } = parts;
    let projection = Projection::new(db.clone(), worker.projection.config(), metrics.clone());
    clerk_sync_worker::watch_database(&projection, readiness);

    let key = api
        .as_ref()
        .map(|(key, api)| (key.clone(), api.clerk_api_url.clone()));
    let api: Option<Api> = api
        .map(|(key, api)| api.build(&key, db.clone(), projection.clone(), metrics.clone()))
        .transpose()?;
    if let Some(api) = &api {
        api.watch(readiness);
    }
    let console = match console {
        Some(token) => {
            let instance = worker.projection.instance();
            let clerk = key.map(|(key, url)| {
                Clerk::new(key, url, instance, projection.clone(), metrics.clone())
            });
            let parts = ConsoleParts {
                token,
                database: db.clone(),
                queue,
                numbers: Numbers::Own(metrics.clone()),
                readiness: readiness.clone(),
                clerk: clerk.transpose()?,
                shutdown: shutdown.clone(),
            };
            Some(parts.build()?)
        }
        None => None,
    };
    let (console, watch) = console.unzip();
    let ingester = tokio::spawn(clerk_sync_ingest::run_beside(
        ingest,
        verifier,
        listener,
        publisher,
        metrics.clone(),
        Some(Both(api.clone(), console.clone())),
        shutdown.clone(),
    ));
    // Webhooks are received from the first moment; applying begins when the database is there.
    let applying = async {
        let prepare =
            async { Ok(declaring.await? && prepare::tables(&db, &worker, &shutdown).await?) };
        match prepare.await {
            Ok(true) => {
                clerk_sync_worker::run(
                    lanes,
                    projection,
                    ladder,
                    &worker,
                    metrics.clone(),
                    readiness,
                    shutdown.clone(),
                )
                .await;
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(error) => {
                shutdown.request();
                Err(error)
            }
        }
    };
    let receiving = async {
        let received = ingester.await;
        if received.is_err() {
            shutdown.request();
        }
        if let Some(api) = &api {
            api.close().await;
        }
        if let Some(console) = &console {
            console.close().await;
        }
        received
    };
    let showing = async {
        match demo {
            Some(demo) => demo.show(&db.pool, &metrics, &shutdown).await,
            None => Ok(()),
        }
    };
    let watching = async {
        if let Some(watch) = watch {
            watch.run().await;
        }
    };
    let (received, applied, shown, ()) = tokio::join!(receiving, applying, showing, watching);
    received.context("the ingester failed")?;
    applied.and(shown)
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

/// What is served where.
struct Served {
    webhooks: String,
    api: Option<SocketAddr>,
    /// With the token, if it was made by us.
    console: Option<(SocketAddr, Option<Secret>)>,
}

fn announce(
    args: &UpArgs,
    served: &Served,
    database: &ServerUrl,
    folder: &DataFolder,
    secret: Option<&PathBuf>,
) {
    say!("clerk-sync {}", env!("CARGO_PKG_VERSION"));
    say!("  webhooks  {}", served.webhooks);
    match served.api {
        Some(host) => say!("  api       http://{host}/api/users/me, /sync"),
        None if args.demo => {}
        None => say!("  api       off; with CLERK_SECRET_KEY=sk_… it is served too"),
    }
    match &served.console {
        Some((host, Some(token))) => say!(
            "  console   http://{host}/console\n  token     {}",
            token.expose()
        ),
        Some((host, None)) => say!("  console   http://{host}/console, with CONSOLE_TOKEN"),
        None => say!("  console   off"),
    }
    match &args.broker.amqp_url {
        Some(nodes) => say!("  queue     {nodes}"),
        None => say!("  queue     {}", folder.queue().display()),
    }
    say!("  database  {database}");
    match secret {
        Some(path) => say!(
            "  secret    none is configured: ours is in {}\n            \
             (Clerk's own: set CLERK_WEBHOOK_SIGNING_SECRET=whsec_…)",
            path.display()
        ),
        None => say!("  secret    as configured"),
    }
    say!(
        "  admin     http://{}/readyz, /metrics",
        local(args.process.admin_listen)
    );
    say!();
}

/// The address to call from this machine.
fn local(address: SocketAddr) -> SocketAddr {
    admin::reachable(address)
}
