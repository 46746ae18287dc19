//! The supervised consumer: lanes on one connection, and a second connection to move failed events
//! on, so that a broker alarm, which stops publishers, never stops acknowledgements.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::{
    Channel, Connection,
    options::{BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    Server,
    connection::{AsyncOpen, Incarnation, Link, Supervised, Supervisor},
    explain, message,
    moving::{self, Mover},
    publisher::ConfirmedPublisher,
};
use crate::{
    admin::{Readiness, ReadinessPart},
    queue::{BatchLimits, Consume, Delivery, Settlement, Topology, Unsettled},
    retry::Backoff,
    telemetry::Metrics,
};

/// Longest wait for a channel that consumes.
const CONSUME_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the broker's word on a closed channel.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The worker's two connections.
pub struct AmqpConsumers {
    consuming: Arc<Supervised<()>>,
    moving: ConfirmedPublisher,
    lanes: Vec<AmqpConsumer>,
}

/// One readiness part for all lanes: ready when each of them consumes, or has been told to pause
/// ([`Consume::hand_back`]), for which whoever said so gives the reason.
struct LanesReadiness {
    part: ReadinessPart,
    /// Why a lane does not consume, by lane.
    causes: Mutex<Vec<Option<String>>>,
}

impl LanesReadiness {
    /// The lane consumes no more. Why is told by the connection, if that was lost, or by the lane
    /// itself if it cannot consume again at once; until then it keeps the others from saying that
    /// all is well.
    fn note_lost(&self, lane: usize) {
        self.causes()[lane].get_or_insert_with(|| "not consuming".to_owned());
    }

    fn causes(&self) -> MutexGuard<'_, Vec<Option<String>>> {
        self.causes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the lane does not consume, or that it does.
    fn tell(&self, lane: usize, cause: Option<String>) {
        let mut causes = self.causes();
        causes[lane] = cause;
        match causes.iter().flatten().next() {
            Some(cause) => self.part.not_ready(cause.clone()),
            None => self.part.ready(),
        }
    }
}

impl AmqpConsumers {
    /// Starts connecting, for ever, with `lanes` consumers of `prefetch` deliveries each.
    #[must_use]
    pub fn start(
        server: Server,
        lanes: usize,
        prefetch: u16,
        metrics: &Arc<Metrics>,
        readiness: &Readiness,
    ) -> Self {
        let ahead = lanes.saturating_mul(prefetch.into());
        metrics
            .prefetch_limit
            .set(i64::try_from(ahead).unwrap_or(i64::MAX));
        let topology = Arc::new(server.topology.clone());
        let moving = ConfirmedPublisher::start(
            server.clone(),
            "clerk-sync worker retry",
            topology.retry(),
            metrics,
            readiness.told("queue_retry"),
        );
        let consume = readiness.told("queue_consume");
        let consuming = Arc::new(Supervisor::start(
            server,
            "clerk-sync worker",
            metrics,
            consume.clone(),
            OpenNothing,
        ));
        let starting = Some("not consuming yet".to_owned());
        let together = Arc::new(LanesReadiness {
            part: consume,
            causes: Mutex::new(vec![starting; lanes]),
        });
        let lane = |number| AmqpConsumer {
            lane: number,
            current: consuming.current.clone(),
            attached: None,
            arrived: Vec::new(),
            held: 0,
            prefetch,
            mover: Mover::new(moving.clone(), topology.clone()),
            topology: topology.clone(),
            readiness: together.clone(),
        };
        let lanes = (0..lanes).map(lane).collect();
        Self {
            consuming,
            moving,
            lanes,
        }
    }

    /// The lanes, each for one task. They are given once.
    pub fn take_lanes(&mut self) -> Vec<AmqpConsumer> {
        std::mem::take(&mut self.lanes)
    }

    /// Closes both connections: unsettled deliveries go back to the queue.
    pub async fn close(&self) {
        tokio::join!(self.consuming.close(), self.moving.close());
    }
}

/// A lane opens its own channel, so there is nothing to open with the connection; and only when a
/// lane consumes, consuming is ready.
struct OpenNothing;

impl AsyncOpen<()> for OpenNothing {
    /// Each lane says when it consumes.
    const READY_WHEN_OPEN: bool = false;

    async fn open(&self, _: &Connection, _: &Link) -> Result<(), String> {
        Ok(())
    }
}

/// Numbers the channels that lanes have consumed on.
static NEXT_ATTACHMENT: AtomicU64 = AtomicU64::new(1);

