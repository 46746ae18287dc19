//! Settings: flags and environment variables of the same names, `.env` read when present, and all
//! problems reported at once, by name, before any port is bound.

use std::{ffi::OsString, fmt::Display, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{
    Arg, Command, FromArgMatches, Parser,
    error::{ContextKind, ContextValue, ErrorKind},
    value_parser,
};
use tokio::net::TcpListener;

use crate::{
    admin,
    lifecycle::{EXIT_BAD_CONFIG, Shutdown},
    queue::{
        RetryLadder, Topology,
        amqp::{self, Nodes},
    },
    telemetry::{self, LogFormat},
    trace::{self, TraceArgs},
};

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

impl ProcessArgs {
    /// Takes the admin port.
    ///
    /// # Errors
    /// It cannot be had; the text names the setting.
    pub async fn bind_admin(&self) -> Result<TcpListener, String> {
        bind("ADMIN_LISTEN", self.admin_listen).await
    }
}

/// Takes a port.
///
/// # Errors
/// It cannot be had; the text names the setting.
pub async fn bind(setting: &str, address: SocketAddr) -> Result<TcpListener, String> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("{setting}: cannot listen on {address}: {error}"))?;
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
        Err(problem) => {
            tracing::error!(problem, "not ready");
            ExitCode::FAILURE
        }
    }
}

/// Reads `.env` and the command line. Call it first in `main`, before any thread exists.
///
/// # Errors
/// What to exit with: 0 after `--help`, 64 after every problem was written to standard error.
pub fn parse<T: Parser>() -> Result<T, ExitCode> {
    parse_from(&std::env::args_os().collect::<Vec<_>>())
}

fn parse_from<T: Parser>(arguments: &[OsString]) -> Result<T, ExitCode> {
    let dotenv = match dotenvy::dotenv() {
        Ok(_) => None,
        Err(error) if error.not_found() => None,
        // The crate's own text repeats the line, which may hold a secret.
        Err(dotenvy::Error::LineParse(_, at)) => Some(format!(
            ".env: a line cannot be read near character {at}; quote values with spaces"
        )),
        Err(_) => Some(".env: the file cannot be read".to_owned()),
    };
    let parsed = try_parse(T::command(), arguments);
    match (parsed, dotenv) {
        (Ok(parsed), None) => Ok(parsed),
        (Err(Rejected::Usage(error)), _) => {
            // Help and version are wishes, everything else is a mistake.
            let _ = error.print();
            Err(if error.use_stderr() {
                EXIT_BAD_CONFIG.into()
            } else {
                ExitCode::SUCCESS
            })
        }
        (Ok(_), Some(problem)) => Err(report(&[problem])),
        (Err(Rejected::Settings(problems)), dotenv) => {
            let all: Vec<String> = dotenv.into_iter().chain(problems).collect();
            Err(report(&all))
        }
    }
}

/// Writes configuration problems to standard error; returns the exit code that says so.
#[expect(clippy::print_stderr, reason = "logs are not configured yet")]
pub fn report(problems: &[String]) -> ExitCode {
    let plural = if problems.len() == 1 {
        "problem"
    } else {
        "problems"
    };
    eprintln!("error: {} {plural} in the configuration", problems.len());
    for problem in problems {
        eprintln!("  - {problem}");
    }
    eprintln!("Settings are flags, environment variables, or lines of .env; see --help.");
    EXIT_BAD_CONFIG.into()
}

/// Why there are no settings.
enum Rejected {
    /// Help, or a command line that is none.
    Usage(clap::Error),
    /// Every setting that is missing or wrong.
    Settings(Vec<String>),
}

/// clap stops at the first bad value. So that all are told at once, the bad one is noted and from
/// then on taken as it is, and the line is read again.
fn try_parse<T: FromArgMatches>(
    mut command: Command,
    arguments: &[OsString],
) -> Result<T, Rejected> {
    let mut problems = Vec::new();
    let typed = arguments.get(1..).unwrap_or_default();
    loop {
        let error = match command.clone().try_get_matches_from(arguments) {
            Ok(matches) if problems.is_empty() => {
                return T::from_arg_matches(&matches).map_err(Rejected::Usage);
            }
            Ok(_) => return Err(Rejected::Settings(problems)),
            Err(error) => error,
        };
        let culprits = culprits(&error);
        let found = match error.kind() {
            ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
                let excuse = |arg: Arg| arg.value_parser(value_parser!(OsString));
                amend(chosen(&mut command, typed), &culprits, excuse, |arg| {
                    wrong(arg, &error)
                })
            }
            ErrorKind::MissingRequiredArgument => {
                let excuse = |arg: Arg| arg.required(false);
                amend(chosen(&mut command, typed), &culprits, excuse, missing)
            }
            _ => Vec::new(),
        };
        // Nothing new: another round would end the same.
        if found.iter().all(|problem| problems.contains(problem)) {
            return Err(Rejected::Usage(error));
        }
        problems.extend(found);
    }
}

