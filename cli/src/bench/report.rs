//! What came of it: medians over rounds, ratios to the references, as a table or as JSON.

use std::{fmt, time::Duration};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::{
    applied::Window, audit::Audit, latency::Latencies, usage::Machine, versions::Versions,
};

/// The share of others from which on a machine is called busy.
const BUSY: f64 = 0.1;

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
struct Summary {
    mode: String,
    events_per_second: Option<f64>,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    own_cpu_us: Option<f64>,
    broker_cpu_us: Option<f64>,
    database_cpu_us: Option<f64>,
    generator_cpu_us: Option<f64>,
    elsewhere: Option<f64>,
    peak_memory_mib: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_ms: Option<f64>,
}

/// How a mode's rate compares with a reference's: the median of the rounds' ratios.
#[derive(Clone, Debug, Serialize)]
struct Ratio {
    mode: String,
    reference: String,
    ratio: f64,
}

/// What an event costs the whole machine, beside what the parts cost that it cannot do without.
/// Compares well on a busy machine, where rates do not.
#[derive(Clone, Debug, Serialize)]
struct CpuOfParts {
    mode: String,
    /// Own, broker's and load generator's, per event.
    cpu_us: f64,
    /// The same of the references: bare hyper + verify, raw publishes, one load generator.
    parts_us: f64,
}

/// A whole benchmark.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) command: &'static str,
    pub(super) version: &'static str,
    pub(super) optimized: bool,
    pub(super) machine: Machine,
    pub(super) servers: Versions,
    /// What was asked for, in words.
    pub(super) settings: String,
    pub(super) rounds: u32,
    summaries: Vec<Summary>,
    ratios: Vec<Ratio>,
    cpu_of_parts: Option<CpuOfParts>,
    accepted: u64,
    lost: u64,
    refused: u64,
    unanswered: u64,
    runs: Vec<Run>,
    /// What a column means.
    #[serde(skip)]
    notes: Vec<&'static str>,
}

impl Report {
    /// Sums up. Each pair of `compared` names a mode and its reference.
    pub(super) fn of(
        command: &'static str,
        servers: Versions,
        settings: String,
        runs: Vec<Run>,
        compared: &[(&str, &str)],
        notes: Vec<&'static str>,
    ) -> Self {
        let mut modes: Vec<&str> = Vec::new();
        for run in &runs {
            if !modes.contains(&run.mode.as_str()) {
                modes.push(&run.mode);
            }
        }
        let summaries = modes.iter().map(|mode| Summary::of(mode, &runs)).collect();
        let ratios = compared
            .iter()
            .filter_map(|(mode, reference)| Ratio::of(mode, reference, &runs))
            .collect();
        let audits = || runs.iter().filter_map(|run| run.audit.as_ref());
        Self {
            command,
            version: env!("CARGO_PKG_VERSION"),
            optimized: !cfg!(debug_assertions),
            machine: Machine::here(),
            servers,
            settings,
            rounds: runs.iter().map(|run| run.round).max().unwrap_or_default(),
            summaries,
            ratios,
            cpu_of_parts: None,
            accepted: audits().map(|audit| audit.accepted).sum(),
            lost: audits().map(|audit| audit.lost).sum(),
            refused: runs.iter().map(|run| run.refused).sum(),
            unanswered: runs.iter().map(|run| run.unanswered).sum(),
            runs,
            notes,
        }
    }
}

impl Report {
    /// Compares a mode with the sum of a server that keeps nothing and a publisher that receives
    /// nothing, where all of it is known.
    pub(super) fn with_parts(mut self, mode: &str, server: &str, publisher: &str) -> Self {
        self.cpu_of_parts = CpuOfParts::of(&self.summaries, [mode, server, publisher]);
        self
    }
}

