//! `clerk-sync setup`.

use std::process::ExitCode;

use clerk_sync_pipeline::{config::AmqpArgs, queue::amqp};

/// Declare the exchanges, queues and bindings on RabbitMQ
///
/// What exists as wanted is left alone, so it can be run any number of times. What exists with
/// other arguments is named, and left alone too.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  clerk-sync setup --amqp-url amqp://guest:guest@localhost:5672/%2f
  AMQP_URL=amqps://user:password@broker/%2f clerk-sync setup")]
pub(crate) struct SetupArgs {
    #[command(flatten)]
    amqp: AmqpArgs,
}

pub(crate) fn run(args: SetupArgs) -> ExitCode {
    crate::finish(setup(args))
}

async fn setup(args: SetupArgs) -> anyhow::Result<ExitCode> {
    let server = args.amqp.server();
    let declared = amqp::setup(&server).await?;
    say!("{} is set up:", server.nodes);
    for name in declared {
        say!("  {name}");
    }
    Ok(ExitCode::SUCCESS)
}
