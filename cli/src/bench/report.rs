//! What came of it: medians over rounds, ratios to the references, as a table or as JSON.

use std::fmt;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::{
    summary::{CpuOfParts, Ratio, Run, Summary},
    usage::Machine,
    versions::Versions,
};

/// The share of others from which on a machine is called busy.
const BUSY: f64 = 0.1;

/// A whole benchmark.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) command: &'static str,
    pub(super) version: &'static str,
    pub(super) optimized: bool,
    pub(super) machine: Machine,
    pub(super) servers: Versions,
    /// What was asked for, in lines.
    pub(super) settings: Vec<String>,
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
        settings: &str,
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
            settings: settings.lines().map(str::to_owned).collect(),
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
        for line in &self.settings {
            writeln!(f, "  {line}")?;
        }
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
    use std::time::{Duration, Instant};

    use super::{
        super::{
            applied::Window,
            audit::Audit,
            latency::Latencies,
            meter::{Meter, Spent},
        },
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
        let report = Report::of("ingest", Versions::default(), "", runs, &compared, vec![]);
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
            let report = Report::of("ingest", versions, "", runs, &[], vec![]);
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
}
