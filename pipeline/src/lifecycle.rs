//! When a process stops: politely at the first signal, by force at the second or after the grace
//! period.

use std::{future::Future, io, process::ExitCode, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

/// Time from the first signal to the end by force. Orchestrators kill after 30 s.
pub const GRACE: Duration = Duration::from_secs(25);

/// Exit code of a process that could not be configured (`EX_USAGE`).
pub const EXIT_BAD_CONFIG: u8 = 64;

/// The wish to stop, shared by all tasks of a process. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    requested: CancellationToken,
    forced: CancellationToken,
}

impl Shutdown {
    /// Stops when SIGTERM or SIGINT arrives.
    ///
    /// # Errors
    /// The process may not listen for signals.
    pub fn on_signals() -> io::Result<Self> {
        let shutdown = Self::default();
        let term = signal(SignalKind::terminate())?;
        let int = signal(SignalKind::interrupt())?;
        tokio::spawn(shutdown.clone().listen(term, int));
        Ok(shutdown)
    }

    /// Asks everything to finish what it has begun.
    pub fn request(&self) {
        self.requested.cancel();
    }

    /// Resolves once stopping was asked for.
    pub async fn requested(&self) {
        self.requested.cancelled().await;
    }

    /// Whether stopping was asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.requested.is_cancelled()
    }

    /// A process's life: `process` to its end, or to the end by force.
    ///
    /// Logs the failure, and returns the exit code: 0 stopped cleanly, 1 failed or forced.
    pub async fn supervise<E: std::fmt::Display>(
        &self,
        process: impl Future<Output = Result<(), E>>,
    ) -> ExitCode {
        tokio::select! {
            result = process => match result {
                Ok(()) => {
                    tracing::info!("stopped");
                    ExitCode::SUCCESS
                }
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "failed");
                    ExitCode::FAILURE
                }
            },
            () = self.forced.cancelled() => {
                tracing::error!("stopped by force: unsettled deliveries will come again");
                ExitCode::FAILURE
            }
        }
    }

    async fn listen(self, mut term: Signal, mut int: Signal) {
        let name = next_signal(&mut term, &mut int).await;
        tracing::info!(signal = name, grace_s = GRACE.as_secs(), "stopping");
        self.request();
        tokio::select! {
            name = next_signal(&mut term, &mut int) => {
                tracing::warn!(signal = name, "second signal");
            }
            () = sleep(GRACE) => tracing::warn!("the grace period is over"),
        }
        self.forced.cancel();
    }
}

async fn next_signal(term: &mut Signal, int: &mut Signal) -> &'static str {
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    }
}
