//! `clerk-sync prove`: the promise, tried on this machine.
//!
//! A simulated Clerk instance lives through a history; its events are delivered over HTTP, in
//! random order, some of them several times, to real processes on a real queue and a real database,
//! which are killed and cut off meanwhile. Afterwards everything is compared with the simulation.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use clerk_sync_pipeline::{config, queue::amqp::Nodes, secret::ServerUrl};
use clerk_sync_projection::{MissingEmail, config::database_url};
use clerk_sync_simulator::{Addressless, History, Plan};
use rand::{SeedableRng as _, rngs::StdRng};
use tokio::sync::oneshot;

mod audit;
mod crew;
mod deliver;
mod faults;
mod proxy;
mod report;
mod site;

use crew::Crew;
use deliver::Deliveries;
use faults::Struck;
use report::{Progress, Report};
use site::Site;

/// Prove that no event is lost and no row is wrong, whatever breaks
///
/// Starts processes of its own, delivers the events of a simulated Clerk instance to them in random
/// order and some of them several times, and compares the outcome with the simulation. With
/// --faults it kills the processes and cuts their connections meanwhile. Uses SQLite files in a
/// temporary folder, or with --servers RabbitMQ and PostgreSQL, in a database and queues of its own
/// that it removes.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  clerk-sync prove
  clerk-sync prove --faults
  clerk-sync prove --faults --seed 7 --users 2000 --rounds 6
  AMQP_URL=amqp://… DATABASE_URL=postgres://… clerk-sync prove --faults --servers

The seed repeats the history, the order of delivery and the plan of the faults;
when exactly each strikes is up to the machine.")]
pub(crate) struct ProveArgs {
    /// Repeat a run
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Users signed up at once, at most
    #[arg(long, default_value_t = 1000, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    users: u32,
    /// Rounds of changes, about one for each user
    #[arg(long, default_value_t = 4, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Kill processes and cut connections while events are delivered
    #[arg(long)]
    faults: bool,
    /// With --faults: time over which the deliveries are spread
    #[arg(long, default_value = "20s", value_name = "TIME", value_parser = config::time)]
    spread: Duration,
    /// What a user without any address becomes. Only `placeholder` makes every column certain
    #[arg(long, default_value = "placeholder", value_enum, ignore_case = true)]
    missing_email: MissingEmail,
    /// Use the servers of DATABASE_URL and AMQP_URL instead of files
    #[arg(long)]
    servers: bool,
    /// With --servers: PostgreSQL, as a user who may create databases
    #[arg(long, env, hide_env_values = true, value_name = "URL", value_parser = database_url)]
    database_url: Option<ServerUrl>,
    /// With --servers: RabbitMQ. Without it, the queue is a file
    #[arg(long, env, hide_env_values = true, value_name = "URLS")]
    amqp_url: Option<Nodes>,
}

impl ProveArgs {
    fn addressless(&self) -> Addressless {
        match self.missing_email {
            MissingEmail::Placeholder => Addressless::Placeholder,
            MissingEmail::DeadLetter => Addressless::DeadLetter,
        }
    }
}

pub(crate) fn run(args: ProveArgs) -> ExitCode {
    crate::finish_itself(prove(args))
}

async fn prove(args: ProveArgs) -> anyhow::Result<ExitCode> {
    // Short enough to be typed again.
    let seed = args
        .seed
        .unwrap_or_else(|| rand::random_range(0..1_000_000));
    let plan = Plan {
        seed,
        users: args.users as usize,
        rounds: args.rounds as usize,
    };
    let history = plan.live();
    let site = Site::make(&args, &history).await?;
    let proven = tokio::select! {
        proven = prove_on(&site, &args, seed, &history) => proven,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    let good = matches!(&proven, Ok(report) if report.is_good());
    let kept = site.remove(good).await?;
    let report = proven.with_context(|| match &kept {
        Some(folder) => format!("seed {seed}; what the processes said is in {folder}"),
        None => format!("seed {seed}"),
    })?;
    say!("{report}");
    if let Some(folder) = kept {
        say!("What the processes said is in {folder}");
    }
    say!("{}", report.verdict(&repeat(&args, seed)));
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The command that repeats a run.
fn repeat(args: &ProveArgs, seed: u64) -> String {
    let mut command = format!(
        "clerk-sync prove --seed {seed} --users {} --rounds {}",
        args.users, args.rounds
    );
    if args.faults {
        let spread = humantime::format_duration(args.spread);
        command.push_str(&format!(" --faults --spread {spread}"));
    }
    if args.servers {
        command.push_str(" --servers");
    }
    if args.missing_email == MissingEmail::DeadLetter {
        command.push_str(" --missing-email dead-letter");
    }
    command
}

async fn prove_on(
    site: &Site,
    args: &ProveArgs,
    seed: u64,
    history: &History,
) -> anyhow::Result<Report> {
    let mut random = StdRng::seed_from_u64(seed);
    let deliveries = Deliveries::of(history, &mut random);
    let mut report = Report::begin(seed, history, &deliveries, site);
    say!("{}", report.opening());

    let progress = Progress::new(deliveries.len());
    let mut crew = Crew::start(site).await?;
    let fronts = crew.fronts();
    let (done, delivered) = oneshot::channel();
    let delivering = async {
        let spread = args.faults.then_some(args.spread);
        let answers = deliveries.deliver(site, &fronts, spread, &progress).await;
        // Nobody listens where nothing strikes.
        let _ = done.send(());
        answers
    };
    let striking = async {
        if args.faults {
            faults::strike(&mut crew, site, random, delivered, &progress).await
        } else {
            Ok(Struck::default())
        }
    };
    let (answers, struck) = tokio::try_join!(delivering, striking)?;
    report.answers = answers;
    report.struck = struck;
    progress.say("waiting until everything is applied");
    crew.heal(site).await?;
    report.leftovers = crew.come_to_rest(site, history).await?;
    progress.say("comparing");
    report.findings = audit::audit(site, history, args.addressless(), &report.leftovers).await?;
    progress.finish();
    Ok(report)
}
