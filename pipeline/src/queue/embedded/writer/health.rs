//! Whether one kind of transaction succeeds.

use rusqlite::Error;

use super::file;
use crate::retry::Backoff;

/// Told in the log when it changes, and only then.
///
/// On a full disk some transactions still succeed: a small one, or one that finds the log folded.
/// That is no recovery, and who says so takes it back a moment later. So a problem that is about
/// room ends with a trial that takes some ([`file::try_for_room`]), any other with a success.
pub(super) struct Health {
    operation: &'static str,
    /// What is told.
    problem: Option<String>,
    wants_room: bool,
    /// Whether the last one failed.
    pub(super) is_failing: bool,
    /// Delays between tries while it does.
    pub(super) backoff: Backoff,
}

impl Health {
    pub(super) fn new(operation: &'static str) -> Self {
        Self {
            operation,
            problem: None,
            wants_room: false,
            is_failing: false,
            backoff: Backoff::weather(),
        }
    }

    /// What is wrong, if something is.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// The result with the text for those who asked; SQLite's messages hold no values.
    pub(super) fn note(&mut self, committed: rusqlite::Result<()>) -> Result<(), String> {
        if let Err(error) = committed {
            return Err(self.failed(&error));
        }
        if self.is_failing {
            self.is_failing = false;
            self.backoff.reset();
        }
        if !self.wants_room {
            self.recovered();
        }
        Ok(())
    }

    fn failed(&mut self, error: &Error) -> String {
        if self.problem.is_none() {
            let operation = self.operation;
            tracing::error!(operation, %error, "the queue's file cannot be written");
        }
        self.is_failing = true;
        self.wants_room |= file::is_about_room(error);
        let problem = format!("its file cannot be written: {error}");
        self.problem = Some(problem.clone());
        problem
    }

    /// A trial has succeeded, or what failed is not about room.
    pub(super) fn recovered(&mut self) {
        self.wants_room = false;
        if self.problem.take().is_some() {
            let operation = self.operation;
            tracing::info!(operation, "the queue's file can be written again");
        }
    }
}
