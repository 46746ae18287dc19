//! `bench ingest`: requests to durable messages.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clerk_sync_pipeline::queue::amqp::Nodes;
use tokio::time::{sleep, sleep_until};

use super::{
    Common, WARM_UP,
    applied::Window,
    audit::Audit,
    load::{Load, Sent},
    meter::Meter,
    raw_publish::{Amount, RawPublisher},
    report::Report,
    schedule::{Extent, Pace},
    site::{Site, Started},
    stock::{Stock, Users},
    summary::Run,
};

const BARE: &str = "bare hyper + verify";
const RAW: &str = "raw lapin + confirm";
const INGEST: &str = "ingest";

/// Requests that are signed before a run; it sends them again when they are used up, which neither
/// the ingester nor the broker takes amiss.
const SIGNED: u64 = 1 << 16;
/// How long a queue's count may lag behind its confirms.
const COUNT_LAG: Duration = Duration::from_secs(5);

/// Measure the ingester: signed requests until they are confirmed by RabbitMQ
///
/// Beside it, in turn: a bare hyper server that verifies and keeps nothing, and bare publishes with
/// as many outstanding as there are connections. Uses queues of its own, which it removes.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  clerk-sync bench ingest
  clerk-sync bench ingest --connections 256 --seconds 20 --rounds 5
  clerk-sync bench ingest --rate 60000 --connections 2048     (overload)")]
pub(crate) struct IngestArgs {
    #[command(flatten)]
    common: Common,
    /// Another run with this many requests offered a second, whatever is answered
    #[arg(long, value_name = "PER_SECOND", value_parser = super::rate)]
    rate: Option<f64>,
    /// RabbitMQ
    #[arg(long, env, hide_env_values = true, value_name = "URLS")]
    amqp_url: Nodes,
}

impl IngestArgs {
    pub(super) fn common(&self) -> &Common {
        &self.common
    }

    pub(super) async fn site(&self) -> anyhow::Result<Site> {
        Site::make(Some(self.amqp_url.clone()), None).await
    }

    pub(super) async fn run(&self, site: &Site, say: impl Fn(String)) -> anyhow::Result<Report> {
        let versions = site.versions().await?;
        let mut runs = Vec::new();
        let offered = self.rate.map(|rate| format!("{rate} /s offered"));
        for round in 1..=self.common.rounds {
            say(format!("round {round}: {BARE}"));
            runs.push(self.bare(site, round).await?);
            say(format!("round {round}: {RAW}"));
            runs.push(self.raw(site, round).await?);
            say(format!("round {round}: {INGEST}"));
            runs.push(self.ingest(site, round, INGEST, Pace::Closed).await?);
            if let (Some(name), Some(rate)) = (&offered, self.rate) {
                say(format!("round {round}: {name}"));
                runs.push(self.ingest(site, round, name, Pace::Open(rate)).await?);
            }
        }
        let mut compared = vec![(INGEST, RAW), (INGEST, BARE)];
        if let Some(name) = &offered {
            compared.push((name, INGEST));
        }
        let notes = vec![
            "Latency: until the answer; in an open loop from when a request was due.",
            super::COLUMNS,
        ];
        let settings = format!(
            "{} connections, {} rounds of {} s",
            self.common.connections, self.common.rounds, self.common.seconds
        );
        let report = Report::of("ingest", versions, &settings, runs, &compared, notes);
        Ok(report.with_parts(INGEST, BARE, RAW))
    }

    fn load(&self, site: &Site, server: &Started, pace: Pace) -> anyhow::Result<Load> {
        Ok(Load {
            target: server.address,
            stock: Arc::new(Stock::sign(&site.secret, 0, Users::New, SIGNED)?),
            connections: self.common.connections,
            pace,
            extent: Extent::Lasting(WARM_UP + self.common.lasting()),
            warm_up: WARM_UP,
        })
    }

