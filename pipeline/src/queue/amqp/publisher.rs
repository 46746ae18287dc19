//! The supervised publisher: four confirm channels on a connection of its own.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use lapin::{
    BasicProperties, Channel, Connection,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};

use super::{
    Server,
    confirm::{self, Job, Message},
    connection::{AsyncOpen, Link, Supervised, Supervisor},
    explain::{alarm, explain},
    message,
};
use crate::{
    admin::ReadinessPart,
    event::Event,
    queue::{CONFIRM_TIMEOUT, MAX_UNCONFIRMED, Publish, PublishError},
    telemetry::Metrics,
};

/// The broker lets each channel have 32 unconfirmed publishes before it slows it down, so several
/// channels carry twice what one does (measured: 38,000/s on four, 19,000/s on one).
const CHANNELS: usize = 4;

/// Publishes events to `clerk.events`. Cloning shares the connection.
#[derive(Clone)]
pub struct AmqpPublisher {
    confirmed: ConfirmedPublisher,
    exchange: ShortString,
    metrics: Arc<Metrics>,
}

impl AmqpPublisher {
    /// Starts connecting, for ever; publishing fails at once while there is no connection.
    #[must_use]
    pub fn start(server: Server, metrics: Arc<Metrics>, readiness: ReadinessPart) -> Self {
        let exchange = server.topology.events();
        let confirmed = ConfirmedPublisher::start(
            server,
            "clerk-sync ingest",
            exchange.clone(),
            &metrics,
            readiness,
        );
        Self {
            confirmed,
            exchange: exchange.into(),
            metrics,
        }
    }

    /// Closes the connection. Publishes that wait for a confirm fail.
    pub async fn close(&self) {
        self.confirmed.close().await;
    }
}

impl Publish for AmqpPublisher {
    async fn publish(&self, event: Event) -> Result<(), PublishError> {
        let started = Instant::now();
        let message = Message {
            exchange: self.exchange.clone(),
            routing_key: event.event_type.as_str().into(),
            properties: message::properties(&event),
            body: event.body,
        };
        self.confirmed.publish(message).await?;
        self.metrics
            .publish_duration
            .observe(started.elapsed().as_secs_f64());
        Ok(())
    }
}

/// Publishes messages, each until the broker has said that it has it.
#[derive(Clone)]
pub(super) struct ConfirmedPublisher {
    supervised: Arc<Supervised<Lanes>>,
    permits: Arc<Semaphore>,
    next: Arc<AtomicUsize>,
}

/// The way into each confirm channel's task.
pub(super) struct Lanes(Vec<mpsc::Sender<Job>>);

impl ConfirmedPublisher {
    /// Each connection is asked first whether it can publish to `exchange`.
    pub(super) fn start(
        server: Server,
        name: &'static str,
        exchange: String,
        metrics: &Arc<Metrics>,
        readiness: ReadinessPart,
    ) -> Self {
        let open = OpenLanes { exchange };
        Self {
            supervised: Arc::new(Supervisor::start(server, name, metrics, readiness, open)),
            permits: Arc::new(Semaphore::new(MAX_UNCONFIRMED)),
            next: Arc::default(),
        }
    }

    pub(super) async fn publish(&self, message: Message) -> Result<(), PublishError> {
        let unavailable = |reason: &str| PublishError::Unavailable(reason.to_owned());
        let permit = self
            .permits
            .clone()
            .try_acquire_owned()
            .map_err(|_| PublishError::Overloaded)?;
        let Some(incarnation) = self.supervised.current.borrow().clone() else {
            return Err(unavailable("no connection to the broker"));
        };
        if incarnation.connection.status().blocked() {
            return Err(unavailable("the broker holds an alarm"));
        }
        let lanes = &incarnation.opened.0;
        let lane = &lanes[self.next.fetch_add(1, Ordering::Relaxed) % lanes.len()];
        let (answer, answered) = oneshot::channel();
        lane.try_send(Job {
            message,
            answer,
            permit,
        })
        .map_err(|_| unavailable("the channel was lost"))?;
        match timeout(CONFIRM_TIMEOUT, answered).await {
            Ok(Ok(confirmed)) => confirmed.map_err(PublishError::Unavailable),
            Ok(Err(_)) => Err(unavailable("the connection was lost before the confirm")),
            Err(_) => Err(unavailable("no confirm in time")),
        }
    }

    pub(super) async fn close(&self) {
        self.supervised.close().await;
    }
}

struct OpenLanes {
    exchange: String,
}

impl AsyncOpen<Lanes> for OpenLanes {
    const READY_WHEN_OPEN: bool = true;

    async fn open(&self, connection: &Connection, link: &Link) -> Result<Lanes, String> {
        check_exchange(connection, &self.exchange).await?;
        let mut lanes = Vec::with_capacity(CHANNELS);
        for _ in 0..CHANNELS {
            let channel = confirm_channel(connection)
                .await
                .map_err(|error| explain(&error))?;
            // A job holds a permit, so a lane never has more of them than there are permits.
            let (sender, jobs) = mpsc::channel(MAX_UNCONFIRMED);
            let status = connection.status().clone();
            let blocked = move || status.blocked();
            tokio::spawn(confirm::run(channel, jobs, link.clone(), blocked));
            lanes.push(sender);
        }
        Ok(Lanes(lanes))
    }
}

pub(super) async fn confirm_channel(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    Ok(channel)
}

/// How much later than its effect a reply of the broker may be told.
const REPLY_WITHIN: Duration = Duration::from_millis(500);

/// Asks whether messages can be published to an exchange, and publishes none: in a transaction
/// that is rolled back. A passive declaration would not do: it tells nothing of the right to write,
/// and from RabbitMQ 4.3.1 on it is refused without a permission on the exchange.
pub(super) async fn check_exchange(connection: &Connection, exchange: &str) -> Result<(), String> {
    let mut events = connection.events_listener();
    let ask = async {
        let channel = connection.create_channel().await?;
        channel.tx_select().await?;
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        channel
            .basic_publish(exchange.into(), "".into(), options, b"", properties)
            .await?;
        channel.tx_rollback().await?;
        channel.close(200, "asked".into()).await
    };
    let trouble = async {
        loop {
            match events.next().await {
                Some(lapin::Event::Error(error)) => return explain(&error),
                // The broker does not read on from a connection that it has blocked.
                Some(lapin::Event::ConnectionBlocked(reason)) => return alarm(&reason),
                Some(_) => {}
                None => return "the connection's loop has ended".to_owned(),
            }
        }
    };
    let mut trouble = pin!(trouble);
    let error = tokio::select! {
        // First, since it has the broker's reply; the question may only know that it has failed.
        biased;
        trouble = &mut trouble => return Err(trouble),
        asked = ask => match asked {
            Ok(()) => return Ok(()),
            Err(error) => error,
        },
    };
    // The reply may be told a moment later.
    let told = timeout(REPLY_WITHIN, trouble).await;
    Err(told.unwrap_or_else(|_| explain(&error)))
}
