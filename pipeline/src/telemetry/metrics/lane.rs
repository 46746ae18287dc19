//! What a lane of the worker does, as a gauge.

use std::sync::Arc;

use super::Metrics;
use crate::telemetry::LaneState;

/// One lane's share in `clerk_sync_lanes`.
pub struct LaneGauge {
    metrics: Arc<Metrics>,
    state: LaneState,
}

impl Metrics {
    /// Announces one more lane, idle. It is gone when the gauge is dropped.
    #[must_use]
    pub fn lane(self: &Arc<Self>) -> LaneGauge {
        self.lanes.get(LaneState::Idle).inc();
        LaneGauge {
            metrics: self.clone(),
            state: LaneState::Idle,
        }
    }
}

impl LaneGauge {
    /// Says what the lane does from now on.
    pub fn set(&mut self, state: LaneState) {
        self.metrics.lanes.get(self.state).dec();
        self.metrics.lanes.get(state).inc();
        self.state = state;
    }
}

impl Drop for LaneGauge {
    fn drop(&mut self) {
        self.metrics.lanes.get(self.state).dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lane_is_counted_in_one_state() {
        let metrics = Arc::new(Metrics::new(0));
        let counts = || {
            let text = String::from_utf8(metrics.render()).unwrap();
            let lines = text
                .lines()
                .filter(|line| line.starts_with("clerk_sync_lanes{"));
            let count = |line: &str| line.rsplit(' ').next().unwrap().to_owned();
            lines.map(count).collect::<Vec<_>>().join(" ")
        };
        let mut first = metrics.lane();
        let second = metrics.lane();
        // By label: busy, idle, paused.
        assert_eq!(counts(), "0 2 0");
        first.set(LaneState::Busy);
        assert_eq!(counts(), "1 1 0");
        first.set(LaneState::Paused);
        assert_eq!(counts(), "0 1 1");
        drop((first, second));
        assert_eq!(counts(), "0 0 0");
    }
}
