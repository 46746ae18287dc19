//! A report, told to a person.

use clerk_sync_pipeline::telemetry::{DriftKind, Label as _};
use indicatif::HumanCount;

use super::report::{Report, rfc3339};
use crate::progress::in_words;

/// Users of each kind that are shown.
const MOST_SHOWN: usize = 10;

pub(super) fn tell(report: &Report, mends: bool) {
    let (users, rows) = (HumanCount(report.users), HumanCount(report.rows));
    let took = in_words(report.took);
    say!("instance {}", report.instance);
    match report.since {
        None => say!("{users} users, {rows} rows, compared in {took}\n"),
        Some(since) => {
            let since = rfc3339(since);
            say!("{users} users changed since {since}, compared in {took}\n");
        }
    }
    for kind in DriftKind::ALL {
        tell_kind(report, *kind, mends);
    }
    for kind in DriftKind::ALL {
        tell_users(report, *kind);
    }
    for note in notes(report, mends) {
        say!("\n{note}");
    }
}

fn tell_kind(report: &Report, kind: DriftKind, mends: bool) {
    let what = match kind {
        DriftKind::Missing => "at Clerk, without a row",
        DriftKind::Stale => "the row is not as Clerk's user is",
        DriftKind::Ghost if report.since.is_some() => "not looked for with --since",
        DriftKind::Ghost => "a row, and nobody at Clerk",
        DriftKind::Unmanaged => "a row that the sync has never written",
    };
    let count = HumanCount(report.found(kind)).to_string();
    if mends {
        let fixed = HumanCount(report.fixed(kind)).to_string();
        say!(
            "  {:<10} {count:>9} {fixed:>9} fixed  {what}",
            kind.as_str()
        );
    } else {
        say!("  {:<10} {count:>9}  {what}", kind.as_str());
    }
}

fn tell_users(report: &Report, kind: DriftKind) {
    for (place, one) in report.listed(kind).take(MOST_SHOWN).enumerate() {
        let head = if place == 0 {
            say!();
            kind.as_str()
        } else {
            ""
        };
        say!("  {head:<10} {}", one.clerk_id);
        if !one.detail.is_empty() {
            say!("  {:<10}   {}", "", one.detail);
        }
    }
    let more = report.left(kind).saturating_sub(MOST_SHOWN as u64);
    if more > 0 {
        say!("  {:<10} and {} more", "", HumanCount(more));
    }
}

fn notes(report: &Report, mends: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if report.strangers > 0 {
        notes.push(format!(
            "Of nobody at Clerk, never written by the sync, and left alone: {}.",
            counted(report.strangers, "row")
        ));
    }
    if report.without_address > 0 {
        notes.push(format!(
            "Without an address, and left out (MISSING_EMAIL=dead-letter): {}.",
            counted(report.without_address, "user")
        ));
    }
    if report.unwritable > 0 {
        notes.push(format!(
            "With values that no database takes, and left out: {}.",
            counted(report.unwritable, "user")
        ));
    }
    if let Some(most) = report.most_deletes {
        let ghosts = report.found(DriftKind::Ghost);
        notes.push(format!(
            "No ghost was deleted: --max-deletes allows {}. If they are gone for good:\n\
             clerk-sync reconcile --fix --max-deletes {ghosts}",
            counted(most, "row")
        ));
    }
    if report.left_in_all() > 0 && !mends {
        notes.push("Run it with --fix to mend this.".to_owned());
    }
    notes
}

/// `1 row`, `2,000 rows`.
fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {what}{plural}", HumanCount(count))
}
