//! Where logs go, and what never reaches them.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, fmt::format::FmtSpan};

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For a terminal.
    #[default]
    Text,
    /// One JSON object per line, for machines.
    Json,
}

/// Added to every filter. lapin writes returned messages whole, h2 headers, sqlx statements: none
/// of that may reach a log, and their errors are handled, and logged once, by us. So are those of
/// OpenTelemetry's exporter, which warns of each export.
const QUIET: [&str; 6] = [
    "lapin=off",
    "opentelemetry-otlp=error",
    "h2=warn",
    "hyper=info",
    "sqlx=off",
    "sea_orm_migration=warn",
];

/// What `RUST_LOG` lets through.
///
/// # Errors
/// It cannot be understood.
pub fn log_filter(rust_log: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(rust_log).map_err(|error| error.to_string())
}

/// Sends logs to standard error, filtered by `RUST_LOG`. Call it once, at the start of `main`.
///
/// # Errors
/// `RUST_LOG` cannot be understood.
pub fn init_logs(format: LogFormat, rust_log: &str) -> Result<(), String> {
    let mut filter = log_filter(rust_log)?;
    for quiet in QUIET {
        filter = filter.add_directive(quiet.parse().expect("a constant directive"));
    }
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // A second call is a test's; the first keeps its word.
    let _ = match format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    Ok(())
}
