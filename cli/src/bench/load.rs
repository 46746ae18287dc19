//! The load generator: requests over many connections, as fast as they are answered (closed loop)
//! or at a fixed rate (open loop).
//!
//! In an open loop each request has a time at which it is due, and its latency counts from then,
//! whenever a connection was free to send it: a server that stalls cannot hide how long others
//! would have waited (no coordinated omission).

use std::{
    cell::RefCell,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use hdrhistogram::Histogram;
use tokio::{sync::oneshot, time::timeout};

use super::{
    http::Connection,
    latency::{self, Latencies},
    schedule::{Extent, Pace, Schedule, due_after, offered},
    stock::Stock,
};

/// Svix waits this long for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Pause before a connection that was refused is tried again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(10);

/// A load to be put on a webhook port.
pub(super) struct Load {
    pub(super) target: SocketAddr,
    pub(super) stock: Arc<Stock>,
    pub(super) connections: usize,
    pub(super) pace: Pace,
    pub(super) extent: Extent,
    /// At the beginning, not counted in latencies.
    pub(super) warm_up: Duration,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Fate {
    Unsent,
    Accepted,
    /// Answered with anything but 2xx. A 503 says that nothing is known of the event.
    Refused,
    /// No answer, or a broken one.
    Unanswered,
}

/// A load in progress. Dropped, it stops.
pub(super) struct Running {
    /// When it began; the requests of an open loop are due from here on.
    pub(super) started: Instant,
    shared: Arc<Shared>,
    done: Vec<oneshot::Receiver<anyhow::Result<Histogram<u64>>>>,
}

/// What a load came to.
pub(super) struct Sent {
    /// By number of the event.
    pub(super) fates: Vec<Fate>,
    pub(super) accepted: u64,
    pub(super) refused: u64,
    pub(super) unanswered: u64,
    /// Of what was accepted, without the warm-up.
    pub(super) latencies: Latencies,
}

/// State of all connections.
struct Shared {
    load: Load,
    schedule: Schedule,
    fates: Vec<AtomicU8>,
    accepted: AtomicU64,
    refused: AtomicU64,
    unanswered: AtomicU64,
}

impl Load {
    /// Starts it, on threads of its own.
    pub(super) fn start(self) -> anyhow::Result<Running> {
        let threads = thread::available_parallelism().map_or(1, usize::from) / 2;
        let threads = threads.clamp(1, self.connections);
        let shared = Arc::new(Shared {
            schedule: Schedule::begin(self.pace, self.extent, self.stock.len()),
            fates: (0..self.stock.len()).map(|_| AtomicU8::new(0)).collect(),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            load: self,
        });
        let mut running = Running {
            started: shared.schedule.started,
            done: Vec::new(),
            shared: shared.clone(),
        };
        if let Pace::Open(_) = shared.load.pace {
            let shared = shared.clone();
            thread::Builder::new()
                .name("pace".to_owned())
                .spawn(move || shared.schedule.keep_pace(shared.load.connections))?;
        }
        for thread in 0..threads {
            let (sender, done) = oneshot::channel();
            let connections = (thread..shared.load.connections).step_by(threads).count();
            let shared = shared.clone();
            thread::Builder::new()
                .name("load".to_owned())
                .spawn(move || {
                    // Whoever started it may be gone.
                    let _ = sender.send(shared.run(connections));
                })?;
            running.done.push(done);
        }
        Ok(running)
    }
}

impl Running {
    /// How many were accepted so far.
    pub(super) fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// How many will be applied at least, as far as is known: all but those not accepted so far.
    pub(super) fn expected(&self) -> u64 {
        let shared = &self.shared;
        let not_accepted =
            shared.refused.load(Ordering::Relaxed) + shared.unanswered.load(Ordering::Relaxed);
        shared.load.stock.len() - not_accepted
    }

    /// How many requests are due by now, in an open loop.
    pub(super) fn due(&self, rate: f64) -> u64 {
        offered(rate, self.started.elapsed())
    }

    /// Whether a request that is due was not accepted, and will not be.
    pub(super) fn is_given_up(&self, number: u64) -> bool {
        let shared = &self.shared;
        match shared.fate(number) {
            Fate::Accepted => false,
            Fate::Refused | Fate::Unanswered => true,
            Fate::Unsent => shared.schedule.is_over(),
        }
    }

    /// Time since a request was due, in an open loop; `None` for those of the warm-up.
    pub(super) fn since_due(&self, number: u64, rate: f64, now: Instant) -> Option<Duration> {
        let due = due_after(number, rate);
        (due >= self.shared.load.warm_up).then(|| now.duration_since(self.started + due))
    }

    /// Waits for its end.
    pub(super) async fn finish(mut self) -> anyhow::Result<Sent> {
        let mut histogram = latency::histogram();
        for done in std::mem::take(&mut self.done) {
            let part = done.await.context("a thread of the load has ended")??;
            histogram.add(part)?;
        }
        let shared = &self.shared;
        Ok(Sent {
            fates: (0..shared.load.stock.len())
                .map(|number| shared.fate(number))
                .collect(),
            accepted: shared.accepted.load(Ordering::Relaxed),
            refused: shared.refused.load(Ordering::Relaxed),
            unanswered: shared.unanswered.load(Ordering::Relaxed),
            latencies: Latencies::of(&histogram),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.schedule.stop();
    }
}

impl Shared {
    /// One thread's connections, to their end. A runtime of one thread hands nothing over to
    /// another, which costs less than it does on the one that runs everything else.
    fn run(&self, connections: usize) -> anyhow::Result<Histogram<u64>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let histogram = RefCell::new(latency::histogram());
            let connections: FuturesUnordered<_> = (0..connections)
                .map(|_| self.connection(&histogram))
                .collect();
            connections.collect::<()>().await;
            Ok(histogram.into_inner())
        })
    }

    /// One connection, request by request.
    async fn connection(&self, histogram: &RefCell<Histogram<u64>>) {
        let mut connection = None;
        let mut request = Vec::new();
        while let Some((number, due)) = self.schedule.next().await {
            self.load.stock.write_request(number, &mut request);
            let exchange = timeout(ANSWER_TIMEOUT, self.exchange(&mut connection, &request));
            let fate = exchange.await.unwrap_or(Fate::Unanswered);
            let now = Instant::now();
            if fate == Fate::Unanswered {
                connection = None;
                tokio::time::sleep(RECONNECT_PAUSE).await;
            }
            self.note(number, fate);
            if fate == Fate::Accepted && due >= self.schedule.started + self.load.warm_up {
                latency::record(&mut histogram.borrow_mut(), now.duration_since(due));
            }
        }
    }

    async fn exchange(&self, connection: &mut Option<Connection>, request: &[u8]) -> Fate {
        if connection.is_none() {
            *connection = Connection::open(self.load.target).await.ok();
        }
        let Some(open) = connection else {
            return Fate::Unanswered;
        };
        let Ok(answer) = open.exchange(request).await else {
            return Fate::Unanswered;
        };
        if answer.close {
            *connection = None;
        }
        if (200..300).contains(&answer.status) {
            Fate::Accepted
        } else {
            Fate::Refused
        }
    }

    fn fate(&self, number: u64) -> Fate {
        match self.fates[self.index(number)].load(Ordering::Relaxed) {
            1 => Fate::Accepted,
            2 => Fate::Refused,
            3 => Fate::Unanswered,
            _ => Fate::Unsent,
        }
    }

    fn index(&self, number: u64) -> usize {
        usize::try_from(number % self.load.stock.len().max(1)).expect("an index")
    }

    fn note(&self, number: u64, fate: Fate) {
        let counter = match fate {
            Fate::Accepted => &self.accepted,
            Fate::Refused => &self.refused,
            Fate::Unsent | Fate::Unanswered => &self.unanswered,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.fates[self.index(number)].store(fate as u8, Ordering::Relaxed);
    }
}