    async fn bare(&self, site: &Site, round: u32) -> anyhow::Result<Run> {
        let server = site
            .start("bare-server", &["bench", "bare-server"], &[], "LISTEN")
            .await?;
        let meter = Meter {
            own: server.pid.into_iter().collect(),
            ..Meter::default()
        };
        let load = self.load(site, &server, Pace::Closed)?;
        let (window, sent) = put(load, &meter, self.common.lasting()).await?;
        let mut run = Run::new(BARE, round, &window, meter.peak_memory());
        anyhow::ensure!(
            sent.refused + sent.unanswered == 0,
            "the bare server refused {} requests and left {} unanswered",
            sent.refused,
            sent.unanswered
        );
        run.latency = Some(sent.latencies);
        server.stop().await?;
        Ok(run)
    }

    async fn raw(&self, site: &Site, round: u32) -> anyhow::Result<Run> {
        site.renew_queues().await?;
        let publisher = RawPublisher::connect(site.broker()?).await?;
        let stock = Arc::new(Stock::unsigned(0, Users::New)?);
        // This process does nothing else meanwhile.
        let meter = site.meter([Some(std::process::id())]);
        let confirmed = Arc::new(AtomicU64::new(0));
        let started = Instant::now();
        let lasting = self.common.lasting();
        let (published, window) = tokio::join!(
            publisher.publish(
                &stock,
                Amount::Lasting(started, WARM_UP, lasting),
                self.common.connections,
                &confirmed
            ),
            window(&meter, started, lasting, || confirmed
                .load(Ordering::Relaxed)),
        );
        let published = published?;
        publisher.close().await?;
        let mut run = Run::new(RAW, round, &window, None);
        run.latency = Some(published.latencies);
        run.audit = Some(audit(site, RAW, published.confirmed, 0).await?);
        Ok(run)
    }

    async fn ingest(&self, site: &Site, round: u32, name: &str, pace: Pace) -> anyhow::Result<Run> {
        site.renew_queues().await?;
        let ingester = site.start_ingester().await?;
        let meter = site.meter([ingester.pid]);
        let load = self.load(site, &ingester, pace)?;
        let (window, sent) = put(load, &meter, self.common.lasting()).await?;
        let mut run = Run::new(name, round, &window, meter.peak_memory());
        ingester.stop().await?;
        run.latency = Some(sent.latencies);
        run.refused = sent.refused;
        run.unanswered = sent.unanswered;
        run.audit = Some(audit(site, name, sent.accepted, sent.refused + sent.unanswered).await?);
        Ok(run)
    }
}

/// Puts a load on a server, and measures after the warm-up.
async fn put(load: Load, meter: &Meter, lasting: Duration) -> anyhow::Result<(Window, Sent)> {
    let running = load.start()?;
    let window = window(meter, running.started, lasting, || running.accepted()).await;
    Ok((window, running.finish().await?))
}

/// Counts from the end of the warm-up on, for as long as it lasts.
pub(super) async fn window(
    meter: &Meter,
    started: Instant,
    lasting: Duration,
    count: impl Fn() -> u64,
) -> Window {
    sleep_until((started + WARM_UP).into()).await;
    let (from, reading) = (count(), meter.read());
    sleep_until((started + WARM_UP + lasting).into()).await;
    Window {
        events: count() - from,
        spent: reading.until(&meter.read()),
    }
}

/// Every event that was accepted is in the queue.
async fn audit(site: &Site, run: &str, accepted: u64, not_accepted: u64) -> anyhow::Result<Audit> {
    let give_up = Instant::now() + COUNT_LAG;
    loop {
        let audit = Audit::of_queue(accepted, not_accepted, &site.leftovers().await?);
        if audit.lost == 0 || Instant::now() > give_up {
            audit.must_be_clean(run)?;
            return Ok(audit);
        }
        sleep(Duration::from_millis(50)).await;
    }
}
