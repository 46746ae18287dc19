//! The supervised consumer: lanes on one connection, and a second connection to move failed events
//! on, so that a broker alarm, which stops publishers, never stops acknowledgements.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, future::join_all};
use lapin::{
    Channel, Connection,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    Server,
    confirm::Message,
    connection::{AsyncOpen, Incarnation, Link, Supervised, Supervisor},
    explain, message,
    publisher::ConfirmedPublisher,
};
use crate::{
    admin::{Readiness, ReadinessPart},
    event::Millis,
    queue::{BatchLimits, Consume, Delivery, Failure, Settlement, Topology, Unsettled},
    retry::Backoff,
    telemetry::Metrics,
};

/// Longest time a batch is held because its failed members cannot be moved. RabbitMQ ends a
/// consumer that owes an acknowledgement for 30 minutes.
const LONGEST_HOLD: Duration = Duration::from_mins(10);
/// Longest wait for the broker's word on a closed channel.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The routing key of dead letters.
pub(super) const DEAD: &str = "dead";

/// The worker's two connections.
pub struct AmqpConsumers {
    consuming: Arc<Supervised<()>>,
    moving: ConfirmedPublisher,
    lanes: Vec<AmqpConsumer>,
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
        let lane = |_| AmqpConsumer {
            current: consuming.current.clone(),
            attached: None,
            arrived: Vec::new(),
            held: 0,
            prefetch,
            moving: moving.clone(),
            topology: topology.clone(),
            readiness: consume.clone(),
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
    const IS_ENOUGH: bool = false;

    async fn open(&self, _: &Connection, _: &Link) -> Result<(), String> {
        Ok(())
    }
}

/// Numbers the channels that lanes have consumed on.
static NEXT_ATTACHMENT: AtomicU64 = AtomicU64::new(1);

/// One lane: a channel, a consumer, and at most one batch in hand.
pub struct AmqpConsumer {
    current: watch::Receiver<Option<Arc<Incarnation<()>>>>,
    attached: Option<Attached>,
    /// Arrived for the batch that is being collected: kept here so that dropping
    /// [`Consume::next_batch`] loses nothing.
    arrived: Vec<Delivery>,
    /// Deliveries of the batch in hand that are not settled yet.
    held: usize,
    prefetch: u16,
    moving: ConfirmedPublisher,
    topology: Arc<Topology>,
    readiness: ReadinessPart,
}

struct Attached {
    /// Never used twice in one process. Delivery tags start again with each channel, so a tag is
    /// only good together with this.
    number: u64,
    incarnation: Arc<Incarnation<()>>,
    channel: Channel,
    deliveries: lapin::Consumer,
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
                Err(cause) => {
                    tracing::debug!(cause, "a consumer was lost, consuming again");
                    self.detach();
                }
            }
        }
    }

    async fn settle(&mut self, settled: Vec<(Delivery, Settlement)>) -> Result<(), Unsettled> {
        let settling = self.try_settle(settled).await;
        if let Err(Unsettled(cause)) = &settling {
            tracing::debug!(cause, "a batch was not settled, it will come again");
            // Whatever this lane still holds must go back, or it would wait for ever.
            self.hand_back().await;
        }
        settling
    }

    async fn hand_back(&mut self) {
        if let Some(attached) = self.detach() {
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
                    self.readiness.ready();
                    self.attached = Some(attached);
                    return;
                }
                Err(cause) => {
                    tracing::debug!(cause, "cannot consume, trying again");
                    // Its supervisor tells why, and connects anew.
                    incarnation.link.fail(cause);
                    sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    async fn consume(&self, incarnation: &Arc<Incarnation<()>>) -> Result<Attached, String> {
        let queue = self.topology.apply();
        let attach = async {
            let channel = incarnation.connection.create_channel().await?;
            channel
                .basic_qos(self.prefetch, BasicQosOptions { global: false })
                .await?;
            let options = BasicConsumeOptions::default();
            let deliveries = channel
                .basic_consume(
                    queue.as_str().into(),
                    "".into(),
                    options,
                    FieldTable::default(),
                )
                .await?;
            Ok::<_, lapin::Error>(Attached {
                number: NEXT_ATTACHMENT.fetch_add(1, Ordering::Relaxed),
                incarnation: incarnation.clone(),
                channel,
                deliveries,
            })
        };
        // The broker's answer, or the end of the link: an RPC on a dead one would wait for ever.
        tokio::select! {
            attached = attach => attached.map_err(|error| explain(&error)),
            () = incarnation.link.failed() => Err("the connection was lost".to_owned()),
        }
    }

    /// Forgets the channel and what arrived on it.
    fn detach(&mut self) -> Option<Attached> {
        self.arrived.clear();
        self.held = 0;
        self.attached.take()
    }

    /// Fills `arrived` to the limits.
    async fn collect(&mut self, limits: BatchLimits) -> Result<(), String> {
        let Attached {
            number, deliveries, ..
        } = self.attached.as_mut().expect("attached just before");
        let mut deadline = None;
        while self.arrived.len() < limits.events {
            // What is here already is taken without a timer.
            let next = match (deliveries.next().now_or_never(), deadline) {
                (Some(next), _) => next,
                (None, None) if self.arrived.is_empty() => deliveries.next().await,
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
                Some(Err(error)) => return Err(explain(&error)),
                None => return Err("the broker cancelled the consumer".to_owned()),
            }
        }
        Ok(())
    }

    async fn try_settle(&mut self, settled: Vec<(Delivery, Settlement)>) -> Result<(), Unsettled> {
        let attached = self
            .attached
            .as_ref()
            .ok_or_else(|| Unsettled("the channel was lost".to_owned()))?;
        let number = attached.number;
        if settled
            .iter()
            .any(|(delivery, _)| delivery.tag.incarnation != number)
        {
            return Err(Unsettled("the channel was opened anew".to_owned()));
        }
        let whole_batch = settled.len() == self.held;
        self.held = self.held.saturating_sub(settled.len());

        let mut done: Vec<u64> = Vec::with_capacity(settled.len());
        let mut moving = Vec::new();
        for (delivery, settlement) in settled {
            match settlement {
                Settlement::Done => done.push(delivery.tag.number),
                Settlement::Retry(rung, failure) => {
                    moving.push((self.topology.ladder.name(rung), delivery, failure));
                }
                Settlement::DeadLetter(failure) => {
                    moving.push((DEAD.to_owned(), delivery, failure));
                }
            }
        }
        let first_moved = done.len();
        let mut left = self.move_on(moving, &mut done).await;
        if left.is_empty() && whole_batch {
            // Ack after the commit, and after the confirm of what was moved. The lane has one
            // batch in hand and tags grow, so everything up to the last tag is this batch.
            let last = done.iter().max().copied();
            return match last {
                Some(last) => ack(attached, last, true).await,
                None => Ok(()),
            };
        }
        for tag in &done {
            ack(attached, *tag, false).await?;
        }
        tracing::trace!(
            moved = done.len() - first_moved,
            held = left.len(),
            "settled singly"
        );

        // The way on is blocked: hold the rest. Prefetch bounds what waits behind it.
        let give_up = Instant::now() + LONGEST_HOLD;
        let mut backoff = Backoff::weather();
        while !left.is_empty() {
            tokio::select! {
                () = sleep(backoff.next_delay()) => {}
                () = attached.incarnation.link.failed() => {
                    return Err(Unsettled("the connection was lost".to_owned()));
                }
            }
            if Instant::now() > give_up {
                return Err(Unsettled("failed events could not be moved on".to_owned()));
            }
            let mut moved = Vec::new();
            left = self.move_on(left, &mut moved).await;
            for tag in moved {
                ack(attached, tag, false).await?;
            }
        }
        Ok(())
    }

    /// Publishes failed events to their routing keys, all at once. The tags of those that the
    /// broker has confirmed go to `moved`; the others are returned.
    async fn move_on(&self, moving: Vec<Move>, moved: &mut Vec<u64>) -> Vec<Move> {
        let now = Millis::now();
        let publishes = moving
            .into_iter()
            .map(|(routing_key, delivery, failure)| async move {
                let message = Message {
                    exchange: self.topology.retry().into(),
                    routing_key: routing_key.as_str().into(),
                    properties: message::failed_properties(&delivery, &failure, now),
                    body: delivery.event.body.clone(),
                };
                match self.moving.publish(message).await {
                    Ok(()) => Ok(delivery.tag.number),
                    Err(error) => {
                        tracing::debug!(%error, "a failed event could not be moved on");
                        Err((routing_key, delivery, failure))
                    }
                }
            });
        let mut left = Vec::new();
        for result in join_all(publishes).await {
            match result {
                Ok(tag) => moved.push(tag),
                Err(not_moved) => left.push(not_moved),
            }
        }
        left
    }
}

/// Routing key, what failed, and why.
type Move = (String, Delivery, Failure);

async fn ack(attached: &Attached, tag: u64, multiple: bool) -> Result<(), Unsettled> {
    attached
        .channel
        .basic_ack(tag, BasicAckOptions { multiple })
        .await
        .map_err(|error| Unsettled(explain(&error)))
}
