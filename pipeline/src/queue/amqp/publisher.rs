//! The supervised publisher: four confirm channels on a connection of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use lapin::{
    Channel, Connection, ErrorKind, ExchangeKind,
    options::{ConfirmSelectOptions, ExchangeDeclareOptions},
    types::{FieldTable, ShortString},
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};

use super::{
    NOT_FOUND, Server,
    confirm::{self, Job, Message},
    connection::{AsyncOpen, Incarnation, Link, Supervised, Supervisor},
    explain, message,
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
    /// `exchange` is looked for on each connection: without it nothing could be published.
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

    /// Whether a publish would be tried: there is a connection, and no alarm that is known of.
    pub(super) fn is_open(&self) -> bool {
        let current = self.supervised.current.borrow();
        let is_open = |now: &Arc<Incarnation<Lanes>>| !now.connection.status().blocked();
        current.as_ref().is_some_and(is_open)
    }

    pub(super) async fn close(&self) {
        self.supervised.close().await;
    }
}

struct OpenLanes {
    exchange: String,
}

impl AsyncOpen<Lanes> for OpenLanes {
    const WORKS_WHEN_OPEN: bool = true;

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

async fn confirm_channel(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    Ok(channel)
}

/// Looks for an exchange without making it. A broker that refuses to tell (4.3.1 on) is believed
/// to have it: a publish into nothing is noticed too.
async fn check_exchange(connection: &Connection, exchange: &str) -> Result<(), String> {
    let channel = connection
        .create_channel()
        .await
        .map_err(|error| explain(&error))?;
    let passive = ExchangeDeclareOptions {
        passive: true,
        ..Default::default()
    };
    let found = channel
        .exchange_declare(
            exchange.into(),
            ExchangeKind::Topic,
            passive,
            FieldTable::default(),
        )
        .await;
    match found {
        Err(error) if matches!(error.kind(), ErrorKind::ProtocolError(e) if e.get_id() == NOT_FOUND) => {
            Err(format!(
                "exchange `{exchange}` does not exist: run `clerk-sync setup`"
            ))
        }
        // The channel is closed by the broker on a refusal; it was made for this question only.
        Ok(()) | Err(_) => Ok(()),
    }
}
