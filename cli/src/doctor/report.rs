//! What was found: a line for each question, in groups.

use std::{process::ExitCode, time::Duration};

use serde::Serialize;

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// As it should be.
    Ok,
    /// Not asked: what it needs is not set, not there or not allowed. The text says which.
    Skipped,
    /// It works, and somebody should look.
    Warning,
    /// It does not work.
    Problem,
}

impl Status {
    pub(super) const ALL: [Self; 4] = [Self::Ok, Self::Skipped, Self::Warning, Self::Problem];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// The answer to a question.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Line {
    /// Which question: its name in docs/DOCTOR.md.
    pub(super) name: &'static str,
    pub(super) status: Status,
    /// What was found.
    pub(super) text: String,
    /// What to do about a warning or a problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cure: Option<String>,
    /// How long that took, where it is of interest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) took_ms: Option<u64>,
}

impl Line {
    pub(super) fn ok(name: &'static str, text: impl Into<String>) -> Self {
        Self::of(name, Status::Ok, text, None)
    }

    pub(super) fn skipped(name: &'static str, text: impl Into<String>) -> Self {
        Self::of(name, Status::Skipped, text, None)
    }

    pub(super) fn warning(
        name: &'static str,
        text: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self::of(name, Status::Warning, text, Some(cure.into()))
    }

    pub(super) fn problem(
        name: &'static str,
        text: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self::of(name, Status::Problem, text, Some(cure.into()))
    }

    fn of(
        name: &'static str,
        status: Status,
        text: impl Into<String>,
        cure: Option<String>,
    ) -> Self {
        Self {
            name,
            status,
            text: text.into(),
            cure,
            took_ms: None,
        }
    }

    pub(super) fn took(mut self, took: Duration) -> Self {
        self.took_ms = u64::try_from(took.as_millis()).ok();
        self
    }
}

/// Lines about one thing.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) name: &'static str,
    pub(super) lines: Vec<Line>,
}

impl Group {
    pub(super) fn new(name: &'static str, lines: Vec<Line>) -> Self {
        Self { name, lines }
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) groups: Vec<Group>,
    pub(super) took: Duration,
}

impl Report {
    fn lines(&self) -> impl Iterator<Item = &Line> {
        self.groups.iter().flat_map(|group| &group.lines)
    }

    pub(super) fn count(&self, status: Status) -> usize {
        self.lines().filter(|line| line.status == status).count()
    }

    fn worst(&self) -> Status {
        let of_interest = self.lines().map(|line| line.status);
        let worst = of_interest
            .filter(|status| *status != Status::Skipped)
            .max();
        worst.unwrap_or(Status::Ok)
    }

    /// 1 for a problem and, if told so, for a warning.
    pub(super) fn exit_code(&self, strict: bool) -> ExitCode {
        let least = if strict {
            Status::Warning
        } else {
            Status::Problem
        };
        if self.worst() >= least {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }

    /// For machines.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Json<'a> {
            status: Status,
            took_ms: u128,
            counts: serde_json::Map<String, serde_json::Value>,
            checks: Vec<Check<'a>>,
        }
        #[derive(Serialize)]
        struct Check<'a> {
            group: &'a str,
            #[serde(flatten)]
            line: &'a Line,
        }
        let counts =
            Status::ALL.map(|status| (status.as_str().to_owned(), self.count(status).into()));
        serde_json::to_string_pretty(&Json {
            status: self.worst(),
            took_ms: self.took.as_millis(),
            counts: counts.into_iter().collect(),
            checks: self
                .groups
                .iter()
                .flat_map(|Group { name: group, lines }| {
                    lines.iter().map(|line| Check { group, line })
                })
                .collect(),
        })
    }
}
