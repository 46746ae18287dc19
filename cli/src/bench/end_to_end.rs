//! `bench e2e` and `bench embedded`: signed requests to committed rows.

use std::{sync::Arc, time::Duration};

use super::{
    Common, WARM_UP, applied,
    audit::{Audit, Tables},
    ingest::window,
    load::{Load, Sent},
    prefill,
    report::Report,
    schedule::{Extent, Pace, offered},
    site::{ServersArgs, Site},
    stage::Stage,
    stock::{MOST_EVENTS, Stock, Users},
    summary::Run,
    worker::WARM_UP_SHARE,
};

const CLOSED: &str = "as fast as it goes";

/// Measure everything: signed requests until their rows are committed
///
/// Starts an ingester and a worker on RabbitMQ and PostgreSQL, and sends events as fast as they are
/// answered until all are applied; then at a fixed rate, to see how long after an event its row is
/// there. Uses queues and a database of its own, which it removes.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  clerk-sync bench e2e
  clerk-sync bench e2e --events 720000 --rounds 1     (a minute at 12,000/s)
  clerk-sync bench e2e --rate 5000 --seconds 60
  clerk-sync bench e2e --users 1000000 --ledger-rows 10000000 --workers 2")]
pub(crate) struct E2eArgs {
    #[command(flatten)]
    common: Common,
    /// Events sent as fast as they are answered, in each round
    #[arg(long, default_value_t = 40_000, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..MOST_EVENTS))]
    events: u64,
    /// Events offered a second in the other part of each round, whatever is answered
    #[arg(long, default_value = "1000", value_name = "PER_SECOND", value_parser = super::rate)]
    rate: f64,
    /// Users that are there already, whom the events update in random order. 0: each event makes one
    #[arg(long, default_value_t = 0, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(..=100_000_000))]
    users: u64,
    /// Events that are in the ledger already
    #[arg(long, default_value_t = 0, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(..=1_000_000_000))]
    ledger_rows: u64,
    /// Workers
    #[arg(long, default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    #[command(flatten)]
    servers: ServersArgs,
}

/// Measure `clerk-sync up` without servers: signed requests until their rows are committed to SQLite
///
/// Sends events as fast as they are answered until all are applied; then at a fixed rate, to see how
/// long after an event its row is there. Uses a temporary folder.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  clerk-sync bench embedded
  clerk-sync bench embedded --events 100000 --rate 2000 --seconds 30")]
pub(crate) struct EmbeddedArgs {
    #[command(flatten)]
    common: Common,
    /// Events sent as fast as they are answered, in each round
    #[arg(long, default_value_t = 20_000, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..MOST_EVENTS))]
    events: u64,
    /// Events offered a second in the other part of each round, whatever is answered
    #[arg(long, default_value = "500", value_name = "PER_SECOND", value_parser = super::rate)]
    rate: f64,
}

impl E2eArgs {
    pub(super) fn common(&self) -> &Common {
        &self.common
    }

    pub(super) async fn site(&self) -> anyhow::Result<Site> {
        self.servers.site().await
    }

    pub(super) async fn run(&self, site: &Site, say: impl Fn(String)) -> anyhow::Result<Report> {
        prefill::fill(&site.tables()?.db, self.users, self.ledger_rows, &say).await?;
        let whole = Whole {
            common: &self.common,
            events: self.events,
            rate: self.rate,
            users: match self.users {
                0 => Users::New,
                count => Users::Known(count),
            },
        };
        let runs = whole
            .rounds(site, say, async |_| {
                Box::pin(Stage::on_servers(site, self.workers)).await
            })
            .await?;
        let versions = site.versions().await?;
        let settings = format!(
            "{}; {} workers,\n{} users and {} ledger rows before",
            whole.settings(),
            self.workers,
            self.users,
            self.ledger_rows
        );
        Ok(Report::of(
            "e2e",
            versions,
            &settings,
            runs,
            &[],
            whole.notes(),
        ))
    }
}

impl EmbeddedArgs {
    pub(super) fn common(&self) -> &Common {
        &self.common
    }

    pub(super) async fn site(&self) -> anyhow::Result<Site> {
        Site::make(None, None).await
    }

    pub(super) async fn run(&self, site: &Site, say: impl Fn(String)) -> anyhow::Result<Report> {
        let whole = Whole {
            common: &self.common,
            events: self.events,
            rate: self.rate,
            users: Users::New,
        };
        let runs = whole
            .rounds(site, say, async |run| {
                Box::pin(Stage::on_files(site, run)).await
            })
            .await?;
        let versions = super::versions::Versions {
            broker: None,
            database: Some(super::versions::sqlite().await?),
        };
        Ok(Report::of(
            "embedded",
            versions,
            &whole.settings(),
            runs,
            &[],
            whole.notes(),
        ))
    }
}

