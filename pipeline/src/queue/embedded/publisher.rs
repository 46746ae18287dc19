//! The ingester's side: a permit, a command, and the answer after the sync.

use std::time::Instant;

use tokio::{sync::mpsc::error::TrySendError, time::timeout};

use super::{
    CLOSED, Handle,
    command::{Answer, Command},
};
use crate::{
    event::Event,
    queue::{CONFIRM_TIMEOUT, Publish, PublishError},
};

/// Publishes into the file.
#[derive(Clone)]
pub struct EmbeddedPublisher(Handle);

impl EmbeddedPublisher {
    pub(super) fn new(queue: Handle) -> Self {
        Self(queue)
    }
}

impl Publish for EmbeddedPublisher {
    async fn publish(&self, event: Event) -> Result<(), PublishError> {
        let queue = &self.0;
        let started = Instant::now();
        let Ok(permit) = queue.permits.clone().try_acquire_owned() else {
            return Err(PublishError::Overloaded);
        };
        let (answer, confirmed) = Answer::new();
        // The permit travels with the event: a request that gives up does not make room.
        queue
            .commands
            .try_send(Command::Publish {
                event,
                answer,
                permit,
            })
            .map_err(|refused| match refused {
                TrySendError::Full(_) => PublishError::Overloaded,
                TrySendError::Closed(_) => PublishError::Unavailable(CLOSED.to_owned()),
            })?;
        // Answered after the commit, and the commit is after the fsync.
        match timeout(CONFIRM_TIMEOUT, confirmed).await {
            Ok(Ok(Ok(()))) => {
                queue
                    .metrics
                    .publish_duration
                    .observe(started.elapsed().as_secs_f64());
                Ok(())
            }
            Ok(Ok(Err(detail))) => Err(PublishError::Unavailable(detail)),
            Ok(Err(_)) => Err(PublishError::Unavailable(CLOSED.to_owned())),
            Err(_) => Err(PublishError::Unavailable(format!(
                "no commit in {CONFIRM_TIMEOUT:?}"
            ))),
        }
    }
}
