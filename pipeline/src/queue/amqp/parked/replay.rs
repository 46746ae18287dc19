//! Publishing a letter as it first came, until the broker has it.

use std::sync::Arc;

use lapin::{Connection, ErrorKind, message::Delivery, types::FieldTable};
use tokio::{
    sync::{OnceCell, Semaphore, mpsc, oneshot},
    time::timeout,
};

use super::{ALARM, ANSWER_TIMEOUT, answered, no_answer, passive};
use crate::queue::{
    CONFIRM_TIMEOUT, Rung, Topology,
    amqp::{
        NOT_FOUND,
        confirm::{self, Job, Message},
        connection::Link,
        message,
        publisher::{check_exchange, confirm_channel},
    },
};

/// Letters on their way at once.
pub(super) const AT_ONCE: usize = 64;

/// The way to the first rung. Not to where ingest publishes: other people's queues there have seen
/// the events.
pub(super) struct Replays {
    topology: Topology,
    /// Into the confirm channel's task, from the first replay on: who only looks needs no right to
    /// publish.
    jobs: OnceCell<mpsc::Sender<Job>>,
    permits: Arc<Semaphore>,
}

impl Replays {
    pub(super) fn new(topology: Topology) -> Self {
        Self {
            topology,
            jobs: OnceCell::new(),
            permits: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// `Ok` is said only when the broker has the event, persistent and routed.
    pub(super) async fn publish(
        &self,
        connection: &Connection,
        link: &Link,
        message: Delivery,
    ) -> Result<(), String> {
        // The event alone: attempts, errors and what the broker has noted are left behind.
        let event = message::delivery(message, 0).event;
        let message = Message {
            exchange: self.topology.retry().into(),
            routing_key: self.topology.ladder.name(Rung(0)).into(),
            properties: message::properties(&event),
            body: event.body,
        };
        let ended = || {
            let cause = link.failure();
            cause.unwrap_or_else(|| "the connection was lost before the confirm".to_owned())
        };
        let open = || self.open(connection, link);
        let jobs = self.jobs.get_or_try_init(open).await?;
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_| ended())?;
        let (answer, confirmed) = oneshot::channel();
        let job = Job {
            message,
            answer,
            permit,
        };
        jobs.send(job).await.map_err(|_| ended())?;
        match timeout(CONFIRM_TIMEOUT, confirmed).await {
            Ok(Ok(confirmed)) => confirmed,
            Ok(Err(_)) => Err(ended()),
            Err(_) if connection.status().blocked() => Err(ALARM.to_owned()),
            Err(_) => Err(format!("no confirm within {CONFIRM_TIMEOUT:?}")),
        }
    }

    async fn open(
        &self,
        connection: &Connection,
        link: &Link,
    ) -> Result<mpsc::Sender<Job>, String> {
        let checked = timeout(ANSWER_TIMEOUT, self.check(connection)).await;
        checked.unwrap_or_else(|_| Err(no_answer()))?;
        let channel = answered(confirm_channel(connection)).await?;
        let (replays, jobs) = mpsc::channel(AT_ONCE);
        let status = connection.status().clone();
        let blocked = move || status.blocked();
        tokio::spawn(confirm::run(channel, jobs, link.clone(), blocked));
        Ok(replays)
    }

    /// Makes sure that the first rung is there: without it the exchange's alternate would take the
    /// letters, and call it routed.
    async fn check(&self, connection: &Connection) -> Result<(), String> {
        check_exchange(connection, &self.topology.retry()).await?;
        let rung = self.topology.rung(Rung(0));
        // The broker closes it on a refusal; it is for this question only.
        let channel = answered(connection.create_channel()).await?;
        let declare = channel.queue_declare(rung.as_str().into(), passive(), FieldTable::default());
        let is_missing = |error: &lapin::Error| matches!(error.kind(), ErrorKind::ProtocolError(reply) if reply.get_id() == NOT_FOUND);
        match declare.await {
            Err(error) if is_missing(&error) => Err(format!(
                "queue `{rung}` does not exist: give RETRY_DELAYS and QUEUE_PREFIX as the worker \
                 has them, or run `clerk-sync setup`"
            )),
            // A user with no right to look is believed.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}
