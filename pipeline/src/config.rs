//! Settings: flags and environment variables of the same names, `.env` read when present, and all
//! problems reported at once, by name, before any port is bound.

use std::{fmt::Display, io, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Parser;
use tokio::net::TcpListener;

use crate::{
    admin::{self, AdminPort},
    lifecycle::Shutdown,
    queue::{
        RetryLadder, Topology,
        amqp::{self, Nodes},
    },
    telemetry::{self, LogFormat, Metrics},
    trace::{self, TraceArgs},
};

pub use crate::wording::time;
pub use examine::{Examined, WrongSetting, examine, parse, report};

mod examine;

/// What every process has.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Process")]
pub struct ProcessArgs {
    /// Address of the admin port: /livez, /readyz, /metrics. Keep it off the internet
    #[arg(long, env, default_value = "127.0.0.1:9464", value_name = "ADDRESS")]
    pub admin_listen: SocketAddr,
    /// How log lines are written
    #[arg(
        long,
        env,
        default_value = "text",
        value_name = "FORMAT",
        value_enum,
        ignore_case = true
    )]
    pub log_format: LogFormat,
    /// What is logged, as tracing-subscriber's EnvFilter has it: info, clerk_sync_worker=debug
    #[arg(long, env, default_value = "info", value_name = "FILTER")]
    pub rust_log: String,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment would become the help's heading")]
    pub trace: TraceArgs,
    /// Ask the process that runs with these settings whether it is ready, and exit 0 or 1
    #[arg(long)]
    pub healthcheck: bool,
}

/// A running RabbitMQ, and the names on it.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Queue")]
pub struct AmqpArgs {
    /// RabbitMQ: amqp://user:password@host:5672/%2f, or amqps:// for TLS; several nodes of a
    /// cluster with commas between them
    #[arg(long, env, hide_env_values = true, value_name = "URLS")]
    pub amqp_url: Nodes,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment would become the help's heading")]
    pub topology: TopologyArgs,
}

/// Names and limits on RabbitMQ.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Queue")]
pub struct TopologyArgs {
    /// PEM file of a certificate authority to trust for amqps://, beside the system's
    #[arg(long, env, value_name = "FILE", value_parser = readable_file)]
    pub amqp_ca_cert: Option<PathBuf>,
    /// First part of every exchange's and queue's name
    #[arg(long, env, default_value = Topology::DEFAULT_PREFIX, value_name = "NAME", value_parser = queue_prefix)]
    pub queue_prefix: String,
    /// Most bytes the queue holds before webhooks are answered 503
    #[arg(long, env, default_value_t = Topology::DEFAULT_MAX_LENGTH_BYTES, value_name = "BYTES")]
    pub queue_max_bytes: u64,
    /// Delays between attempts of an event that time may cure
    #[arg(long, env, default_value = "5s,30s,2m,10m,1h", value_name = "DELAYS")]
    pub retry_delays: RetryLadder,
}

impl AmqpArgs {
    /// The broker these settings name.
    #[must_use]
    pub fn server(&self) -> amqp::Server {
        self.topology.server(self.amqp_url.clone())
    }
}

impl TopologyArgs {
    /// The broker of these nodes, with this topology.
    #[must_use]
    pub fn server(&self, nodes: Nodes) -> amqp::Server {
        let topology = Topology {
            prefix: self.queue_prefix.clone(),
            ladder: self.retry_delays.clone(),
            max_length_bytes: self.queue_max_bytes,
        };
        amqp::Server {
            nodes,
            ca: self.amqp_ca_cert.clone(),
            topology,
        }
    }
}

fn readable_file(path: &str) -> Result<PathBuf, String> {
    std::fs::File::open(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    Ok(path.into())
}

fn queue_prefix(prefix: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=100).contains(&prefix.len()) && prefix.bytes().all(plain) {
        Ok(prefix.to_owned())
    } else {
        Err("use 1 to 100 letters, digits, `.`, `_` or `-`".to_owned())
    }
}

/// A setting that may be unset, or blank as environments have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given<T>(pub Option<T>);

/// A parser for a setting that may be blank.
///
/// # Errors
/// Those of the parser that it is made of.
pub fn given<T, E>(
    parse: impl Fn(&str) -> Result<T, E> + Clone + Send + Sync + 'static,
) -> impl Fn(&str) -> Result<Given<T>, E> + Clone + Send + Sync + 'static {
    move |text| match text.trim() {
        "" => Ok(Given(None)),
        text => parse(text).map(|value| Given(Some(value))),
    }
}

impl ProcessArgs {
    /// Takes the admin port, where these metrics are shown.
    ///
    /// # Errors
    /// It cannot be had.
    pub async fn bind_admin(&self, metrics: Metrics) -> Result<AdminPort, BindError> {
        let listener = bind("ADMIN_LISTEN", self.admin_listen).await?;
        Ok(AdminPort::new(listener, metrics))
    }
}

/// A port that cannot be had. The text names the setting.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: cannot listen on {address}: {cause}")]
pub struct BindError {
    setting: &'static str,
    address: SocketAddr,
    cause: io::Error,
}

/// Takes the port of a setting.
///
/// # Errors
/// It cannot be had.
pub async fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|cause| BindError {
            setting,
            address,
            cause,
        })?;
    let bound = listener.local_addr().unwrap_or(address);
    tracing::info!(setting, address = %bound, "listening");
    Ok(listener)
}

/// The life of a process that has no subcommands: its settings, then [`start`].
pub fn run<T, F, E>(main: impl FnOnce(T, Shutdown) -> F) -> ExitCode
where
    T: Parser + AsRef<ProcessArgs>,
    F: Future<Output = Result<(), E>>,
    E: Display,
{
    match parse::<T>() {
        Ok(args) => {
            let process = args.as_ref().clone();
            start(&process, |shutdown| main(args, shutdown))
        }
        Err(exit) => exit,
    }
}

/// The life of a process once its settings are read: logs, signals, `main`, exit code (0 stopped
/// cleanly, 1 failed or forced, 64 not configured).
pub fn start<F, E>(process: &ProcessArgs, main: impl FnOnce(Shutdown) -> F) -> ExitCode
where
    F: Future<Output = Result<(), E>>,
    E: Display,
{
    if let Err(problem) = telemetry::init_logs(process.log_format, &process.rust_log) {
        return report(&[format!("RUST_LOG (--rust-log): {problem}")]);
    }
    // Dropped last, when all spans have ended.
    let traces = if process.healthcheck {
        Ok(None)
    } else {
        trace::start(&process.trace)
    };
    let _traces = match traces {
        Ok(traces) => traces,
        Err(error) => return report(&[format!("OTEL_EXPORTER_OTLP_ENDPOINT: {error}")]),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a process may have threads");
    let exit = runtime.block_on(async {
        if process.healthcheck {
            return healthcheck(process.admin_listen).await;
        }
        let shutdown = Shutdown::on_signals().expect("a process may listen for signals");
        shutdown.clone().supervise(main(shutdown)).await
    });
    // A task that is stuck outside the runtime's reach must not keep a stopped process alive.
    runtime.shutdown_background();
    exit
}

async fn healthcheck(admin: SocketAddr) -> ExitCode {
    match admin::healthcheck(admin).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error, "not ready");
            ExitCode::FAILURE
        }
    }
}
