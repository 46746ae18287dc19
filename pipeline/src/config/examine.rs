//! Reading settings: all that is wrong with them, not only the first.

use std::{collections::HashSet, ffi::OsString, fmt, process::ExitCode};

use clap::{
    Arg, Command, FromArgMatches, Id, Parser,
    error::{ContextKind, ContextValue, ErrorKind},
    value_parser,
};

use crate::lifecycle::EXIT_BAD_CONFIG;

/// A setting that is wrong or missing. Its value is not in it: that may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongSetting {
    /// Its name in the environment, the flag where it has none, `.env` for the file as such.
    pub name: String,
    /// What is wrong and, after a semicolon, what to do.
    pub reason: String,
    /// Flag or file, if that is not its name.
    beside: Option<String>,
}

impl fmt::Display for WrongSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(flag) = &self.beside {
            write!(f, " ({flag})")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// Settings, and what is wrong with those of the environment.
#[derive(Debug)]
pub struct Examined<T> {
    /// The settings. One that is wrong in the environment is as if it were not set.
    pub args: T,
    /// Every one of those, by name.
    pub wrong: Vec<WrongSetting>,
}

/// Reads `.env` and the command line. Call it first in `main`, before any thread exists.
///
/// # Errors
/// What to exit with: 0 after `--help`, 64 after every problem was written to standard error.
pub fn parse<T: Parser>() -> Result<T, ExitCode> {
    let Examined { args, wrong } = examine::<T>()?;
    if wrong.is_empty() {
        Ok(args)
    } else {
        Err(report(&wrong))
    }
}

/// As [`parse`], for whoever can go on without the settings that the environment has wrong.
///
/// # Errors
/// As for [`parse`]: a wish for help, a command line that is none, a setting that is missing.
pub fn examine<T: Parser>() -> Result<Examined<T>, ExitCode> {
    let dotenv = match dotenvy::dotenv() {
        Ok(_) => None,
        Err(error) if error.not_found() => None,
        // The crate's own text repeats the line, which may hold a secret.
        Err(dotenvy::Error::LineParse(_, at)) => Some(format!(
            "a line cannot be read near character {at}; quote values with spaces"
        )),
        Err(_) => Some("the file cannot be read".to_owned()),
    };
    let dotenv = dotenv.map(|reason| WrongSetting {
        name: ".env".to_owned(),
        reason,
        beside: None,
    });
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match read(T::command(), &arguments) {
        Ok(mut examined) => {
            examined.wrong.splice(0..0, dotenv);
            Ok(examined)
        }
        Err(Rejected::Usage(error)) => {
            // Help and version are wishes, everything else is a mistake.
            let _ = error.print();
            Err(if error.use_stderr() {
                EXIT_BAD_CONFIG.into()
            } else {
                ExitCode::SUCCESS
            })
        }
        Err(Rejected::Settings(wrong)) => {
            let all: Vec<_> = dotenv.into_iter().chain(wrong).collect();
            Err(report(&all))
        }
    }
}

/// Writes configuration problems to standard error; returns the exit code that says so.
#[expect(clippy::print_stderr, reason = "logs are not configured yet")]
pub fn report(problems: &[impl fmt::Display]) -> ExitCode {
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
    Settings(Vec<WrongSetting>),
}

/// What a setting is let off, so that the line can be read again for the next problem.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Excuse {
    /// Its value in the environment: it goes on as if it were not set.
    Environment,
    /// Its value, whatever it is.
    Value,
    /// Being there.
    Absence,
}

impl Excuse {
    fn apply(self, arg: Arg) -> Arg {
        match self {
            Self::Environment => arg.env(None::<&str>),
            Self::Value => arg.value_parser(value_parser!(OsString)),
            Self::Absence => arg.required(false),
        }
    }
}

/// clap stops at the first bad value. So that all are told at once, the bad one is noted and
/// excused, and the line is read again.
fn read<T: FromArgMatches>(
    mut command: Command,
    arguments: &[OsString],
) -> Result<Examined<T>, Rejected> {
    let mut wrong: Vec<WrongSetting> = Vec::new();
    let mut excused: HashSet<(Id, Excuse)> = HashSet::new();
    let typed = arguments.get(1..).unwrap_or_default();
    loop {
        let error = match command.clone().try_get_matches_from(arguments) {
            // What was typed wrong, or is missing, leaves no settings to go on with.
            Ok(_) if excused.iter().any(|(_, it)| *it != Excuse::Environment) => {
                return Err(Rejected::Settings(wrong));
            }
            Ok(matches) => {
                let args = T::from_arg_matches(&matches).map_err(Rejected::Usage)?;
                return Ok(Examined { args, wrong });
            }
            Err(error) => error,
        };
        let is_missing = match error.kind() {
            ErrorKind::ValueValidation | ErrorKind::InvalidValue => false,
            ErrorKind::MissingRequiredArgument => true,
            _ => return Err(Rejected::Usage(error)),
        };
        let mut progress = false;
        let chosen = chosen(&mut command, typed);
        for (id, problem) in described(chosen, &culprits(&error), is_missing, &error) {
            let excuse = if is_missing {
                Excuse::Absence
            } else if is_typed(typed, &flag_of(chosen, &id))
                || excused.contains(&(id.clone(), Excuse::Environment))
            {
                Excuse::Value
            } else {
                Excuse::Environment
            };
            // Without its bad value a setting that must be there is missing: that is told already.
            let told = excused.iter().any(|(told, _)| *told == id);
            progress |= excused.insert((id.clone(), excuse));
            *chosen = std::mem::take(chosen).mut_arg(id, |arg| excuse.apply(arg));
            if !told {
                wrong.push(problem);
            }
        }
        // Another round would end the same.
        if !progress {
            return Err(Rejected::Usage(error));
        }
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

/// Whether a flag stands in the command line.
fn is_typed(typed: &[OsString], flag: &str) -> bool {
    let is_it = |word: &str| {
        let rest = word.strip_prefix(flag);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    };
    typed.iter().filter_map(|word| word.to_str()).any(is_it)
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

/// The settings among the culprits, and what is wrong with each.
fn described(
    command: &Command,
    culprits: &[String],
    is_missing: bool,
    error: &clap::Error,
) -> Vec<(Id, WrongSetting)> {
    command
        .get_arguments()
        // Positional arguments are no settings: their mistakes are usage.
        .filter(|arg| arg.get_long().is_some() && culprits.contains(&flag(arg)))
        .map(|arg| {
            let reason = if is_missing {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                format!("it is not set. {help}")
            } else {
                reason(error)
            };
            (arg.get_id().clone(), wrong(arg, reason))
        })
        .collect()
}

fn flag_of(command: &Command, id: &Id) -> String {
    let mut arguments = command.get_arguments();
    let found = arguments.find(|arg| arg.get_id() == id);
    found.map(flag).unwrap_or_default()
}

fn flag(arg: &Arg) -> String {
    format!("--{}", arg.get_long().unwrap_or_default())
}

fn wrong(arg: &Arg, reason: String) -> WrongSetting {
    let (name, beside) = match arg.get_env() {
        Some(env) => (env.to_string_lossy().into_owned(), Some(flag(arg))),
        None => (flag(arg), None),
    };
    WrongSetting {
        name,
        reason,
        beside,
    }
}

/// Why a value is wrong. The value itself is not repeated.
fn reason(error: &clap::Error) -> String {
    use std::error::Error as _;
    let possible = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) => format!("use one of {}", values.join(", ")),
        _ => "it is not what this setting takes".to_owned(),
    };
    error.source().map_or(possible, ToString::to_string)
}

#[cfg(test)]
mod tests;
