//! The console's settings, and what it is made of.

use std::{net::SocketAddr, path::PathBuf, str::FromStr as _, sync::Arc};

use clerk_sync_api::fetch::Fetcher;
use clerk_sync_clerk::backend::{ApiError, ApiUrl, DEFAULT_API_URL, SecretKey};
use clerk_sync_ingest::PortLimits;
use clerk_sync_pipeline::{
    admin::Readiness,
    config::{AmqpArgs, Given, ProcessArgs, given},
    lifecycle::Shutdown,
    queue::{RetryLadder, amqp::Server},
    telemetry::Metrics,
};
use clerk_sync_projection::{
    Projection,
    config::{DatabaseArgs, ProjectionArgs},
    database::Database,
};
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};
use url::Url;

use crate::{
    Console, Token,
    access::Access,
    board::Board,
    errand::Parking,
    reader::Reader,
    sampler::{Gauge, Sampler},
    service::{self, Inner},
    shelf::Shelf,
    source::Source,
};

/// Database connections beside those of others in the process: few people look at once.
pub const CONNECTIONS: u32 = 3;

/// Shows operators how it is, what became of an event, and what needs a hand
///
/// A web page at /console, behind CONSOLE_TOKEN. `clerk-sync up` has it too; this is for when
/// ingest and worker are processes of their own.
#[derive(Clone, Debug, clap::Args)]
#[command(
    mut_arg("clerk_instance_id", |arg| arg.help_heading("Clerk").help(
        "The only Clerk instance that the rows may be of (ins_…)"
    )),
    mut_arg("missing_email", |arg| arg.help(
        "A user without any address: refuse it, or write `<clerk id>@no-email.invalid`"
    ))
)]
pub struct Args {
    /// Address of the console's port
    #[arg(long, env, default_value = "127.0.0.1:8082", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// What opens the console: 16 characters at least, like those of `openssl rand -hex 20`
    #[arg(long, env, hide_env_values = true, value_name = "TOKEN", value_parser = Token::from_str)]
    pub console_token: Token,
    /// Metrics of ingest and of the workers, with commas between them: http://ingest:9464/metrics.
    /// Without, the console knows what the ledger and the queue say: nothing of refused requests
    #[arg(long, env, hide_env_values = true, value_name = "URLS", value_delimiter = ',', hide_default_value = true, default_value = "", value_parser = given(metrics_url))]
    pub console_scrape: Vec<Given<Url>>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment would become the help's heading")]
    pub database: DatabaseArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment would become the help's heading")]
    pub amqp: AmqpArgs,
    /// Secret key of the Clerk instance (sk_live_…): with it, a user can be fetched from Clerk
    #[arg(
        long, env, hide_env_values = true, hide_default_value = true, default_value = "",
        value_name = "KEY", value_parser = given(SecretKey::from_str), help_heading = "Clerk"
    )]
    pub clerk_secret_key: Given<SecretKey>,
    /// Where Clerk's Backend API is, if not at Clerk
    #[arg(long, env, default_value = DEFAULT_API_URL, value_name = "URL", help_heading = "Clerk")]
    pub clerk_api_url: ApiUrl,
    #[command(flatten, next_help_heading = "Rows")]
    #[expect(missing_docs, reason = "a doc comment would become the help's heading")]
    pub projection: ProjectionArgs,
    #[command(flatten, next_help_heading = "Port")]
    #[expect(missing_docs, reason = "a doc comment would become the help's heading")]
    pub port: PortLimits,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment would become the help's heading")]
    pub process: ProcessArgs,
}

fn metrics_url(text: &str) -> Result<Url, String> {
    let wrong = || "use an address like http://ingest:9464/metrics".to_owned();
    let url = Url::parse(text).map_err(|_| wrong())?;
    if matches!(url.scheme(), "http" | "https") && url.has_host() {
        Ok(url)
    } else {
        Err(wrong())
    }
}

impl Args {
    pub(crate) fn numbers(&self) -> Numbers {
        let urls = self.console_scrape.iter();
        let urls: Vec<Url> = urls.filter_map(|url| url.0.clone()).collect();
        if urls.is_empty() {
            Numbers::Ledger
        } else {
            Numbers::Scraped(urls)
        }
    }
}