/// The flags an error names: `--listen` of `--listen <ADDRESS>`.
fn culprits(error: &clap::Error) -> Vec<String> {
    let named = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(arg)) => std::slice::from_ref(arg),
        Some(ContextValue::Strings(args)) => args.as_slice(),
        _ => &[],
    };
    let flag = |arg: &String| arg.split([' ', '=']).next().map(str::to_owned);
    named.iter().filter_map(flag).collect()
}

/// The subcommand that was typed, or the command itself. Settings have the same names everywhere,
/// and are described where they are asked for.
fn chosen<'a>(command: &'a mut Command, typed: &[OsString]) -> &'a mut Command {
    let position = typed
        .iter()
        .position(|word| command.find_subcommand(word).is_some());
    match position {
        Some(at) => {
            let subcommand = command
                .find_subcommand_mut(&typed[at])
                .expect("it was found a moment ago");
            chosen(subcommand, &typed[at + 1..])
        }
        None => command,
    }
}

/// Changes the culprits, and describes each.
fn amend(
    command: &mut Command,
    culprits: &[String],
    change: impl Fn(Arg) -> Arg + Copy,
    describe: impl Fn(&Arg) -> String + Copy,
) -> Vec<String> {
    let mut described = Vec::new();
    let ids: Vec<_> = command
        .get_arguments()
        // Positional arguments are no settings: their mistakes are usage.
        .filter(|arg| arg.get_long().is_some() && culprits.contains(&flag(arg)))
        .map(|arg| (arg.get_id().clone(), describe(arg)))
        .collect();
    for (id, description) in ids {
        *command = std::mem::take(command).mut_arg(id, change);
        described.push(description);
    }
    described
}

fn flag(arg: &Arg) -> String {
    format!("--{}", arg.get_long().unwrap_or_default())
}

fn name(arg: &Arg) -> String {
    match arg.get_env() {
        Some(env) => format!("{} ({})", env.to_string_lossy(), flag(arg)),
        None => flag(arg),
    }
}

fn missing(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    format!("{} is not set. {help}", name(arg))
}

fn wrong(arg: &Arg, error: &clap::Error) -> String {
    use std::error::Error as _;
    let possible = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) => format!("use one of {}", values.join(", ")),
        _ => "it is not what this setting takes".to_owned(),
    };
    // The value itself may be a secret and is not repeated.
    let reason = error.source().map_or(possible, ToString::to_string);
    format!("{}: {reason}", name(arg))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[derive(Debug, Parser)]
    struct Settings {
        #[command(flatten)]
        amqp: AmqpArgs,
        #[command(flatten)]
        process: ProcessArgs,
    }

    fn parse(line: &str) -> Result<Settings, Vec<String>> {
        let line: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        // Nothing from the environment of the test.
        let command = Settings::command().mut_args(|arg| arg.env(None::<&str>));
        match try_parse(command, &line) {
            Ok(settings) => Ok(settings),
            Err(Rejected::Settings(problems)) => Err(problems),
            Err(Rejected::Usage(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn all_problems_are_told_at_once_and_no_value_is_repeated() {
        let problems = parse(
            "x --amqp-url http://me:hunter2@broker --admin-listen nowhere --log-format xml \
             --retry-delays 5s,1s --queue-prefix a/b",
        )
        .unwrap_err();
        assert_eq!(problems.len(), 5, "{problems:#?}");
        for name in [
            "--amqp-url",
            "--admin-listen",
            "--log-format",
            "--retry-delays",
            "--queue-prefix",
        ] {
            assert!(
                problems.iter().any(|problem| problem.contains(name)),
                "{name}: {problems:#?}"
            );
        }
        assert!(!problems.concat().contains("hunter2"), "{problems:#?}");
    }

    #[test]
    fn what_is_missing_is_told_together_with_what_is_wrong() {
        let problems = parse("x --admin-listen nowhere").unwrap_err();
        assert_eq!(problems.len(), 2, "{problems:#?}");
        assert!(
            problems
                .iter()
                .any(|problem| problem.starts_with("--amqp-url is not set"))
        );
    }

    #[test]
    fn a_setting_of_several_commands_is_described_for_the_one_that_was_typed() {
        #[derive(Debug, Parser)]
        enum Commands {
            #[command(subcommand)]
            Tables(Tables),
            /// Shares its name with a subcommand of the other.
            Up(ProcessArgs),
        }
        #[derive(Debug, clap::Subcommand)]
        enum Tables {
            Up(AmqpArgs),
        }
        let problems = |line: &str| {
            let line: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            match try_parse::<Commands>(Commands::command(), &line) {
                Err(Rejected::Settings(problems)) => problems,
                other => panic!("{:?}", other.map_err(|_| "usage")),
            }
        };
        assert_eq!(problems("x up --admin-listen nowhere").len(), 1);
        assert_eq!(
            problems("x tables up --queue-prefix a/b --amqp-url http://b").len(),
            2
        );
    }

    #[test]
    fn good_settings_are_taken() {
        let settings = parse("x --amqp-url amqp://broker --queue-prefix t1").unwrap();
        assert_eq!(settings.amqp.server().topology.apply(), "t1.apply");
        assert_eq!(settings.process.admin_listen.port(), 9464);
    }
}
