//! Reference of `ingest`, and what fills the queue for `worker`: publishes with confirms, as
//! lapin's documentation shows it, with nothing of ours around.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clerk_sync_pipeline::{Millis, queue::amqp::Server};
use hdrhistogram::Histogram;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::{task::JoinSet, time::timeout};

use super::{
    latency::{self, Latencies},
    stock::Stock,
};

/// As many as the product opens, for the same reason.
const CHANNELS: usize = 4;
/// Longest wait for one confirm.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);

/// Publishes to the exchange that the ingester publishes to.
pub(super) struct RawPublisher {
    connection: Connection,
    channels: Vec<Channel>,
    exchange: String,
}

/// How many messages are published.
#[derive(Clone, Copy, Debug)]
pub(super) enum Amount {
    /// Events of these numbers.
    Events(u64),
    /// As many as go in this time, from this moment on; measured after the warm-up.
    Lasting(Instant, Duration, Duration),
}

/// What was confirmed.
pub(super) struct Published {
    pub(super) confirmed: u64,
    pub(super) latencies: Latencies,
}

impl RawPublisher {
    pub(super) async fn connect(server: &Server) -> anyhow::Result<Self> {
        let connection = connect(server).await?;
        let mut channels = Vec::new();
        for _ in 0..CHANNELS {
            let channel = connection.create_channel().await?;
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            channels.push(channel);
        }
        Ok(Self {
            connection,
            channels,
            exchange: server.topology.events(),
        })
    }

    pub(super) async fn close(self) -> anyhow::Result<()> {
        self.connection.close(200, "done".into()).await?;
        Ok(())
    }

    /// Publishes, `outstanding` at a time, each confirmed before the next of its place.
    /// `confirmed` counts along.
    pub(super) async fn publish(
        &self,
        stock: &Arc<Stock>,
        amount: Amount,
        outstanding: usize,
        confirmed: &Arc<AtomicU64>,
    ) -> anyhow::Result<Published> {
        let next = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for place in 0..outstanding {
            let place = Place {
                channel: self.channels[place % self.channels.len()].clone(),
                exchange: self.exchange.clone(),
                stock: stock.clone(),
                next: next.clone(),
                confirmed: confirmed.clone(),
            };
            tasks.spawn(place.publish(amount));
        }
        let mut histogram = latency::histogram();
        while let Some(part) = tasks.join_next().await {
            histogram.add(part??)?;
        }
        Ok(Published {
            confirmed: confirmed.load(Ordering::Relaxed),
            latencies: Latencies::of(&histogram),
        })
    }
}

/// Connects to the first node.
pub(super) async fn connect(server: &Server) -> anyhow::Result<Connection> {
    let url = server.nodes.first().expose().as_str();
    let connecting = Connection::connect(url, ConnectionProperties::default());
    let connection = timeout(CONFIRM_TIMEOUT, connecting)
        .await
        .context("the broker does not answer")??;
    Ok(connection)
}

/// One of those that publish at the same time.
struct Place {
    channel: Channel,
    exchange: String,
    stock: Arc<Stock>,
    next: Arc<AtomicU64>,
    confirmed: Arc<AtomicU64>,
}

impl Place {
    async fn publish(self, amount: Amount) -> anyhow::Result<Histogram<u64>> {
        let mut histogram = latency::histogram();
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let counts = match amount {
                Amount::Events(count) if number >= count => return Ok(histogram),
                Amount::Events(_) => false,
                Amount::Lasting(started, warm_up, lasting) => {
                    let elapsed = started.elapsed();
                    if elapsed >= warm_up + lasting {
                        return Ok(histogram);
                    }
                    elapsed >= warm_up
                }
            };
            let started = Instant::now();
            let publish = async {
                let confirm = self
                    .channel
                    .basic_publish(
                        self.exchange.as_str().into(),
                        self.stock.event_type().into(),
                        options,
                        &self.stock.body(number),
                        properties(&self.stock, number),
                    )
                    .await?;
                confirm.await
            };
            let confirmation = timeout(CONFIRM_TIMEOUT, publish)
                .await
                .context("no confirm in time")??;
            anyhow::ensure!(
                matches!(confirmation, Confirmation::Ack(None)),
                "the broker refused a message"
            );
            self.confirmed.fetch_add(1, Ordering::Relaxed);
            if counts {
                latency::record(&mut histogram, started.elapsed());
            }
        }
    }
}

/// What the ingester sends with a body.
fn properties(stock: &Stock, number: u64) -> BasicProperties {
    let now = Millis::now().0;
    let mut headers = FieldTable::default();
    headers.insert("x-received-at".into(), AMQPValue::LongLongInt(now));
    headers.insert("svix-timestamp".into(), AMQPValue::LongLongInt(now / 1000));
    BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into())
        .with_message_id(stock.event_id(number).into())
        .with_type(stock.event_type().into())
        .with_timestamp(u64::try_from(now / 1000).unwrap_or_default())
        .with_headers(headers)
}