/// The console of `clerk-sync up`.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Console")]
pub struct ConsoleArgs {
    /// Serve the console, a web page for operators, at /console on the port of webhooks
    #[arg(long, env, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub console: bool,
    /// What opens the console: 16 characters at least. Without, one is made and printed
    #[arg(
        long, env, hide_env_values = true, hide_default_value = true, default_value = "",
        value_name = "TOKEN", value_parser = given(Token::from_str)
    )]
    pub console_token: Given<Token>,
}

/// Where the numbers of the overview come from.
pub enum Numbers {
    /// This process is ingest and worker.
    Own(Arc<Metrics>),
    /// The metrics of ingest and workers.
    Scraped(Vec<Url>),
    /// Nothing but the ledger.
    Ledger,
}

/// Where events wait.
pub enum Queue {
    /// RabbitMQ.
    Rabbit(Server),
    /// The file of `clerk-sync up`.
    File {
        /// Where it is.
        path: PathBuf,
        /// Its delays.
        ladder: RetryLadder,
    },
}

/// Clerk's Backend API, for a user at a time.
pub struct Clerk {
    pub(crate) fetcher: Fetcher,
    pub(crate) instance: Option<String>,
}

impl Clerk {
    /// Asks with this key. `instance` is the only one that the rows may be of, if that is said;
    /// otherwise it is the one that the database remembers.
    ///
    /// # Errors
    /// No HTTPS client can be made.
    pub fn new(
        key: SecretKey,
        api_url: ApiUrl,
        instance: Option<&str>,
        projection: Projection,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ApiError> {
        Ok(Self {
            fetcher: Fetcher::new(key, api_url, projection, metrics)?,
            instance: instance.map(str::to_owned),
        })
    }
}

/// What a console is made of.
pub struct ConsoleParts {
    /// What opens it.
    pub token: Token,
    /// Where the ledger and the users are; it is only read.
    pub database: Database,
    /// Where events wait.
    pub queue: Queue,
    /// Where the numbers come from.
    pub numbers: Numbers,
    /// What this process needs.
    pub readiness: Readiness,
    /// Clerk, if there is a key.
    pub clerk: Option<Clerk>,
    /// When it ends.
    pub shutdown: Shutdown,
}

/// The console's eyes: look at everything every few seconds.
pub struct Watch {
    console: Console,
    sampler: Sampler,
}

impl Watch {
    /// Looks until stopping is asked for.
    pub async fn run(self) {
        self.console.watch(self.sampler).await;
    }
}

impl ConsoleParts {
    /// What answers, and what must run meanwhile.
    ///
    /// # Errors
    /// No HTTPS client can be made.
    pub fn build(self) -> anyhow::Result<(Console, Watch)> {
        let reader = Reader::new(self.database);
        let source = match self.numbers {
            Numbers::Own(metrics) => Source::own(metrics),
            Numbers::Scraped(urls) => Source::scraped(urls)?,
            Numbers::Ledger => Source::ledger(reader.clone()),
        };
        let (gauge, parking) = match self.queue {
            Queue::Rabbit(server) => {
                let parking = Parking::Rabbit(Box::new(server.clone()));
                (Gauge::rabbit(server), parking)
            }
            Queue::File { path, ladder } => {
                let parking = Parking::File(path.clone());
                (Gauge::file(path, ladder), parking)
            }
        };
        let board = Board::new(source.knows_requests());
        let console = Console::new(Inner {
            access: Access::new(self.token, Instant::now()),
            reader,
            shelf: Shelf::new(parking),
            clerk: self.clerk,
            board: watch::Sender::new(Arc::new(board)),
            places: service::places(),
            streams: Arc::new(Semaphore::new(service::MAX_STREAMS)),
            shutdown: self.shutdown,
            run: format!("{:08x}", rand::random::<u32>()).into(),
        });
        let sampler = Sampler {
            source,
            gauge,
            readiness: self.readiness,
        };
        let watch = Watch {
            console: console.clone(),
            sampler,
        };
        Ok((console, watch))
    }
}