/// One lane: a channel, a consumer, and at most one batch in hand.
pub struct AmqpConsumer {
    lane: usize,
    current: watch::Receiver<Option<Arc<Incarnation<()>>>>,
    attached: Option<Attached>,
    /// Arrived for the batch that is being collected: kept here so that dropping
    /// [`Consume::next_batch`] loses nothing.
    arrived: Vec<Delivery>,
    /// Deliveries of the batch in hand that are not settled yet.
    held: usize,
    prefetch: u16,
    mover: Mover,
    topology: Arc<Topology>,
    readiness: Arc<LanesReadiness>,
}

struct Attached {
    /// Never used twice in one process. Delivery tags start again with each channel, so a tag is
    /// only good together with this.
    number: u64,
    incarnation: Arc<Incarnation<()>>,
    channel: Channel,
    deliveries: lapin::Consumer,
    /// Failed events that wait until they can be moved on, each batch's in a task of its own. They
    /// end with the channel that they owe an acknowledgement.
    waiting: JoinSet<Result<(), Unsettled>>,
}

impl Consume for AmqpConsumer {
    async fn next_batch(&mut self, limits: BatchLimits) -> Vec<Delivery> {
        loop {
            if self.attached.is_none() {
                self.attach().await;
            }
            match self.collect(limits).await {
                Ok(()) => {
                    let batch = std::mem::take(&mut self.arrived);
                    self.held = batch.len();
                    return batch;
                }
                Err(Lost::Consumer(cause)) => {
                    tracing::debug!(error = cause, "a consumer was lost, consuming again");
                    self.readiness.note_lost(self.lane);
                    self.detach();
                }
                Err(Lost::Patience(Unsettled(cause))) => {
                    tracing::warn!(
                        error = cause,
                        "failed events cannot be moved on, they are handed back"
                    );
                    self.hand_back().await;
                }
            }
        }
    }

    async fn settle(&mut self, settled: Vec<(Delivery, Settlement)>) -> Result<(), Unsettled> {
        let settling = self.try_settle(settled).await;
        if let Err(Unsettled(cause)) = &settling {
            tracing::debug!(error = cause, "a batch was not settled, it will come again");
            // Whatever this lane still holds must go back, or it would wait for ever.
            self.hand_back().await;
        }
        settling
    }

    async fn hand_back(&mut self) {
        if let Some(attached) = self.detach() {
            if !attached.channel.status().connected() {
                // The broker has them back; closing it again would fail the link for nothing.
                return;
            }
            // The broker gives back what a closed channel held, in one go.
            let closed = timeout(
                CLOSE_TIMEOUT,
                attached.channel.close(200, "handed back".into()),
            );
            if !matches!(closed.await, Ok(Ok(()))) {
                attached.incarnation.link.fail("a channel would not close");
            }
        }
    }
}

