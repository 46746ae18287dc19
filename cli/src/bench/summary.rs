//! A run, and what several come to: medians, and ratios to the references.

use std::time::Duration;

use serde::Serialize;

use super::{applied::Window, audit::Audit, latency::Latencies};

/// One mode in one round.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Run {
    /// What was measured, the same in every round.
    pub(super) mode: String,
    pub(super) round: u32,
    /// In the measured part.
    pub(super) events: u64,
    pub(super) seconds: f64,
    pub(super) events_per_second: f64,
    /// Until the answer, or until the row was there: as the mode says.
    pub(super) latency: Option<Latencies>,
    /// Of the processes under test, per event.
    pub(super) own_cpu_us: Option<f64>,
    pub(super) broker_cpu_us: Option<f64>,
    pub(super) database_cpu_us: Option<f64>,
    /// Of the load generator, where it is not itself what is measured.
    pub(super) generator_cpu_us: Option<f64>,
    /// What share of the machine others had, from 0 to 1.
    pub(super) elsewhere: Option<f64>,
    pub(super) peak_memory_mib: Option<f64>,
    /// From the start of the process to its first ready answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) start_ms: Option<f64>,
    /// Requests of the whole run that were not answered 2xx.
    pub(super) refused: u64,
    pub(super) unanswered: u64,
    /// Of the whole run, warm-up included; nothing for a server that keeps nothing.
    pub(super) audit: Option<Audit>,
}

impl Run {
    #[expect(clippy::cast_precision_loss, reason = "numbers of events and bytes")]
    pub(super) fn new(mode: &str, round: u32, window: &Window, peak_memory: Option<u64>) -> Self {
        let spent = &window.spent;
        let seconds = spent.elapsed.as_secs_f64();
        let per_event = |cpu: Option<Duration>| {
            let cpu = cpu?.as_secs_f64() * 1e6 / window.events as f64;
            cpu.is_finite().then_some(cpu)
        };
        Self {
            mode: mode.to_owned(),
            round,
            events: window.events,
            seconds,
            events_per_second: window.events as f64 / seconds,
            latency: None,
            own_cpu_us: per_event(spent.own),
            broker_cpu_us: per_event(spent.broker),
            database_cpu_us: per_event(spent.database),
            generator_cpu_us: per_event(spent.generator),
            elsewhere: spent.elsewhere,
            peak_memory_mib: peak_memory.map(|bytes| bytes as f64 / f64::from(1 << 20)),
            start_ms: None,
            refused: 0,
            unanswered: 0,
            audit: None,
        }
    }
}

/// Medians of a mode's runs.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Summary {
    pub(super) mode: String,
    pub(super) events_per_second: Option<f64>,
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    pub(super) own_cpu_us: Option<f64>,
    pub(super) broker_cpu_us: Option<f64>,
    pub(super) database_cpu_us: Option<f64>,
    pub(super) generator_cpu_us: Option<f64>,
    pub(super) elsewhere: Option<f64>,
    pub(super) peak_memory_mib: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) start_ms: Option<f64>,
}

/// How a mode's rate compares with a reference's: the median of the rounds' ratios.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Ratio {
    pub(super) mode: String,
    pub(super) reference: String,
    pub(super) ratio: f64,
}

/// What an event costs the whole machine, beside what the parts cost that it cannot do without.
/// Compares well on a busy machine, where rates do not.
#[derive(Clone, Debug, Serialize)]
pub(super) struct CpuOfParts {
    pub(super) mode: String,
    /// Own, broker's and load generator's, per event.
    pub(super) cpu_us: f64,
    /// The same of the references: bare hyper + verify, raw publishes, one load generator.
    pub(super) parts_us: f64,
}

impl Summary {
    pub(super) fn of(mode: &str, runs: &[Run]) -> Self {
        let of = |value: &dyn Fn(&Run) -> Option<f64>| {
            let runs = runs.iter().filter(|run| run.mode == mode);
            median(runs.filter_map(value).collect())
        };
        Self {
            mode: mode.to_owned(),
            events_per_second: of(&|run| Some(run.events_per_second)),
            p50_ms: of(&|run| Some(run.latency?.p50_ms)),
            p99_ms: of(&|run| Some(run.latency?.p99_ms)),
            own_cpu_us: of(&|run| run.own_cpu_us),
            broker_cpu_us: of(&|run| run.broker_cpu_us),
            database_cpu_us: of(&|run| run.database_cpu_us),
            generator_cpu_us: of(&|run| run.generator_cpu_us),
            elsewhere: of(&|run| run.elsewhere),
            peak_memory_mib: of(&|run| run.peak_memory_mib),
            start_ms: of(&|run| run.start_ms),
        }
    }
}

impl Ratio {
    pub(super) fn of(mode: &str, reference: &str, runs: &[Run]) -> Option<Self> {
        let rate = |wanted: &str, round| {
            let mut found = runs
                .iter()
                .filter(|run| run.mode == wanted && run.round == round);
            found.next().map(|run| run.events_per_second)
        };
        let rounds = 1..=runs.iter().map(|run| run.round).max()?;
        let ratios = rounds.filter_map(|round| Some(rate(mode, round)? / rate(reference, round)?));
        Some(Self {
            mode: mode.to_owned(),
            reference: reference.to_owned(),
            ratio: median(ratios.collect())?,
        })
    }
}

/// The middle one; of an even number, the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

impl CpuOfParts {
    pub(super) fn of(summaries: &[Summary], names: [&str; 3]) -> Option<Self> {
        let [mode, server, publisher] =
            names.map(|name| summaries.iter().find(|summary| summary.mode == name));
        let (mode, server, publisher) = (mode?, server?, publisher?);
        Some(Self {
            mode: mode.mode.clone(),
            cpu_us: mode.own_cpu_us? + mode.broker_cpu_us? + mode.generator_cpu_us?,
            parts_us: server.own_cpu_us?
                + server.generator_cpu_us?
                + publisher.own_cpu_us?
                + publisher.broker_cpu_us?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }
}