impl CpuOfParts {
    fn of(summaries: &[Summary], names: [&str; 3]) -> Option<Self> {
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

impl Summary {
    fn of(mode: &str, runs: &[Run]) -> Self {
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
    fn of(mode: &str, reference: &str, runs: &[Run]) -> Option<Self> {
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

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu = self.machine.cpu.as_deref().unwrap_or("processor unknown");
        writeln!(f, "clerk-sync {} bench {}", self.version, self.command)?;
        writeln!(
            f,
            "  {} cores, {cpu}, {}",
            self.machine.cores, self.machine.system
        )?;
        let servers = [&self.servers.broker, &self.servers.database];
        let servers: Vec<&str> = servers.into_iter().flatten().map(String::as_str).collect();
        if !servers.is_empty() {
            writeln!(f, "  {}", servers.join(", "))?;
        }
        writeln!(f, "  {}", self.settings)?;
        writeln!(f, "\n{}\n", self.table())?;
        for ratio in &self.ratios {
            let Ratio {
                mode,
                reference,
                ratio,
            } = ratio;
            writeln!(f, "{mode}: {:.0} % of {reference}", ratio * 100.0)?;
        }
        if let Some(parts) = &self.cpu_of_parts {
            let CpuOfParts {
                mode,
                cpu_us,
                parts_us,
            } = parts;
            writeln!(
                f,
                "{mode}: {cpu_us:.0} µs CPU per event with broker and load generator; its parts {parts_us:.0} µs"
            )?;
        }
        let elsewhere = self
            .summaries
            .iter()
            .filter_map(|summary| summary.elsewhere);
        let elsewhere = elsewhere.fold(0.0, f64::max);
        if elsewhere > BUSY {
            writeln!(
                f,
                "Others had {:.0} % of the machine meanwhile: trust ratios more than rates.",
                elsewhere * 100.0
            )?;
        }
        for summary in &self.summaries {
            if let Some(start) = summary.start_ms {
                writeln!(f, "{}: ready {start:.0} ms after its start", summary.mode)?;
            }
        }
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        if self.refused + self.unanswered > 0 {
            writeln!(
                f,
                "{} requests refused, {} unanswered",
                self.refused, self.unanswered
            )?;
        }
        if !self.optimized {
            writeln!(
                f,
                "NOT an optimized build: these figures say nothing (cargo build --release)"
            )?;
        }
        write!(
            f,
            "{} lost, of {} accepted events",
            self.lost, self.accepted
        )
    }
}

impl Report {
    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header([
            "median of rounds",
            "events/s",
            "p50 ms",
            "p99 ms",
            "CPU µs",
            "MiB",
            "queue µs",
            "DB µs",
        ]);
        let number = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        for summary in &self.summaries {
            table.add_row([
                summary.mode.clone(),
                number(summary.events_per_second, 0),
                number(summary.p50_ms, 1),
                number(summary.p99_ms, 1),
                number(summary.own_cpu_us, 1),
                number(summary.peak_memory_mib, 0),
                number(summary.broker_cpu_us, 1),
                number(summary.database_cpu_us, 1),
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.trim_fmt()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{
        super::meter::{Meter, Spent},
        *,
    };

    fn run(mode: &str, round: u32, rate: f64) -> Run {
        let now = Meter::default().read();
        let spent = Spent {
            elapsed: Duration::from_secs(2),
            own: Some(Duration::from_millis(500)),
            ..now.until(&now)
        };
        assert!(now.at <= Instant::now());
        let window = Window {
            events: 100_000,
            spent,
        };
        let mut run = Run::new(mode, round, &window, Some(20 << 20));
        assert_eq!(run.own_cpu_us, Some(5.0));
        run.events_per_second = rate;
        run.latency = Some(Latencies::default());
        run.audit = Some(Audit {
            accepted: 1_000_000,
            found: 1_000_000,
            ..Audit::default()
        });
        run
    }

    #[test]
    fn medians_are_of_rounds_and_ratios_within_them() {
        let rates = [(1, 100.0, 200.0), (2, 300.0, 400.0), (3, 50.0, 500.0)];
        let runs: Vec<Run> = rates
            .iter()
            .flat_map(|(round, ours, theirs)| {
                [
                    run("raw lapin + confirm", *round, *theirs),
                    run("ingest", *round, *ours),
                ]
            })
            .collect();
        let compared = [("ingest", "raw lapin + confirm"), ("ingest", "nothing")];
        let report = Report::of(
            "ingest",
            Versions::default(),
            String::new(),
            runs,
            &compared,
            vec![],
        );
        assert_eq!(report.summaries[1].events_per_second, Some(100.0));
        assert_eq!(report.ratios.len(), 1);
        assert!((report.ratios[0].ratio - 0.5).abs() < 1e-9);
        assert_eq!(
            (report.rounds, report.lost, report.accepted),
            (3, 0, 6_000_000)
        );
        for line in report.to_string().lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(
            report
                .to_string()
                .ends_with("0 lost, of 6000000 accepted events")
        );
    }

    #[test]
    fn a_mode_is_compared_with_its_parts_where_all_is_known() {
        let mut runs = ["server", "publisher", "ingest"].map(|mode| run(mode, 1, 10.0));
        for run in &mut runs {
            run.generator_cpu_us = Some(3.0);
            run.broker_cpu_us = Some(40.0);
        }
        let report = |runs: &[Run]| {
            let (versions, runs) = (Versions::default(), runs.to_vec());
            let report = Report::of("ingest", versions, String::new(), runs, &[], vec![]);
            report.with_parts("ingest", "server", "publisher")
        };
        let parts = report(&runs).cpu_of_parts.unwrap();
        assert!((parts.cpu_us - 48.0).abs() < 1e-9);
        assert!((parts.parts_us - 53.0).abs() < 1e-9);
        let longest = report(&runs).to_string();
        assert!(
            longest.lines().all(|line| line.chars().count() <= 80),
            "{longest}"
        );
        runs[1].broker_cpu_us = None;
        assert!(report(&runs).cpu_of_parts.is_none());
    }

    #[test]
    fn the_median_of_an_even_number_is_between() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }
}
