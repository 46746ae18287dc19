//! Whether every connection to the queue is up, as a gauge.

use std::sync::{Arc, PoisonError};

use super::Metrics;

impl Metrics {
    /// Announces one more connection to the queue, not up yet.
    #[must_use]
    pub fn queue_connection(self: &Arc<Self>) -> QueueConnection {
        let connection = QueueConnection {
            metrics: self.clone(),
            up: false,
        };
        connection.count(-1);
        connection
    }
}

/// One connection's share in `clerk_sync_queue_connected`.
pub struct QueueConnection {
    metrics: Arc<Metrics>,
    up: bool,
}

impl QueueConnection {
    /// Says whether the connection is up.
    pub fn set(&mut self, up: bool) {
        match (self.up, up) {
            (false, true) => self.count(1),
            (true, false) => self.count(-1),
            (false, false) | (true, true) => {}
        }
        self.up = up;
    }

    fn count(&self, change: i64) {
        let mut down = self
            .metrics
            .queue_down
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *down -= change;
        self.metrics.queue_connected.set(i64::from(*down == 0));
    }
}

impl Drop for QueueConnection {
    /// What nobody looks after any more is not up.
    fn drop(&mut self) {
        self.set(false);
    }
}
