//! What is told of a collector that takes no traces: once when it begins, and once when it is over.

use std::sync::{Mutex, PoisonError};

use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SpanData, SpanExporter},
};

/// Hands spans to an exporter, and tells what becomes of them.
#[derive(Debug)]
pub(super) struct Watched<E> {
    exporter: E,
    outage: Mutex<Outage>,
}

/// While none were taken: how many spans are lost.
#[derive(Debug, Default)]
struct Outage(Option<usize>);

/// What is worth telling.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Begins,
    GoesOn,
    IsOver { lost: usize },
}

impl Outage {
    fn next(&mut self, spans: usize, are_taken: bool) -> Option<News> {
        match (self.0, are_taken) {
            (None, true) => None,
            (None, false) => {
                self.0 = Some(spans);
                Some(News::Begins)
            }
            (Some(lost), false) => {
                self.0 = Some(lost + spans);
                Some(News::GoesOn)
            }
            (Some(lost), true) => {
                self.0 = None;
                Some(News::IsOver { lost })
            }
        }
    }
}

impl<E> Watched<E> {
    pub(super) fn new(exporter: E) -> Self {
        let outage = Mutex::default();
        Self { exporter, outage }
    }
}

impl<E: SpanExporter> SpanExporter for Watched<E> {
    /// Always well: what is not is told here, and OpenTelemetry would log each failure as an error.
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let sent = self.exporter.export(batch).await;
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        let error = sent.as_ref().err().map(ToString::to_string);
        match outage.next(spans, sent.is_ok()) {
            None => {}
            Some(News::Begins) => {
                tracing::warn!(
                    error,
                    "the collector takes no traces; until it does, they are lost"
                );
            }
            Some(News::GoesOn) => tracing::debug!(error, "the collector still takes no traces"),
            Some(News::IsOver { lost }) => {
                tracing::info!(lost, "the collector takes traces again");
            }
        }
        Ok(())
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.exporter.shutdown()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_once_however_long_it_lasts() {
        let mut outage = Outage::default();
        assert_eq!(outage.next(3, true), None);
        assert_eq!(outage.next(3, false), Some(News::Begins));
        for _ in 0..5 {
            assert_eq!(outage.next(2, false), Some(News::GoesOn));
        }
        assert_eq!(outage.next(1, true), Some(News::IsOver { lost: 13 }));
        assert_eq!(outage.next(1, true), None);
        assert_eq!(outage.next(1, false), Some(News::Begins));
    }
}
