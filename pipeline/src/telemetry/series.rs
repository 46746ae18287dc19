//! Families of series, each series found without a lookup; and their registration.

use std::marker::PhantomData;

use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use super::Label;

/// One gauge for each value of a label.
pub struct Gauges<L>(Vec<IntGauge>, PhantomData<L>);

impl<L: Label> Gauges<L> {
    pub(super) fn register(registry: &Registry, name: &str, help: &str, label: &str) -> Self {
        let family = register(registry, IntGaugeVec::new(Opts::new(name, help), &[label]));
        let each = L::ALL
            .iter()
            .map(|value| family.with_label_values(&[value.as_str()]));
        Self(each.collect(), PhantomData)
    }

    /// The gauge of one value.
    #[must_use]
    pub fn get(&self, value: L) -> &IntGauge {
        &self.0[value.index()]
    }
}

/// One counter for each value of a label, found without a lookup.
pub struct Counters<L>(Vec<IntCounter>, PhantomData<L>);

impl<L: Label> Counters<L> {
    pub(super) fn register(registry: &Registry, name: &str, help: &str, label: &str) -> Self {
        let family = counter_vec(registry, name, help, &[label]);
        let each = L::ALL
            .iter()
            .map(|value| family.with_label_values(&[value.as_str()]));
        Self(each.collect(), PhantomData)
    }

    /// The counter of one value.
    #[must_use]
    pub fn get(&self, value: L) -> &IntCounter {
        &self.0[value.index()]
    }
}

/// One counter for each pair of values of two labels.
pub struct CounterGrid<A, B>(Vec<Counters<B>>, PhantomData<A>);

impl<A: Label, B: Label> CounterGrid<A, B> {
    pub(super) fn register(registry: &Registry, name: &str, help: &str, labels: [&str; 2]) -> Self {
        let family = counter_vec(registry, name, help, &labels);
        let row = |a: &A| {
            let pair = |b: &B| family.with_label_values(&[a.as_str(), b.as_str()]);
            Counters(B::ALL.iter().map(pair).collect(), PhantomData)
        };
        Self(A::ALL.iter().map(row).collect(), PhantomData)
    }

    /// The counter of one pair.
    #[must_use]
    pub fn get(&self, a: A, b: B) -> &IntCounter {
        self.0[a.index()].get(b)
    }
}

pub(super) fn register<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<C>,
) -> C {
    let metric = metric.expect("the metric's name and labels are constants and valid");
    registry
        .register(Box::new(metric.clone()))
        .expect("each metric is registered once");
    metric
}

pub(super) fn counter_vec(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

pub(super) fn gauge(registry: &Registry, name: &str, help: &str) -> Gauge {
    register(registry, Gauge::new(name, help))
}

pub(super) fn int_gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::new(name, help))
}

pub(super) fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    register(registry, Histogram::with_opts(options))
}
