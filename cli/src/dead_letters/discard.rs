//! `clerk-sync dead-letters discard`.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use clerk_sync_pipeline::{
    queue::parked::{Fate, Parked},
    wording::letters,
};

use super::{Errand, QueueArgs, interrupted, missing, selection::Selection};

/// Remove letters for good
///
/// Asks first, unless told --yes. What is counted when it asks is what it discards; while it waits
/// for an answer nobody else has these letters.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  clerk-sync dead-letters discard msg_2Lh9KRb0pzN4LePd3XiA4v12Axj
  clerk-sync dead-letters discard --code wrong_instance --yes
  clerk-sync dead-letters discard --type email.created --older-than 30days")]
pub(crate) struct DiscardArgs {
    #[command(flatten)]
    selection: Selection,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    pub(super) queue: QueueArgs,
}

impl Errand for DiscardArgs {
    async fn run(&self, parked: &mut impl Parked) -> anyhow::Result<ExitCode> {
        anyhow::ensure!(
            self.yes || io::stdin().is_terminal(),
            "discarded letters are gone for good, and there is no terminal to ask on: add --yes \
             if that is meant"
        );
        let place = self.queue.place();
        let selected = self.selection.walk(parked, place, Fate::Mark).await?;
        let queue = parked.name(place);
        let total = selected.tally.total();
        if total > 0 {
            say!("{}", selected.tally);
            if !self.yes && !is_meant(total, &queue).await? {
                say!("nothing was discarded");
                return Ok(ExitCode::FAILURE);
            }
        }
        let discarded = parked.discard_marked().await;
        let discarded = discarded.map_err(|error| interrupted(error, "discarded"))?;
        say!("{} discarded", letters(discarded));
        Ok(missing(&selected.missing, &queue))
    }
}

/// Asks on the terminal.
async fn is_meant(total: u64, queue: &str) -> anyhow::Result<bool> {
    let question = format!("Discard {} of {queue} for good? [y/N] ", letters(total));
    // Waiting for a person must not stop the connection's life.
    let answer = tokio::task::spawn_blocking(move || {
        let mut out = io::stdout();
        write!(out, "{question}")?;
        out.flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        Ok::<_, io::Error>(answer)
    });
    let answer = answer.await?.context("cannot ask on the terminal")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