impl AmqpConsumer {
    /// Waits for a connection, and consumes on it. Tries for ever.
    async fn attach(&mut self) {
        let mut backoff = Backoff::reconnect();
        loop {
            let current = self
                .current
                .wait_for(Option::is_some)
                .await
                .map(|current| current.clone());
            let Ok(Some(incarnation)) = current else {
                // The supervisor is gone: the process is stopping. There will be no delivery.
                return std::future::pending().await;
            };
            match self.consume(&incarnation).await {
                Ok(attached) => {
                    self.readiness.tell(self.lane, None);
                    // Lost in the same moment, and said already: it must not be contradicted.
                    if let Some(cause) = incarnation.link.failure() {
                        self.readiness.tell(self.lane, Some(cause));
                    }
                    self.attached = Some(attached);
                    return;
                }
                Err(cause) => {
                    tracing::debug!(error = cause, "cannot consume, trying again");
                    self.readiness.tell(self.lane, Some(cause.clone()));
                    // Its supervisor tells why, and connects anew.
                    incarnation.link.fail(cause);
                    sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    /// The broker fills the first lane before it gives the next one anything: while one lane keeps
    /// up, its batches are twice as large as those of two, and cost half. The first lanes of
    /// several workers take turns.
    fn priority(&self) -> i32 {
        i32::try_from(self.lane).map_or(i32::MIN, |lane| -lane)
    }

    async fn consume(&self, incarnation: &Arc<Incarnation<()>>) -> Result<Attached, String> {
        let queue = self.topology.apply();
        let attach = async {
            let channel = incarnation.connection.create_channel().await?;
            channel
                .basic_qos(self.prefetch, BasicQosOptions { global: false })
                .await?;
            let mut arguments = FieldTable::default();
            arguments.insert("x-priority".into(), AMQPValue::LongInt(self.priority()));
            let options = BasicConsumeOptions::default();
            let deliveries = channel
                .basic_consume(queue.as_str().into(), "".into(), options, arguments)
                .await?;
            Ok::<_, lapin::Error>(Attached {
                number: NEXT_ATTACHMENT.fetch_add(1, Ordering::Relaxed),
                incarnation: incarnation.clone(),
                channel,
                deliveries,
                waiting: JoinSet::new(),
            })
        };
        // The broker's answer, or the end of the link: an RPC on a dead one would wait for ever.
        tokio::select! {
            attached = timeout(CONSUME_TIMEOUT, attach) => match attached {
                Ok(attached) => attached.map_err(|error| explain(&error)),
                Err(_) => Err(format!("the broker gave no consumer within {CONSUME_TIMEOUT:?}")),
            },
            () = incarnation.link.failed() => Err(incarnation.link.cause()),
        }
    }

    /// Forgets the channel and what arrived on it.
    fn detach(&mut self) -> Option<Attached> {
        self.arrived.clear();
        self.held = 0;
        self.attached.take()
    }

    /// Fills `arrived` to the limits.
    async fn collect(&mut self, limits: BatchLimits) -> Result<(), Lost> {
        let Attached {
            number,
            deliveries,
            waiting,
            ..
        } = self.attached.as_mut().expect("attached just before");
        let mut deadline = None;
        while self.arrived.len() < limits.events {
            while let Some(ended) = waiting.try_join_next() {
                moving::outcome(ended).map_err(Lost::Patience)?;
            }
            // What is here already is taken without a timer.
            let next = match (deliveries.next().now_or_never(), deadline) {
                (Some(next), _) => next,
                (None, None) if self.arrived.is_empty() => tokio::select! {
                    next = deliveries.next() => next,
                    Some(ended) = waiting.join_next() => {
                        moving::outcome(ended).map_err(Lost::Patience)?;
                        continue;
                    }
                },
                (None, None) => {
                    deadline = Some(Instant::now() + limits.linger);
                    continue;
                }
                (None, Some(deadline)) => match timeout_at(deadline, deliveries.next()).await {
                    Ok(next) => next,
                    Err(_) => break,
                },
            };
            match next {
                Some(Ok(next)) => self.arrived.push(message::delivery(next, *number)),
                Some(Err(error)) => return Err(Lost::Consumer(explain(&error))),
                None => {
                    let cause = "the broker cancelled the consumer".to_owned();
                    return Err(Lost::Consumer(cause));
                }
            }
        }
        Ok(())
    }

    async fn try_settle(&mut self, settled: Vec<(Delivery, Settlement)>) -> Result<(), Unsettled> {
        let attached = self
            .attached
            .as_mut()
            .ok_or_else(|| Unsettled("the channel was lost".to_owned()))?;
        let number = attached.number;
        if settled
            .iter()
            .any(|(delivery, _)| delivery.tag.incarnation != number)
        {
            return Err(Unsettled("the channel was opened anew".to_owned()));
        }
        let whole_batch = settled.len() == self.held;
        let still_held = self.held.saturating_sub(settled.len());

        let (mut done, failed) = self.mover.split(settled);
        let left = self.mover.move_on(failed, &mut done).await;
        if left.is_empty() && whole_batch && attached.waiting.is_empty() {
            // Ack after the commit, and after the confirm of what was moved. The lane has one
            // batch in hand, nothing waits behind it, and tags grow: everything up to the last tag
            // is this batch.
            if let Some(last) = done.iter().max() {
                moving::ack(&attached.channel, *last, true).await?;
            }
            self.held = still_held;
            return Ok(());
        }
        for tag in done {
            moving::ack(&attached.channel, tag, false).await?;
        }
        if !left.is_empty() {
            // The way on is blocked. It must not block what can be applied: a queue that is
            // emptied may be what the broker's alarm is waiting for. Prefetch bounds what waits.
            let wait = self.mover.clone().move_when_possible(
                left,
                attached.channel.clone(),
                attached.incarnation.link.clone(),
            );
            attached.waiting.spawn(wait);
        }
        // Only now: when this future is dropped half way, or fails, nothing that comes after it in
        // this batch may be taken for the rest, and be acknowledged together with what is not done.
        self.held = still_held;
        Ok(())
    }
}

/// Why no batch was collected.
enum Lost {
    /// The channel, or the consumer on it.
    Consumer(String),
    /// Failed events have waited too long to be moved on.
    Patience(Unsettled),
}
