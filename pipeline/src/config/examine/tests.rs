use clap::CommandFactory as _;

use super::*;
use crate::config::{AmqpArgs, ProcessArgs};

#[derive(Debug, Parser)]
struct Settings {
    #[command(flatten)]
    amqp: AmqpArgs,
    #[command(flatten)]
    process: ProcessArgs,
}

fn words(line: &str) -> Vec<OsString> {
    line.split(' ').map(OsString::from).collect()
}

/// Without anything from the environment of the test.
fn command() -> Command {
    Settings::command().mut_args(|arg| arg.env(None::<&str>))
}

fn told(wrong: &[WrongSetting]) -> Vec<String> {
    wrong.iter().map(ToString::to_string).collect()
}

fn parse(line: &str) -> Result<Settings, Vec<String>> {
    match read::<Settings>(command(), &words(line)) {
        Ok(examined) => {
            assert_eq!(examined.wrong, []);
            Ok(examined.args)
        }
        Err(Rejected::Settings(problems)) => Err(told(&problems)),
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
            .any(|problem| problem.starts_with("--amqp-url: it is not set"))
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
    let problems = |line: &str| match read::<Commands>(Commands::command(), &words(line)) {
        Err(Rejected::Settings(problems)) => problems,
        other => panic!("{:?}", other.map_err(|_| "usage")),
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

/// What cargo has set for every test, and what none of the settings takes.
const WRONG: [&str; 3] = ["CARGO_PKG_NAME", "CARGO_PKG_VERSION", "CARGO_MANIFEST_DIR"];

/// Settings of which the environment has something wrong.
fn with_wrong_environment(settings: &[&'static str]) -> Command {
    let wrong = settings.iter().zip(WRONG);
    wrong.fold(command(), |command, (setting, variable)| {
        command.mut_arg(setting, |arg| arg.env(variable))
    })
}

#[test]
fn what_the_environment_has_wrong_is_told_and_left_out() {
    let command = with_wrong_environment(&["admin_listen", "retry_delays", "log_format"]);
    let examined = read::<Settings>(command, &words("x --amqp-url amqp://broker"));
    let Ok(Examined { args, wrong }) = examined else {
        panic!("the settings that are right make a whole");
    };
    let names: Vec<&str> = wrong.iter().map(|wrong| wrong.name.as_str()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(WRONG.iter().all(|name| names.contains(name)), "{names:?}");
    assert_eq!(args.process.admin_listen.port(), 9464);
    assert_eq!(
        args.amqp.topology.retry_delays.to_string(),
        "5s,30s,2m,10m,1h"
    );
}

#[test]
fn what_must_be_there_and_is_wrong_is_told_once_and_leaves_nothing() {
    let command = with_wrong_environment(&["amqp_url"]);
    match read::<Settings>(command, &words("x")) {
        Err(Rejected::Settings(wrong)) => {
            let [only] = wrong.as_slice() else {
                panic!("{wrong:?}")
            };
            assert!(!only.reason.contains("not set"), "{only}");
            assert!(only.to_string().contains("(--amqp-url)"), "{only}");
        }
        other => panic!("{:?}", other.map_err(|_| "usage")),
    }
}

#[test]
fn what_is_typed_wrong_leaves_nothing() {
    let command = with_wrong_environment(&["admin_listen"]);
    let line = words("x --amqp-url amqp://broker --log-format=xml");
    match read::<Settings>(command, &line) {
        Err(Rejected::Settings(wrong)) => assert_eq!(wrong.len(), 2, "{wrong:?}"),
        other => panic!("{:?}", other.map_err(|_| "usage")),
    }
}
