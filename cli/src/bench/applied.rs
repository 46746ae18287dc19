//! When events are applied: how many so far, and when each was.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clerk_sync_entity::processed_events;
use hdrhistogram::Histogram;
use sea_orm::{ConnectionTrait as _, DatabaseConnection};
use tokio::time::sleep;

use super::{
    latency::{self, Latencies},
    load::Running,
    meter::{Meter, Spent},
    stock::Stock,
};

/// How often progress is looked at; a look costs the process some 50 µs.
const LOOK: Duration = Duration::from_millis(20);
/// Nothing applied for this long is a failure.
const STALL: Duration = Duration::from_secs(60);
/// How often the database is asked for rows. tokio's timers add up to a millisecond.
const ASK: Duration = Duration::from_millis(1);
/// Most events asked for at once.
const MOST_ASKED: usize = 256;

/// The admin ports of processes that apply.
pub(super) struct Counters {
    client: reqwest::Client,
    admin: Vec<SocketAddr>,
}

impl Counters {
    pub(super) fn new(admin: Vec<SocketAddr>) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(STALL).build()?;
        Ok(Self { client, admin })
    }

    /// Events that have an outcome, since the processes started.
    pub(super) async fn applied(&self) -> anyhow::Result<u64> {
        let mut total = 0;
        for admin in &self.admin {
            let answer = self.client.get(format!("http://{admin}/metrics")).send();
            total += sum(&answer.await?.text().await?, "clerk_sync_events_total");
        }
        Ok(total)
    }
}

/// Sum of a counter's series, in Prometheus' text format.
fn sum(text: &str, name: &str) -> u64 {
    let values = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, _) = series.split_once('{')?;
        (found == name).then(|| value.parse::<u64>().ok())?
    });
    values.sum()
}

/// A part of a run in which events were applied.
pub(super) struct Window {
    pub(super) events: u64,
    pub(super) spent: Spent,
}

/// Watches until `total()` are applied, and measures from when at least `warm_up` were.
pub(super) async fn measure(
    meter: &Meter,
    warm_up: u64,
    total: impl Fn() -> u64,
    mut applied: impl AsyncFnMut() -> anyhow::Result<u64>,
) -> anyhow::Result<Window> {
    let first = (applied().await?, meter.read());
    let mut begun = None;
    let mut progress = (0, Instant::now());
    loop {
        let count = applied().await?;
        if begun.is_none() && count >= warm_up {
            begun = Some((count, meter.read()));
        }
        if count >= total() {
            // All of it between two looks: too few events, but no reason to divide by zero.
            let (from, reading) = begun.filter(|(from, _)| *from < count).unwrap_or(first);
            anyhow::ensure!(
                from < count,
                "all {count} events were applied before anybody looked: take more of them"
            );
            return Ok(Window {
                events: count - from,
                spent: reading.until(&meter.read()),
            });
        }
        if count > progress.0 {
            progress = (count, Instant::now());
        }
        anyhow::ensure!(
            progress.1.elapsed() < STALL,
            "only {count} of {} events were applied, and none for {STALL:?}",
            total()
        );
        sleep(LOOK).await;
    }
}

/// Finds out when each event's row was there, by asking for those that are not yet. From the moment
/// that each was due; events of the warm-up are left out.
pub(super) async fn watch_rows(
    db: &DatabaseConnection,
    stock: &Stock,
    running: &Running,
    rate: f64,
) -> anyhow::Result<Latencies> {
    let mut histogram: Histogram<u64> = latency::histogram();
    let backend = db.get_database_backend();
    let total = stock.len();
    let mut pending: Vec<u64> = Vec::new();
    let mut next = 0;
    let mut progress = Instant::now();
    while next < total || !pending.is_empty() {
        let due = running.due(rate).min(total);
        pending.extend(next..due);
        next = due;
        pending.retain(|number| !running.is_given_up(*number));
        if !pending.is_empty() {
            let asked = &pending[..pending.len().min(MOST_ASKED)];
            let ids: Vec<String> = asked.iter().map(|number| stock.event_id(*number)).collect();
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            let rows = db
                .query_all(&processed_events::outcomes(backend, &ids))
                .await?;
            let now = Instant::now();
            for row in rows {
                let id: String = row.try_get_by_index(0)?;
                let number = stock.number(&id).context("an id that was not asked for")?;
                pending.retain(|pending| *pending != number);
                if let Some(latency) = running.since_due(number, rate, now) {
                    latency::record(&mut histogram, latency);
                }
                progress = now;
            }
        }
        anyhow::ensure!(
            pending.is_empty() || progress.elapsed() < STALL,
            "{} events were accepted and not applied within {STALL:?}",
            pending.len()
        );
        sleep(ASK).await;
    }
    Ok(Latencies::of(&histogram))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_over_at_the_second_look_is_measured_from_the_first() {
        let mut looks = [0, 500].into_iter().cycle();
        let meter = Meter::default();
        let measured = measure(&meter, 50, || 500, async || Ok(looks.next().unwrap_or(500)));
        let window = measured.await.unwrap();
        assert_eq!(window.events, 500);
        assert!(!window.spent.elapsed.is_zero());
    }

    #[tokio::test]
    async fn the_warm_up_is_not_measured() {
        let mut looks = [0, 40, 60, 500].into_iter();
        let meter = Meter::default();
        let measured = measure(&meter, 50, || 500, async || Ok(looks.next().unwrap_or(500)));
        assert_eq!(measured.await.unwrap().events, 440);
    }

    #[test]
    fn series_of_a_counter_are_summed_and_no_others() {
        let text = "# HELP clerk_sync_events_total x\n\
                    clerk_sync_events_total{outcome=\"created\",type=\"a\"} 3\n\
                    clerk_sync_events_total{outcome=\"updated\",type=\"a b\"} 4\n\
                    clerk_sync_events_total_other{a=\"b\"} 100\n";
        assert_eq!(sum(text, "clerk_sync_events_total"), 7);
    }
}
