//! `bench worker`: messages to rows.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{
    applied::{self, Counters, Window},
    audit::{Audit, Tables},
    load::Fate,
    meter::Meter,
    prefill, raw_batch,
    raw_publish::{Amount, RawPublisher},
    report::Report,
    site::{ServersArgs, Site},
    stock::{MOST_EVENTS, Stock, Users},
    summary::Run,
};
use crate::scratch::Leftovers;

const RAW: &str = "raw SQL batches";
const CONSUMED: &str = "raw lapin + SQL";
/// Publishes at a time, to fill the queue.
const FILLING: usize = 256;
/// What share of a run's events is applied before it is measured: a tenth.
pub(super) const WARM_UP_SHARE: u64 = 10;

/// Measure the worker: a queue that is full until every row is committed
///
/// Beside it, in turn: the same statements by hand over sqlx, in batches of the same size on as
/// many connections; without a queue, and consumed from it over lapin. Uses queues and a database of its own, which it removes.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  clerk-sync bench worker
  clerk-sync bench worker --users 1000000 --ledger-rows 10000000
  clerk-sync bench worker --users 0                  (each event makes a user)
  clerk-sync bench worker --users 1 --events 10000   (one hot user)
  clerk-sync bench worker --workers 4 --events 1000000")]
pub(crate) struct WorkerArgs {
    /// Rounds; the figures are their medians
    #[arg(long, default_value_t = 3, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Events in the queue at the beginning of each round
    #[arg(long, default_value_t = 50_000, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..MOST_EVENTS))]
    events: u64,
    /// Users that are there already, whom the events update in random order. 0: each event makes one
    #[arg(long, default_value_t = 100_000, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(..=100_000_000))]
    users: u64,
    /// Events that are in the ledger already
    #[arg(long, default_value_t = 0, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(..=1_000_000_000))]
    ledger_rows: u64,
    /// Workers
    #[arg(long, default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// Batches in hand at once, of each worker
    #[arg(long = "lanes", env = "WORKER_LANES", default_value_t = 2, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=64))]
    lanes: u16,
    /// Most events in one transaction
    #[arg(long = "batch", env = "BATCH_EVENTS", default_value_t = 128, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=256))]
    batch: u16,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    servers: ServersArgs,
}

impl WorkerArgs {
    pub(super) async fn site(&self) -> anyhow::Result<Site> {
        self.servers.site().await
    }

    fn whom(&self) -> Users {
        match self.users {
            0 => Users::New,
            count => Users::Known(count),
        }
    }

    pub(super) async fn run(&self, site: &Site, say: impl Fn(String)) -> anyhow::Result<Report> {
        let versions = site.versions().await?;
        prefill::fill(&site.tables()?.db, self.users, self.ledger_rows, &say).await?;
        let ours = match self.workers {
            1 => "worker".to_owned(),
            count => format!("{count} workers"),
        };
        let mut runs = Vec::new();
        for round in 1..=self.rounds {
            say(format!("round {round}: {RAW}"));
            let number = u64::from(round) * 3;
            runs.push(self.raw(site, round, number).await?);
            say(format!("round {round}: filling the queue for {CONSUMED}"));
            let stock = self.fill(site, number + 1).await?;
            say(format!("round {round}: {CONSUMED}"));
            runs.push(self.consumed(site, round, &stock).await?);
            say(format!("round {round}: filling the queue"));
            let stock = self.fill(site, number + 2).await?;
            say(format!("round {round}: {ours}"));
            runs.push(self.work(site, round, &ours, &stock).await?);
        }
        let settings = format!(
            "{} rounds of {} events in batches of {} on {} x {} connections;\n\
             {} users and {} ledger rows before",
            self.rounds,
            self.events,
            self.batch,
            self.workers,
            self.lanes,
            self.users,
            self.ledger_rows
        );
        let compared = [(ours.as_str(), RAW), (ours.as_str(), CONSUMED)];
        let notes = vec![super::COLUMNS];
        Ok(Report::of(
            "worker", versions, &settings, runs, &compared, notes,
        ))
    }

