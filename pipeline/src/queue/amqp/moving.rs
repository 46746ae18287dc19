//! Failed events on their way to a rung or to the dead letters: published, confirmed, and only then
//! acknowledged.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use lapin::{Channel, options::BasicAckOptions};
use tokio::{
    task::JoinError,
    time::{Instant, sleep},
};
use tracing::Level;

use super::{confirm::Message, connection::Link, explain, message, publisher::ConfirmedPublisher};
use crate::{
    event::Millis,
    queue::{Delivery, Failure, Settlement, Topology, Unsettled},
    retry::Backoff,
    telemetry::LogSampler,
};

/// Longest time that failed events wait to be moved on. RabbitMQ ends a consumer that owes an
/// acknowledgement for 30 minutes.
const LONGEST_WAIT: Duration = Duration::from_mins(20);
/// The routing key of dead letters.
pub(super) const DEAD: &str = "dead";

/// What failed, why, and where to.
pub(super) struct Move {
    routing_key: String,
    delivery: Delivery,
    failure: Failure,
    /// The `x-attempt` it leaves with.
    attempt: u32,
}

/// Publishes failed events, on the worker's second connection.
#[derive(Clone)]
pub(super) struct Mover {
    publisher: ConfirmedPublisher,
    topology: Arc<Topology>,
    logged: Arc<LogSampler>,
}

impl Mover {
    pub(super) fn new(publisher: ConfirmedPublisher, topology: Arc<Topology>) -> Self {
        Self {
            publisher,
            topology,
            logged: Arc::default(),
        }
    }

    /// The tags of what is done, and what is to be moved.
    pub(super) fn split(&self, settled: Vec<(Delivery, Settlement)>) -> (Vec<u64>, Vec<Move>) {
        let mut done = Vec::with_capacity(settled.len());
        let mut moving = Vec::new();
        for (delivery, settlement) in settled {
            match settlement {
                Settlement::Done => done.push(delivery.tag.number),
                Settlement::Retry(rung, failure) => {
                    moving.push(counted(self.topology.ladder.name(rung), delivery, failure));
                }
                Settlement::Postpone(rung, failure) => moving.push(Move {
                    routing_key: self.topology.ladder.name(rung),
                    attempt: delivery.attempt,
                    delivery,
                    failure,
                }),
                Settlement::DeadLetter(failure) => {
                    moving.push(counted(DEAD.to_owned(), delivery, failure));
                }
            }
        }
        (done, moving)
    }

    /// Publishes failed events to their routing keys, all at once. The tags of those that the
    /// broker has confirmed go to `moved`; the others are returned.
    pub(super) async fn move_on(&self, moving: Vec<Move>, moved: &mut Vec<u64>) -> Vec<Move> {
        let now = Millis::now();
        let publishes = moving.into_iter().map(|failed| async move {
            let Move {
                routing_key,
                delivery,
                failure,
                attempt,
            } = &failed;
            let message = Message {
                exchange: self.topology.retry().into(),
                routing_key: routing_key.as_str().into(),
                properties: message::failed_properties(delivery, failure, *attempt, now),
                body: delivery.event.body.clone(),
            };
            match self.publisher.publish(message).await {
                Ok(()) => Ok(delivery.tag.number),
                Err(error) => {
                    if tracing::enabled!(Level::DEBUG) {
                        let id = &delivery.event.id;
                        self.logged.of_event(id, now, |held_back| {
                            tracing::debug!(
                                event.id = %id,
                                %error,
                                held_back,
                                "a failed event could not be moved on"
                            );
                        });
                    }
                    Err(failed)
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

    /// Tries until all are moved on and acknowledged on `channel`, which `link` carries. When one of
    /// these is lost it never ends, as what it holds is never settled: it is dropped with them.
    ///
    /// # Errors
    /// It took too long: they are still unsettled.
    pub(super) async fn move_when_possible(
        self,
        mut left: Vec<Move>,
        channel: Channel,
        link: Link,
    ) -> Result<(), Unsettled> {
        let give_up = Instant::now() + LONGEST_WAIT;
        let mut backoff = Backoff::weather();
        while !left.is_empty() {
            tokio::select! {
                () = sleep(backoff.next_delay()) => {}
                // Its deliveries are lost with it, and the lane finds that out by itself.
                () = link.failed() => std::future::pending().await,
            }
            if Instant::now() > give_up {
                let cause = format!("{} of them for {LONGEST_WAIT:?}", left.len());
                return Err(Unsettled(cause));
            }
            let mut moved = Vec::new();
            left = self.move_on(left, &mut moved).await;
            for tag in moved {
                // A channel that is closed gives its deliveries back, which the lane finds out too.
                if ack(&channel, tag, false).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
        Ok(())
    }
}

/// A move that counts the attempt.
fn counted(routing_key: String, delivery: Delivery, failure: Failure) -> Move {
    Move {
        routing_key,
        attempt: delivery.next_attempt(),
        delivery,
        failure,
    }
}

pub(super) async fn ack(channel: &Channel, tag: u64, multiple: bool) -> Result<(), Unsettled> {
    channel
        .basic_ack(tag, BasicAckOptions { multiple })
        .await
        .map_err(|error| Unsettled(explain(&error)))
}

/// How a task of [`Mover::move_when_possible`] ended.
pub(super) fn outcome(ended: Result<Result<(), Unsettled>, JoinError>) -> Result<(), Unsettled> {
    // A panic: what it held is unsettled, and goes back with the channel.
    ended.unwrap_or_else(|error| Err(Unsettled(error.to_string())))
}
