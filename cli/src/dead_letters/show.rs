//! `clerk-sync dead-letters show`.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use clerk_sync_pipeline::{
    EventId, Millis,
    queue::parked::{Fate, Letter, Parked},
    wording::{age, letters, number, plain, rfc3339},
};
use comfy_table::{ContentArrangement, Table, presets};

use super::{Errand, QueueArgs};

/// Show one letter: why it is here, and what travels with it
///
/// The body is the user's data, so it is shown only when asked for.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  clerk-sync dead-letters show msg_2Lh9KRb0pzN4LePd3XiA4v12Axj
  clerk-sync dead-letters show msg_2Lh9KRb0pzN4LePd3XiA4v12Axj --body | jq .")]
pub(crate) struct ShowArgs {
    /// The letter's id (svix-id)
    #[arg(value_name = "ID")]
    id: String,
    /// Write its body to standard output, byte for byte, and nothing else
    #[arg(long)]
    body: bool,
    #[command(flatten)]
    pub(super) queue: QueueArgs,
}

impl Errand for ShowArgs {
    async fn run(&self, parked: &mut impl Parked) -> anyhow::Result<ExitCode> {
        let shown = if self.body {
            self.body(parked).await?
        } else {
            self.letters(parked).await?
        };
        anyhow::ensure!(
            shown,
            "there is no letter {} in {}: `clerk-sync dead-letters list` shows what there is",
            plain(&self.id),
            parked.name(self.queue.place())
        );
        Ok(ExitCode::SUCCESS)
    }
}

impl ShowArgs {
    async fn body(&self, parked: &mut impl Parked) -> anyhow::Result<bool> {
        let Some(id) = EventId::parse(&self.id) else {
            return Ok(false);
        };
        let Some(body) = parked.body(self.queue.place(), &id).await? else {
            return Ok(false);
        };
        match io::stdout().write_all(&body) {
            Ok(()) => Ok(true),
            // Whoever has stopped reading is no error.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
            Err(error) => Err(error).context("cannot write the body"),
        }
    }

    /// An event that was delivered twice may be here twice.
    async fn letters(&self, parked: &mut impl Parked) -> anyhow::Result<bool> {
        let now = Millis::now();
        let mut found = Vec::new();
        let walk = parked.walk(self.queue.place(), |letter| {
            if letter.id.as_str() == self.id {
                found.push(letter.clone());
            }
            Fate::Keep
        });
        walk.await?;
        for (place, letter) in found.iter().enumerate() {
            if place > 0 {
                say!();
            }
            say!("{}", table(letter, now));
        }
        if found.len() > 1 {
            say!("\n{} with this id", letters(found.len() as u64));
        }
        Ok(!found.is_empty())
    }
}

fn table(letter: &Letter, now: Millis) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(80);
    let time = |at: Option<Millis>| match at.and_then(rfc3339) {
        Some(time) => format!("{time} ({} ago)", age(at, now)),
        None => "unknown".to_owned(),
    };
    let bytes = if letter.bytes == 1 { "byte" } else { "bytes" };
    table.add_row(["id", letter.id.as_str()]);
    table.add_row(["type", letter.event_type.as_str()]);
    table.add_row(["code", &letter.code]);
    table.add_row(["detail", &plain(letter.detail.as_deref().unwrap_or("none"))]);
    table.add_row(["attempts", &letter.attempts.to_string()]);
    table.add_row(["first failed", &time(letter.first_failed_at)]);
    table.add_row(["received", &time(letter.received_at)]);
    table.add_row(["size", &format!("{} {bytes}", number(letter.bytes))]);
    let headers: Vec<_> = letter
        .headers
        .iter()
        .map(|(name, value)| format!("{}: {}", plain(name), plain(value)))
        .collect();
    table.add_row(["headers", &headers.join("\n")]);
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use clerk_sync_pipeline::EventType;

    use super::*;

    #[test]
    fn the_widest_letter_fits_80_columns() {
        let letter = Letter {
            id: EventId::parse(&"m".repeat(255)).unwrap(),
            event_type: EventType::parse(&"t".repeat(255)).unwrap(),
            code: "foreign_key_violation".to_owned(),
            detail: Some("d\n".repeat(256)),
            attempts: 6,
            first_failed_at: Some(Millis(1_700_000_000_000)),
            received_at: None,
            bytes: 1,
            headers: vec![("x-death".to_owned(), "[{reason=expired}]".repeat(30))],
        };
        let text = table(&letter, Millis(1_800_000_000_000));
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        for part in ["2023-11-14T22:13:20.000Z (3y ago)", "unknown", "1 byte"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