/// Both parts of each round.
struct Whole<'a> {
    common: &'a Common,
    events: u64,
    rate: f64,
    users: Users,
}

impl Whole<'_> {
    fn settings(&self) -> String {
        format!(
            "{} connections, {} rounds of {} events and of {} s",
            self.common.connections, self.common.rounds, self.events, self.common.seconds
        )
    }

    fn notes(&self) -> Vec<&'static str> {
        vec![
            "Latency: as fast as it goes, until the answer; at a fixed rate, from when a",
            "request was due until its row was seen (asked for every 1 to 2 ms).",
            super::COLUMNS,
        ]
    }

    async fn rounds(
        &self,
        site: &Site,
        say: impl Fn(String),
        set_up: impl AsyncFn(u64) -> anyhow::Result<Stage>,
    ) -> anyhow::Result<Vec<Run>> {
        let mut runs = Vec::new();
        for round in 1..=self.common.rounds {
            let number = u64::from(round) * 2;
            say(format!("round {round}: {CLOSED}"));
            let stage = set_up(number).await?;
            runs.push(Box::pin(self.closed(site, stage, round, number)).await?);
            say(format!("round {round}: {} /s", self.rate));
            let stage = set_up(number + 1).await?;
            runs.push(Box::pin(self.open(site, stage, round, number + 1)).await?);
        }
        Ok(runs)
    }

    fn load(&self, stage: &Stage, stock: &Arc<Stock>, pace: Pace, warm_up: Duration) -> Load {
        Load {
            target: stage.webhooks,
            stock: stock.clone(),
            connections: self.common.connections,
            pace,
            extent: Extent::Whole,
            warm_up,
        }
    }

    /// As fast as requests are answered, until every row is there.
    async fn closed(
        &self,
        site: &Site,
        stage: Stage,
        round: u32,
        number: u64,
    ) -> anyhow::Result<Run> {
        let stock = Arc::new(Stock::sign(&site.secret, number, self.users, self.events)?);
        let running = self
            .load(&stage, &stock, Pace::Closed, Duration::ZERO)
            .start()?;
        let window = applied::measure(
            &stage.meter,
            self.events / WARM_UP_SHARE,
            || running.expected(),
            async || stage.counters.applied().await,
        )
        .await?;
        let sent = running.finish().await?;
        let mut run = Run::new(CLOSED, round, &window, stage.meter.peak_memory());
        run.latency = Some(sent.latencies);
        finish(site, stage, &stock, run, &sent).await
    }

    /// At a fixed rate, each event watched until its row is there.
    async fn open(
        &self,
        site: &Site,
        stage: Stage,
        round: u32,
        number: u64,
    ) -> anyhow::Result<Run> {
        let lasting = self.common.lasting();
        let count = offered(self.rate, WARM_UP + lasting).max(1);
        let stock = Arc::new(Stock::sign(&site.secret, number, self.users, count)?);
        let running = self
            .load(&stage, &stock, Pace::Open(self.rate), WARM_UP)
            .start()?;
        let (rows, mut window) = tokio::join!(
            applied::watch_rows(&stage.db, &stock, &running, self.rate),
            window(&stage.meter, running.started, lasting, || running
                .accepted()),
        );
        let rows = rows?;
        let sent = running.finish().await?;
        // The one who asks for rows makes most of the database's work.
        window.spent.database = None;
        let name = format!("{} /s offered", self.rate);
        let mut run = Run::new(&name, round, &window, stage.meter.peak_memory());
        run.latency = Some(rows);
        finish(site, stage, &stock, run, &sent).await
    }
}

/// Stops everything, and looks whether all is there.
async fn finish(
    site: &Site,
    stage: Stage,
    stock: &Stock,
    mut run: Run,
    sent: &Sent,
) -> anyhow::Result<Run> {
    let db = stage.db.clone();
    run.start_ms = stage.start.map(|start| start.as_secs_f64() * 1000.0);
    run.refused = sent.refused;
    run.unanswered = sent.unanswered;
    let leftovers = stage.stop(site).await?;
    let tables = Tables::read(&db, stock).await?;
    let audit = Audit::of_tables(stock, &sent.fates, &tables, &leftovers);
    audit.must_be_clean(&run.mode)?;
    run.audit = Some(audit);
    Ok(run)
}
