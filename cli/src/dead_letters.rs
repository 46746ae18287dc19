//! `clerk-sync dead-letters`: what could not be applied, for the person who can mend it.

use std::{collections::BTreeSet, process::ExitCode};

use clerk_sync_pipeline::{
    queue::{
        amqp::AmqpParked,
        embedded::EmbeddedParked,
        parked::{Interrupted, Parked, Place},
    },
    wording::plain,
};

use crate::{
    data::{self, DataFolder},
    servers::BrokerArgs,
};

mod discard;
mod list;
mod replay;
mod selection;
mod show;

/// Look at, replay or discard the events that could not be applied
///
/// On RabbitMQ with AMQP_URL, else in the data folder of `clerk-sync up`, which may be running.
#[derive(clap::Subcommand)]
#[command(after_help = "\
Examples:
  clerk-sync dead-letters list
  clerk-sync dead-letters show msg_2Lh9KRb0pzN4LePd3XiA4v12Axj
  clerk-sync dead-letters replay --code email_taken
  clerk-sync dead-letters discard --code malformed --older-than 30days")]
pub(crate) enum DeadLettersCommand {
    List(list::ListArgs),
    Show(show::ShowArgs),
    Replay(replay::ReplayArgs),
    Discard(discard::DiscardArgs),
}

/// Which letters of which queue.
#[derive(clap::Args)]
struct QueueArgs {
    /// Where they lie: `dead` could not be applied, `unrouted` found no queue on RabbitMQ
    #[arg(
        long,
        value_enum,
        default_value = "dead",
        value_name = "PLACE",
        hide_possible_values = true
    )]
    from: From,
    #[command(flatten)]
    broker: BrokerArgs,
    /// The data folder of `clerk-sync up`, when there is no AMQP_URL
    #[arg(long, env = "CLERK_SYNC_DATA", default_value = data::DEFAULT, value_name = "FOLDER", help_heading = "Queue")]
    data: DataFolder,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum From {
    Dead,
    Unrouted,
}

impl QueueArgs {
    fn place(&self) -> Place {
        match self.from {
            From::Dead => Place::Dead,
            From::Unrouted => Place::Unrouted,
        }
    }
}

pub(crate) fn run(command: &DeadLettersCommand) -> ExitCode {
    crate::finish(async {
        match command {
            DeadLettersCommand::List(args) => on_queue(&args.queue, args).await,
            DeadLettersCommand::Show(args) => on_queue(&args.queue, args).await,
            DeadLettersCommand::Replay(args) => on_queue(&args.queue, args).await,
            DeadLettersCommand::Discard(args) => on_queue(&args.queue, args).await,
        }
    })
}

/// A command on whichever queue it is.
trait Errand {
    async fn run(&self, parked: &mut impl Parked) -> anyhow::Result<ExitCode>;
}

async fn on_queue(args: &QueueArgs, errand: &impl Errand) -> anyhow::Result<ExitCode> {
    match args.broker.server() {
        Some(server) => finish(AmqpParked::open(&server).await?, errand).await,
        None => finish(EmbeddedParked::open(&args.data.queue())?, errand).await,
    }
}

async fn finish(mut parked: impl Parked, errand: &impl Errand) -> anyhow::Result<ExitCode> {
    let result = errand.run(&mut parked).await;
    // Also after a failure: what is in hand is given back at once.
    parked.close().await;
    result
}

/// The error with what was done before it: `done` is a verb, as in "3 letters were replayed".
fn interrupted(error: Interrupted, done: &str) -> anyhow::Error {
    if error.done == 0 {
        return error.into();
    }
    let (letters, were) = match error.done {
        1 => ("letter", "was"),
        _ => ("letters", "were"),
    };
    let before = format!(
        "{} {letters} {were} {done} before this, the others are where they were: run it again",
        error.done
    );
    anyhow::anyhow!("{error}\n{before}")
}

/// Names the ids that were not found; success if there are none.
#[expect(
    clippy::print_stderr,
    reason = "a command speaks to the person who typed it"
)]
fn missing(ids: &BTreeSet<&str>, queue: &str) -> ExitCode {
    for id in ids {
        eprintln!("error: there is no letter {} in {queue}", plain(id));
    }
    if ids.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
