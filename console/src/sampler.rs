//! Looks at everything every five seconds, whether or not somebody watches.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clerk_sync_pipeline::{
    Millis,
    admin::Readiness,
    lifecycle::Shutdown,
    queue::{
        RetryLadder,
        amqp::{AmqpGauge, Server},
        embedded::EmbeddedGauge,
        stock::Stock,
    },
};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    board::{Board, EVERY},
    source::Source,
};

/// Longest look at the queue: a broker that is silent must not keep the rest from being seen.
const QUEUE_WITHIN: Duration = Duration::from_secs(8);

/// How long a process that has just begun may take, its tables being made and its connections.
const STARTS_WITHIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Where the queue is looked at.
pub(crate) enum Gauge {
    Rabbit(Box<AmqpGauge>),
    File {
        path: PathBuf,
        ladder: RetryLadder,
        open: Option<Box<EmbeddedGauge>>,
    },
}

impl Gauge {
    pub(crate) fn rabbit(server: Server) -> Self {
        Self::Rabbit(Box::new(AmqpGauge::new(server)))
    }

    pub(crate) fn file(path: PathBuf, ladder: RetryLadder) -> Self {
        let open = None;
        Self::File { path, ladder, open }
    }

    async fn read(&mut self) -> Result<Option<Stock>, String> {
        match self {
            Self::Rabbit(gauge) => gauge.read().await.map(Some),
            Self::File { path, ladder, open } => {
                let (path, ladder, gauge) = (path.clone(), ladder.clone(), open.take());
                let read = spawn_blocking(move || {
                    let gauge = match gauge {
                        Some(gauge) => gauge,
                        None => {
                            let opened = EmbeddedGauge::open(&path, ladder);
                            Box::new(opened.map_err(|error| error.to_string())?)
                        }
                    };
                    let stock = gauge.read()?;
                    Ok::<_, String>((gauge, stock))
                });
                let (gauge, stock) = read.await.unwrap_or_else(|error| Err(error.to_string()))?;
                *open = Some(gauge);
                Ok(Some(stock))
            }
        }
    }

    async fn close(&mut self) {
        if let Self::Rabbit(gauge) = self {
            gauge.close().await;
        }
    }
}

/// What is looked at.
pub(crate) struct Sampler {
    pub(crate) source: Source,
    pub(crate) gauge: Gauge,
    /// This process's own parts; none of them is a worker's or an ingester's where the console is a
    /// process of its own.
    pub(crate) readiness: Readiness,
}

impl Sampler {
    /// Looks until stopping is asked for.
    pub(crate) async fn run(mut self, board: watch::Sender<Arc<Board>>, shutdown: Shutdown) {
        tokio::select! {
            () = self.started() => {}
            () = shutdown.requested() => return,
        }
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.requested() => break,
            }
            let before = board.borrow().clone();
            // Given up in the middle, nothing is lost but this look.
            tokio::select! {
                next = self.look(&before) => {
                    board.send_replace(Arc::new(next));
                }
                () = shutdown.requested() => break,
            }
        }
        self.gauge.close().await;
    }

    /// Waits until all is ready, for a while: what is only starting is not in trouble.
    async fn started(&self) {
        let until = Instant::now() + STARTS_WITHIN;
        while Instant::now() < until && !self.readiness.problems().await.is_empty() {
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn look(&mut self, before: &Board) -> Board {
        let (look, stock, unready) = tokio::join!(
            self.source.look(),
            timeout(QUEUE_WITHIN, self.gauge.read()),
            self.readiness.problems()
        );
        let stock = stock.unwrap_or_else(|_| Err(format!("no answer within {QUEUE_WITHIN:?}")));
        let mut board = before.clone();
        board.add(Millis::now(), look, stock);
        let unready = unready.into_iter();
        let unready = unready.map(|(part, problem)| format!("{part} is not ready: {problem}"));
        board.problems.extend(unready);
        board
    }
}
