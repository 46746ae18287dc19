//! Whether one kind of transaction succeeds.

use rusqlite::Error;

use super::file;
use crate::retry::Backoff;

/// Told in the log when it changes, and only then.
///
/// On a full disk some transactions still succeed: a small one, or one that finds the log folded.
/// That is no recovery, and who says so takes it back a moment later. So a problem that may be a
/// full disk ends with a probe that takes some room ([`file::probe_disk`]), any other with a success.
pub(super) struct Health {
    operation: &'static str,
    /// What is told.
    problem: Option<String>,
    is_disk_full: bool,
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
            is_disk_full: false,
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
        if !self.is_disk_full {
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
        self.is_disk_full |= file::may_be_disk_full(error);
        let problem = format!("its file cannot be written: {error}");
        self.problem = Some(problem.clone());
        problem
    }

    /// A probe has found room, or what failed had nothing to do with it.
    pub(super) fn recovered(&mut self) {
        self.is_disk_full = false;
        if self.problem.take().is_some() {
            let operation = self.operation;
            tracing::info!(operation, "the queue's file can be written again");
        }
    }
}
