//! What happened between two looks at the metrics of a process, or at the ledger.

use std::{collections::BTreeMap, time::Duration};

/// Upper bounds of the latencies that are counted, in seconds: those of
/// `clerk_sync_sync_latency_seconds`; above the last one is everything else.
pub(crate) const BOUNDS: [f64; 18] = [
    0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0,
    7200.0, 36_000.0, 100_800.0,
];

/// Latencies, counted by the bound that they are below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Latencies([u64; BOUNDS.len() + 1]);

impl Latencies {
    /// Those that were counted elsewhere, by the same bounds.
    pub(crate) fn counted(counts: [u64; BOUNDS.len() + 1]) -> Self {
        Self(counts)
    }

    pub(crate) fn add(&mut self, latency: Duration) {
        let seconds = latency.as_secs_f64();
        let place = BOUNDS.iter().position(|bound| seconds <= *bound);
        self.0[place.unwrap_or(BOUNDS.len())] += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }

    /// In seconds, as Prometheus' `histogram_quantile` tells it: as if the latencies between two
    /// bounds were spread evenly. `None` where there are none.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<f64> {
        let total: u64 = self.0.iter().sum();
        if total == 0 {
            return None;
        }
        let wanted = quantile * float(total);
        let (mut below, mut lower) = (0.0, 0.0);
        for (bound, count) in BOUNDS.iter().zip(self.0) {
            let count = float(count);
            if count > 0.0 && below + count >= wanted {
                return Some(lower + (bound - lower) * ((wanted - below) / count).max(0.0));
            }
            below += count;
            lower = *bound;
        }
        Some(lower)
    }
}

/// What happened in a time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Delta {
    /// Webhook requests by how they were answered; `None` where nobody tells.
    pub(crate) requests: Option<BTreeMap<String, u64>>,
    /// Deliveries by what became of them.
    pub(crate) outcomes: BTreeMap<String, u64>,
    /// Clerk's time of an event to its commit.
    pub(crate) latencies: Latencies,
}

/// Answers that no delivery of Clerk's gets at the right address: whoever tries doors.
const STRANGERS: [&str; 2] = ["not_found", "method_not_allowed"];
const ACCEPTED: &str = "accepted";

impl Delta {
    pub(crate) fn merge(&mut self, other: &Self) {
        if let Some(more) = &other.requests {
            merge(self.requests.get_or_insert_default(), more);
        }
        merge(&mut self.outcomes, &other.outcomes);
        self.latencies.merge(&other.latencies);
    }

    /// Events received, durably queued; `None` where nobody tells.
    pub(crate) fn accepted(&self) -> Option<u64> {
        let requests = self.requests.as_ref()?;
        Some(requests.get(ACCEPTED).copied().unwrap_or(0))
    }

    /// Requests that were refused, those of [`STRANGERS`] left out.
    pub(crate) fn refused(&self) -> Option<u64> {
        Some(self.refusals()?.map(|(_, count)| count).sum())
    }

    /// Refusals by their codes.
    pub(crate) fn refusals(&self) -> Option<impl Iterator<Item = (&str, u64)>> {
        let requests = self.requests.as_ref()?.iter();
        let refused = requests.filter(|(outcome, count)| {
            **count > 0 && *outcome != ACCEPTED && !STRANGERS.contains(&outcome.as_str())
        });
        Some(refused.map(|(outcome, count)| (outcome.as_str(), *count)))
    }

    /// Deliveries that were handled, whatever became of them.
    pub(crate) fn handled(&self) -> u64 {
        self.outcomes.values().sum()
    }

    pub(crate) fn outcome(&self, outcome: &str) -> u64 {
        self.outcomes.get(outcome).copied().unwrap_or(0)
    }
}

fn merge(into: &mut BTreeMap<String, u64>, more: &BTreeMap<String, u64>) {
    for (name, count) in more {
        *into.entry(name.clone()).or_default() += count;
    }
}

/// A count for arithmetic: exact up to 2^53.
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_prometheus() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile(0.5), None);
        for millis in [1, 2, 30, 40] {
            latencies.add(Duration::from_millis(millis));
        }
        assert_eq!(latencies.quantile(0.5), Some(0.002_5));
        assert_eq!(latencies.quantile(1.0), Some(0.05));
        // Half way between 0.025 and 0.05.
        let three_quarters = latencies.quantile(0.75).unwrap();
        assert!((three_quarters - 0.037_5).abs() < 1e-9, "{three_quarters}");
        let mut days = Latencies::default();
        days.add(Duration::from_secs(10_000_000));
        assert_eq!(days.quantile(0.99), BOUNDS.last().copied());
    }

    #[test]
    fn strangers_at_the_door_are_no_failed_deliveries() {
        let counts = [
            ("accepted", 98),
            ("not_found", 500),
            ("signature_mismatch", 2),
        ];
        let requests = counts.map(|(name, count)| (name.to_owned(), count));
        let mut delta = Delta {
            requests: Some(requests.into()),
            ..Delta::default()
        };
        assert_eq!((delta.accepted(), delta.refused()), (Some(98), Some(2)));
        delta.merge(&delta.clone());
        assert_eq!((delta.accepted(), delta.refused()), (Some(196), Some(4)));
        assert_eq!(Delta::default().refused(), None, "nobody tells");
    }
}
