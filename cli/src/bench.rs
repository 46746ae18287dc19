//! `clerk-sync bench`: what the pipeline costs, measured against the limits of its servers.
//!
//! The load generator and the references run in this process, what is tested in processes of its
//! own. Rounds of the product and of its references take turns, so that whatever else the machine
//! does meets both. No figure is shown unless every event that was accepted was found again.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::{FromArgMatches as _, Subcommand};
use clerk_sync_pipeline::lifecycle::Shutdown;
use indicatif::ProgressBar;

mod applied;
mod audit;
mod bare_server;
mod end_to_end;
mod http;
mod ingest;
mod latency;
mod load;
mod meter;
mod prefill;
mod raw_batch;
mod raw_consume;
mod raw_publish;
mod report;
mod schedule;
mod shape;
mod site;
mod stage;
mod stock;
mod summary;
mod usage;
mod versions;
mod worker;

use report::Report;
use site::Site;

/// Before figures count: connections are made, caches warm.
const WARM_UP: Duration = Duration::from_secs(1);
/// What the table's columns are.
const COLUMNS: &str = "CPU, queue, DB: CPU time per event of what is measured, of the broker, of the\n\
                       database (of local ones). MiB: highest resident memory.";

/// Measure what the pipeline costs, beside the limits of its servers
///
/// Without a mode it measures everything in less than a minute: on the servers of AMQP_URL and
/// DATABASE_URL where both are set (`e2e`), else without servers (`embedded`).
///
/// Signs and sends events of its own, and starts the processes that it measures. Uses the servers of
/// AMQP_URL and DATABASE_URL, in queues and a database of its own, which it removes. After every run
/// it looks for each event that was accepted: a figure is shown only if none is lost.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  clerk-sync bench
  clerk-sync bench ingest
  clerk-sync bench worker --users 1000000 --ledger-rows 10000000
  clerk-sync bench e2e --json
  clerk-sync bench embedded")]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    mode: Option<BenchCommand>,
}

#[derive(Subcommand)]
enum BenchCommand {
    Ingest(ingest::IngestArgs),
    Worker(worker::WorkerArgs),
    E2e(end_to_end::E2eArgs),
    Embedded(end_to_end::EmbeddedArgs),
    #[command(hide = true)]
    BareServer(bare_server::BareServerArgs),
}

/// What every mode with requests asks.
#[derive(Clone, Debug, clap::Args)]
struct Common {
    /// Rounds; the figures are their medians
    #[arg(long, default_value_t = 3, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Connections that send requests
    #[arg(long, default_value_t = 64, value_name = "COUNT", value_parser = connections)]
    connections: usize,
    /// How long to measure, each time; a warm-up of a second comes before. Signatures are believed
    /// for five minutes
    #[arg(long, default_value_t = 5, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=240))]
    seconds: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Common {
    fn lasting(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

pub(crate) fn run(args: BenchArgs) -> ExitCode {
    match args.mode.unwrap_or_else(BenchCommand::by_environment) {
        BenchCommand::BareServer(args) => crate::finish_itself(bare_server::serve(args)),
        command => crate::finish_itself(bench(command)),
    }
}

async fn bench(command: BenchCommand) -> anyhow::Result<ExitCode> {
    let shutdown = Shutdown::on_signals()?;
    raise_file_limit();
    let step = ProgressBar::new_spinner();
    step.enable_steady_tick(Duration::from_millis(200));
    if cfg!(debug_assertions) {
        step.println("this build is not optimized: its figures say nothing");
    }
    let site = command.site().await?;
    let measured = tokio::select! {
        measured = Box::pin(command.run_on(&site, |what| step.set_message(what))) => measured,
        () = shutdown.requested() => Err(anyhow::anyhow!("interrupted")),
    };
    step.finish_and_clear();
    let kept = site
        .remove(measured.is_ok() || shutdown.is_requested())
        .await?;
    let report = measured.with_context(|| match &kept {
        Some(folder) => format!("no figures; what the processes said is in {folder}"),
        None => "no figures".to_owned(),
    })?;
    if command.wants_json() {
        say!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        say!("{report}");
    }
    Ok(ExitCode::SUCCESS)
}

impl BenchCommand {
    /// Everything, on the servers there are.
    fn by_environment() -> Self {
        let is_set = |name| std::env::var(name).is_ok_and(|value| !value.trim().is_empty());
        let mode = if is_set("AMQP_URL") && is_set("DATABASE_URL") {
            "e2e"
        } else {
            "embedded"
        };
        let modes = Self::augment_subcommands(clap::Command::new("bench"));
        // It exits on wrong settings, and says which.
        let matches = modes.get_matches_from(["bench", mode]);
        Self::from_arg_matches(&matches).expect("the modes are its own")
    }

    async fn site(&self) -> anyhow::Result<Site> {
        match self {
            Self::Ingest(args) => args.site().await,
            Self::Worker(args) => args.site().await,
            Self::E2e(args) => args.site().await,
            Self::Embedded(args) => args.site().await,
            Self::BareServer(_) => anyhow::bail!("a reference has no site"),
        }
    }

    async fn run_on(&self, site: &Site, say: impl Fn(String)) -> anyhow::Result<Report> {
        match self {
            Self::Ingest(args) => Box::pin(args.run(site, say)).await,
            Self::Worker(args) => Box::pin(args.run(site, say)).await,
            Self::E2e(args) => Box::pin(args.run(site, say)).await,
            Self::Embedded(args) => Box::pin(args.run(site, say)).await,
            Self::BareServer(_) => anyhow::bail!("a reference reports nothing"),
        }
    }

    fn wants_json(&self) -> bool {
        match self {
            Self::Ingest(args) => args.common().json,
            Self::Worker(args) => args.json,
            Self::E2e(args) => args.common().json,
            Self::Embedded(args) => args.common().json,
            Self::BareServer(_) => false,
        }
    }
}

/// As many open files as we may have, for us and the processes that we start: shells often allow
/// 1024 unless more is asked for.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Without it, many connections are refused, and that is told.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Connections that make sense; each costs two file descriptors on this machine.
fn connections(text: &str) -> Result<usize, String> {
    let number = text
        .parse()
        .ok()
        .filter(|number| (1..=10_000).contains(number));
    number.ok_or_else(|| "use a number from 1 to 10000".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text
        .parse::<f64>()
        .ok()
        .filter(|number| (0.1..=1_000_000.0).contains(number));
    number.ok_or_else(|| "use a number above 0".to_owned())
}
