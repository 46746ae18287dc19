//! `clerk-sync`: everything in one process, and the operator's commands.

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use clerk_sync_pipeline::{config, lifecycle::Shutdown};

/// Writes a line to standard output. Whoever has stopped reading (`| head`) is no error.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod backfill;
mod bench;
mod data;
mod dead_letters;
mod doctor;
mod fixtures;
mod migrate;
mod pages;
mod process;
mod progress;
mod prove;
mod reconcile;
mod scratch;
mod send;
mod servers;
mod setup;
mod sides;
mod up;

/// How long threads that cannot be stopped may keep a command that has ended.
const LINGER: Duration = Duration::from_secs(1);

/// Keeps a database in step with Clerk
#[derive(Parser)]
#[command(
    name = "clerk-sync",
    version,
    propagate_version = true,
    max_term_width = 80
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Up(Box<up::UpArgs>),
    Ingest(Box<clerk_sync_ingest::config::Args>),
    Worker(Box<clerk_sync_worker::config::Args>),
    Console(Box<clerk_sync_console::config::Args>),
    Send(send::SendArgs),
    #[command(subcommand)]
    Migrate(migrate::MigrateCommand),
    Setup(setup::SetupArgs),
    Backfill(backfill::BackfillArgs),
    Reconcile(Box<reconcile::ReconcileArgs>),
    Doctor(Box<doctor::DoctorArgs>),
    Prove(prove::ProveArgs),
    Bench(bench::BenchArgs),
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLettersCommand),
}

fn main() -> ExitCode {
    let config::Examined { args: cli, wrong } = match config::examine::<Cli>() {
        Ok(examined) => examined,
        Err(exit) => return exit,
    };
    match cli.command {
        Command::Doctor(args) => doctor::run(*args, wrong),
        // The doctor tells what is wrong with settings; every other command stops at it.
        _ if !wrong.is_empty() => config::report(&wrong),
        Command::Up(args) => up::run(*args),
        Command::Ingest(args) => config::start(&args.process.clone(), |shutdown| {
            clerk_sync_ingest::process::receive(*args, shutdown)
        }),
        Command::Worker(args) => config::start(&args.process.clone(), |shutdown| {
            clerk_sync_worker::process::work(*args, shutdown)
        }),
        Command::Console(args) => config::start(&args.process.clone(), |shutdown| {
            clerk_sync_console::process::show(*args, shutdown)
        }),
        Command::Send(args) => send::run(args),
        Command::Migrate(command) => migrate::run(command),
        Command::Setup(args) => setup::run(args),
        Command::Backfill(args) => backfill::run(args),
        Command::Reconcile(args) => reconcile::run(*args),
        Command::DeadLetters(command) => dead_letters::run(&command),
        Command::Prove(args) => prove::run(args),
        Command::Bench(args) => bench::run(args),
    }
}

/// The life of a command that ends by itself, or at the first signal where it stands: 0, or 1 after
/// the error was printed.
fn finish(command: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    finish_itself(async {
        let shutdown = Shutdown::on_signals()?;
        unless_stopped(&shutdown, command).await
    })
}

/// `work`, unless a signal comes first. It is dropped then: what a command writes are transactions,
/// so nothing is left half done. In a container it is the first process, which no signal ends by
/// itself.
async fn unless_stopped<T>(
    shutdown: &Shutdown,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::select! {
        done = work => done,
        () = shutdown.requested() => anyhow::bail!("stopped by a signal"),
    }
}

/// The life of a command that sees to signals itself.
#[expect(
    clippy::print_stderr,
    reason = "a command speaks to the person who typed it"
)]
fn finish_itself(command: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a process may have threads");
    let exit = match runtime.block_on(command) {
        Ok(exit) => exit,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    };
    // A thread that waits for a name, or for a person, must not keep a command that was stopped.
    runtime.shutdown_timeout(LINGER);
    exit
}
