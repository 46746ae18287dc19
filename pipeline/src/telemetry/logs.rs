//! Where log lines go, in which format, and which of them. docs/LOGS.md has every line and field.

use std::{io::IsTerminal as _, panic, time::Duration};

use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::FilterExt as _, filter::filter_fn, fmt::format::FmtSpan,
    layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For a terminal.
    #[default]
    Text,
    /// One JSON object per line, for machines.
    Json,
}

/// Of these not even warnings are logged: lapin writes returned messages whole, sqlx statements.
/// Their errors are handled, and logged once, by us. So are those of OpenTelemetry's exporter, which
/// warns of each export.
const SILENT: [&str; 3] = ["lapin=off", "sqlx=off", "opentelemetry-otlp=error"];

/// How the targets of our own lines begin.
const OURS: &str = "clerk_sync";

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
    for silent in SILENT {
        filter = filter.add_directive(silent.parse().expect("a constant directive"));
    }
    let filter = filter.and(filter_fn(may_be_logged));
    let lines = tracing_subscriber::fmt::layer()
        .with_span_events(FmtSpan::NONE)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let logs = tracing_subscriber::registry();
    // A second call is a test's; the first keeps its word.
    let _ = match format {
        LogFormat::Text => logs.with(lines.with_filter(filter)).try_init(),
        LogFormat::Json => {
            panic::set_hook(Box::new(log_panic));
            let lines = lines
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false);
            logs.with(lines.with_filter(filter)).try_init()
        }
    };
    Ok(())
}

/// Of libraries only warnings and errors, whatever `RUST_LOG` says: what they tell at lower levels
/// (headers, addresses, statements) was not written with our promises in mind.
fn may_be_logged(line: &Metadata<'_>) -> bool {
    line.target().starts_with(OURS) || *line.level() <= Level::WARN
}

/// A panic is a line like any other, where lines are read by machines.
fn log_panic(panic: &panic::PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string);
    tracing::error!(error = panic.payload_as_str(), location, "panicked");
}

/// A duration as log lines have it, in fields that end in `_ms`.
#[must_use]
pub fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
