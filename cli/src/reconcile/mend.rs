//! What has drifted, on record, and mended where that was asked for.

use std::{fmt, str::FromStr};

use clerk_sync_api::fetch::present;
use clerk_sync_pipeline::telemetry::DriftKind;
use clerk_sync_projection::Snapshot;

use super::{Reconciliation, confirm::Drifted};
use crate::sides::{BATCH, patiently};

/// How many rows may be deleted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum MaxDeletes {
    /// So many.
    Rows(u64),
    /// So many of a hundred, rounded up: one row of any table.
    Percent(f64),
}

impl MaxDeletes {
    pub(super) fn of(self, rows: u64) -> u64 {
        match self {
            Self::Rows(most) => most,
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of a number of rows"
            )]
            Self::Percent(share) => (rows as f64 * share / 100.0).ceil() as u64,
        }
    }
}

impl FromStr for MaxDeletes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || "use a number of rows, or a percentage: 50, 2.5%".to_owned();
        match text.strip_suffix('%') {
            Some(share) => {
                let share = share.parse::<f64>().map_err(|_| wrong())?;
                (0.0..=100.0)
                    .contains(&share)
                    .then_some(Self::Percent(share))
                    .ok_or_else(wrong)
            }
            None => text.parse().map(Self::Rows).map_err(|_| wrong()),
        }
    }
}

impl fmt::Display for MaxDeletes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows(most) => write!(f, "{most}"),
            Self::Percent(share) => write!(f, "{share}%"),
        }
    }
}

impl Reconciliation<'_> {
    /// Takes users on record, and mends all but ghosts at once: nothing is deleted before all
    /// ghosts are counted.
    pub(super) async fn take_on_record(&mut self, drifted: Vec<Drifted>) -> anyhow::Result<()> {
        for some in drifted.chunks(BATCH) {
            let mut written = Vec::new();
            for one in some {
                self.report.add(one);
                match &one.user {
                    Some(user) if self.mends => written.push((one, present(user))),
                    Some(_) => {}
                    None if self.mends => self.ghosts.push(one.clerk_id.clone()),
                    None => {}
                }
            }
            if written.is_empty() {
                continue;
            }
            let (drifted, snapshots): (Vec<&Drifted>, Vec<Snapshot<'_>>) =
                written.into_iter().unzip();
            let projection = &self.sides.projection;
            let outcomes = patiently(|| projection.apply_snapshots(&snapshots)).await?;
            for (one, outcome) in drifted.into_iter().zip(outcomes) {
                self.report.mended(one.kind, &one.clerk_id, &outcome);
            }
        }
        Ok(())
    }

    /// Deletes the ghosts, unless they are too many, once all rows are counted.
    pub(super) async fn delete_ghosts(&mut self) -> anyhow::Result<()> {
        if !self.mends {
            return Ok(());
        }
        let most = self.max_deletes.of(self.managed);
        if self.report.found(DriftKind::Ghost) > most {
            self.report.most_deletes = Some(most);
            return Ok(());
        }
        for some in self.ghosts.chunks(BATCH) {
            let gone: Vec<Snapshot<'_>> = some
                .iter()
                .map(|clerk_id| Snapshot::Gone { clerk_id })
                .collect();
            let projection = &self.sides.projection;
            let outcomes = patiently(|| projection.apply_snapshots(&gone)).await?;
            for (clerk_id, outcome) in some.iter().zip(outcomes) {
                self.report.mended(DriftKind::Ghost, clerk_id, &outcome);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_or_a_share_of_the_rows() {
        for (text, rows, most) in [
            ("1%", 0, 0),
            ("1%", 1, 1),
            ("1%", 100, 1),
            ("1%", 101, 2),
            ("2.5%", 1_000, 25),
            ("100%", 7, 7),
            ("0%", 7, 0),
            ("50", 7, 50),
        ] {
            let limit: MaxDeletes = text.parse().unwrap();
            assert_eq!(limit.of(rows), most, "{text} of {rows}");
            assert_eq!(limit.to_string(), text);
        }
        for text in ["", "%", "-1", "-1%", "101%", "many", "NaN%", "1 %"] {
            text.parse::<MaxDeletes>().unwrap_err();
        }
    }
}