    async fn raw(&self, site: &Site, round: u32, number: u64) -> anyhow::Result<Run> {
        let stock = Arc::new(Stock::unsigned(number, self.whom())?);
        // This process does nothing else meanwhile.
        let meter = Meter {
            broker: None,
            ..site.meter([Some(std::process::id())])
        };
        let done = Arc::new(AtomicU64::new(0));
        let tables = site.tables()?;
        let lanes = self.all_lanes();
        let ((), window) = tokio::try_join!(
            raw_batch::apply(
                tables.url(),
                &stock,
                self.events,
                self.batch.into(),
                lanes,
                &done
            ),
            self.measure(&meter, &done),
        )?;
        let mut run = Run::new(RAW, round, &window, None);
        let leftovers = Leftovers::default();
        run.audit = Some(self.audit(site, &stock, RAW, &leftovers).await?);
        Ok(run)
    }

    /// Looks on while `done` counts along to all events.
    async fn measure(&self, meter: &Meter, done: &AtomicU64) -> anyhow::Result<Window> {
        let warm_up = self.events / WARM_UP_SHARE;
        let applied = async || Ok(done.load(Ordering::Relaxed));
        applied::measure(meter, warm_up, || self.events, applied).await
    }

    async fn consumed(&self, site: &Site, round: u32, stock: &Arc<Stock>) -> anyhow::Result<Run> {
        let meter = site.meter([Some(std::process::id())]);
        let done = Arc::new(AtomicU64::new(0));
        let ((), window) = tokio::try_join!(
            raw_batch::consume(
                site.broker()?,
                site.tables()?.url(),
                stock,
                self.events,
                self.batch,
                self.all_lanes(),
                &done
            ),
            self.measure(&meter, &done),
        )?;
        let mut run = Run::new(CONSUMED, round, &window, None);
        let leftovers = site.leftovers().await?;
        run.audit = Some(self.audit(site, stock, CONSUMED, &leftovers).await?);
        Ok(run)
    }

    /// Batches in hand at once, of all workers.
    fn all_lanes(&self) -> usize {
        usize::from(self.lanes) * usize::from(self.workers)
    }

    async fn fill(&self, site: &Site, number: u64) -> anyhow::Result<Arc<Stock>> {
        site.renew_queues().await?;
        let stock = Arc::new(Stock::unsigned(number, self.whom())?);
        let publisher = RawPublisher::connect(site.broker()?).await?;
        publisher
            .publish(
                &stock,
                Amount::Events(self.events),
                FILLING,
                &Arc::default(),
            )
            .await?;
        publisher.close().await?;
        Ok(stock)
    }

    async fn work(
        &self,
        site: &Site,
        round: u32,
        name: &str,
        stock: &Stock,
    ) -> anyhow::Result<Run> {
        let settings = [
            ("WORKER_LANES", self.lanes.to_string()),
            ("BATCH_EVENTS", self.batch.to_string()),
        ];
        let mut workers = Vec::new();
        for _ in 0..self.workers {
            workers.push(site.start_worker(&settings).await?);
        }
        let meter = site.meter(workers.iter().map(|worker| worker.pid));
        let counters = Counters::new(workers.iter().map(|worker| worker.address).collect())?;
        let window = applied::measure(
            &meter,
            self.events / WARM_UP_SHARE,
            || self.events,
            async || counters.applied().await,
        )
        .await?;
        let mut run = Run::new(name, round, &window, meter.peak_memory());
        for worker in workers {
            worker.stop().await?;
        }
        let leftovers = site.leftovers().await?;
        run.audit = Some(self.audit(site, stock, name, &leftovers).await?);
        Ok(run)
    }

    async fn audit(
        &self,
        site: &Site,
        stock: &Stock,
        name: &str,
        leftovers: &Leftovers,
    ) -> anyhow::Result<Audit> {
        let tables = Tables::read(&site.tables()?.db, stock).await?;
        let fates = vec![Fate::Accepted; usize::try_from(self.events)?];
        let audit = Audit::of_tables(stock, &fates, &tables, leftovers);
        audit.must_be_clean(name)?;
        Ok(audit)
    }
}
