//! Metrics in Prometheus' text format, as our processes write them: what has happened since the last
//! look.

use std::collections::BTreeMap;

use crate::{
    delta::{BOUNDS, Delta, Latencies},
    source::Look,
};

/// The counters of one process, as they were at the last look.
#[derive(Default)]
pub(crate) struct Target(Option<Counters>);

#[derive(Clone, Default)]
struct Counters {
    requests: BTreeMap<String, u64>,
    outcomes: BTreeMap<String, u64>,
    /// By bound, each with those below it, as Prometheus writes them.
    buckets: [u64; BOUNDS.len()],
    latencies: u64,
}

impl Target {
    /// Adds what has happened since the last look. The first look is where counting begins.
    pub(crate) fn advance(&mut self, text: &str, look: &mut Look) {
        let mut counters = Counters::default();
        for sample in text.lines().filter_map(Sample::parse) {
            counters.take(&sample, look);
        }
        let before = self.0.replace(counters.clone());
        let delta = before.map_or_else(
            || Delta {
                requests: Some(BTreeMap::new()),
                ..Delta::default()
            },
            |before| counters.since(&before),
        );
        look.delta.merge(&delta);
    }
}

impl Counters {
    fn take(&mut self, sample: &Sample<'_>, look: &mut Look) {
        match sample.name {
            "clerk_sync_webhook_requests_total" => {
                add(&mut self.requests, sample.label("outcome"), sample.count());
            }
            "clerk_sync_events_total" => {
                add(&mut self.outcomes, sample.label("outcome"), sample.count());
            }
            "clerk_sync_sync_latency_seconds_bucket" => {
                let bound: Option<f64> = sample.label("le").parse().ok();
                let place = BOUNDS.iter().position(|known| Some(*known) == bound);
                if let Some(place) = place {
                    self.buckets[place] = sample.count();
                }
            }
            "clerk_sync_sync_latency_seconds_count" => self.latencies = sample.count(),
            "clerk_sync_last_verified_event_timestamp_seconds" => {
                let last = look.last_verified.unwrap_or(0.0);
                look.last_verified = Some(last.max(sample.value));
            }
            "clerk_sync_queue_connected" => {
                let others = look.connected.unwrap_or(true);
                look.connected = Some(others && sample.value > 0.0);
            }
            _ => {}
        }
    }

    /// A process that was started anew counts from 0.
    fn since(&self, before: &Self) -> Delta {
        let since = |now: u64, then: u64| now.checked_sub(then).unwrap_or(now);
        let each = |now: &BTreeMap<String, u64>, then: &BTreeMap<String, u64>| {
            let counts = now.iter().map(|(name, count)| {
                let then = then.get(name).copied().unwrap_or(0);
                (name.clone(), since(*count, then))
            });
            counts.filter(|(_, count)| *count > 0).collect()
        };
        let restarted = self.latencies < before.latencies;
        let mut counts = [0; BOUNDS.len() + 1];
        let mut below = 0;
        for (place, count) in counts.iter_mut().enumerate() {
            let of = |counters: &Self| {
                counters
                    .buckets
                    .get(place)
                    .copied()
                    .unwrap_or(counters.latencies)
            };
            let then = if restarted { 0 } else { of(before) };
            let up_to_here = of(self).saturating_sub(then);
            *count = up_to_here.saturating_sub(below);
            below = up_to_here.max(below);
        }
        Delta {
            requests: Some(each(&self.requests, &before.requests)),
            outcomes: each(&self.outcomes, &before.outcomes),
            latencies: Latencies::counted(counts),
        }
    }
}

fn add(counts: &mut BTreeMap<String, u64>, name: &str, count: u64) {
    *counts.entry(name.to_owned()).or_default() += count;
}

/// A line of Prometheus' text format, as our processes write it: no escapes in labels.
struct Sample<'a> {
    name: &'a str,
    labels: &'a str,
    value: f64,
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}')?),
            None => (series, ""),
        };
        Some(Self {
            name,
            labels,
            value: value.parse().ok()?,
        })
    }

    fn label(&self, name: &str) -> &'a str {
        let mut pairs = self
            .labels
            .split(',')
            .filter_map(|pair| pair.split_once('='));
        let found = pairs.find(|(found, _)| *found == name);
        found.map_or("", |(_, value)| value.trim_matches('"'))
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count is whole and not negative"
    )]
    fn count(&self) -> u64 {
        self.value.max(0.0) as u64
    }
}

#[cfg(test)]
mod tests {
    use clerk_sync_pipeline::telemetry::{EventKind, Metrics, Outcome, WebhookOutcome};

    use super::*;

    fn look(target: &mut Target, metrics: &Metrics) -> Look {
        let mut look = Look::default();
        target.advance(&String::from_utf8(metrics.render()).unwrap(), &mut look);
        look
    }

    #[test]
    fn what_has_happened_between_two_looks_is_told() {
        let metrics = Metrics::new(1);
        let mut target = Target::default();
        metrics.webhook_requests.get(WebhookOutcome::Accepted).inc();
        // What was before the first look is not of the last hour.
        assert_eq!(look(&mut target, &metrics).delta.accepted(), Some(0));
        metrics
            .webhook_requests
            .get(WebhookOutcome::Accepted)
            .inc_by(3);
        metrics
            .webhook_requests
            .get(WebhookOutcome::SignatureMismatch)
            .inc();
        metrics
            .events
            .get(EventKind::UserCreated, Outcome::Created)
            .inc_by(2);
        metrics.events.get(EventKind::Other, Outcome::Created).inc();
        metrics.last_verified_event.set(12.5);
        for seconds in [0.03, 0.03, 0.03, 200_000.0] {
            metrics.sync_latency.observe(seconds);
        }
        let seen = look(&mut target, &metrics);
        assert_eq!(seen.delta.accepted(), Some(3));
        assert_eq!(seen.delta.refused(), Some(1));
        assert_eq!(seen.delta.outcome("created"), 3);
        assert_eq!(seen.last_verified, Some(12.5));
        assert_eq!(seen.connected, Some(false), "no connection was announced");
        let median = seen.delta.latencies.quantile(0.5).unwrap();
        assert!((0.025..=0.05).contains(&median), "{median}");
        assert_eq!(seen.delta.latencies.quantile(1.0), BOUNDS.last().copied());

        // Nothing since; then a process that was started anew.
        assert_eq!(look(&mut target, &metrics).delta.handled(), 0);
        let anew = Metrics::new(1);
        anew.events
            .get(EventKind::UserCreated, Outcome::Stale)
            .inc();
        anew.sync_latency.observe(0.001);
        let seen = look(&mut target, &anew);
        assert_eq!((seen.delta.handled(), seen.delta.outcome("stale")), (1, 1));
        assert_eq!(seen.delta.latencies.quantile(1.0), Some(0.002_5));
    }
}
