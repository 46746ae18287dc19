//! `clerk-sync dead-letters replay`.

use std::{process::ExitCode, time::Duration};

use clerk_sync_pipeline::{
    queue::parked::{Fate, Parked},
    wording::letters,
};

use super::{Errand, QueueArgs, interrupted, missing, selection::Selection};

/// Have letters applied again, once their cause is cured
///
/// Each goes back with its own bytes and id, its attempts counted anew. On RabbitMQ it waits out
/// the first retry delay. It leaves this queue only when it is safe in the other.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  clerk-sync dead-letters replay msg_2Lh9KRb0pzN4LePd3XiA4v12Axj
  clerk-sync dead-letters replay --code email_taken --dry-run
  clerk-sync dead-letters replay --all --from unrouted")]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    selection: Selection,
    /// Only count what would be replayed
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    pub(super) queue: QueueArgs,
}

impl Errand for ReplayArgs {
    async fn run(&self, parked: &mut impl Parked) -> anyhow::Result<ExitCode> {
        let place = self.queue.place();
        let fate = if self.dry_run {
            Fate::Keep
        } else {
            Fate::Replay
        };
        let walk = self.selection.walk(parked, place, fate).await;
        let selected = walk.map_err(|error| interrupted(error, "replayed"))?;
        let total = selected.tally.total();
        if total > 0 {
            say!("{}", selected.tally);
        }
        if self.dry_run {
            say!("{} would be replayed", letters(total));
        } else {
            say!("{} replayed", letters(selected.replayed));
            if selected.replayed > 0 {
                say!("{}", applied(parked.replay_delay()));
            }
        }
        Ok(missing(&selected.missing, &parked.name(place)))
    }
}

/// What happens to them now.
fn applied(delay: Duration) -> String {
    if delay.is_zero() {
        return "A running `clerk-sync up` applies them now, else the next one will.".to_owned();
    }
    let delay = humantime::format_duration(delay);
    format!("They are applied in {delay}, after the first retry delay.")
}
