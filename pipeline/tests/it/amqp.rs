//! The queue on RabbitMQ, and what it promises beyond the contract.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::Arc,
};

use bytes::Bytes;
use clerk_sync_pipeline::{
    Event, EventId, EventType, Millis,
    admin::Readiness,
    queue::{
        Topology,
        amqp::{self, AmqpConsumer, AmqpConsumers, AmqpPublisher, Server},
    },
    telemetry::Metrics,
};
use lapin::{
    Connection, ConnectionProperties,
    message::BasicGetMessage,
    options::BasicGetOptions,
    types::{AMQPValue, FieldTable},
};
use url::Url;

use crate::{
    contract::{DeadLetter, Queue, keeps_every_promise, ladder, within},
    proxy::{Mute, Proxy},
};

keeps_every_promise!(RabbitMq);

/// As in the worker.
const PREFETCH: u16 = 300;

/// A topology of its own, reached through a proxy.
pub(crate) struct RabbitMq {
    server: Server,
    proxy: Proxy,
    metrics: Arc<Metrics>,
    /// Kept until the end: closing them would close their lanes.
    running: Vec<AmqpConsumers>,
    publishers: Vec<AmqpPublisher>,
}

fn amqp_url() -> Url {
    let url = std::env::var("AMQP_URL").expect("AMQP_URL is not set: run scripts/test");
    url.parse().unwrap()
}

/// Waits for all parts but that of the lanes, which are ready once somebody consumes.
async fn ready(readiness: &Readiness) {
    within("connections", async {
        let is_missing = |part: &(&str, String)| part.0 != "queue_consume";
        while readiness.problems().await.iter().any(is_missing) {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    })
    .await;
}

impl Queue for RabbitMq {
    type Publisher = AmqpPublisher;
    type Consumer = AmqpConsumer;
    type Stall = Mute;

    async fn new() -> Self {
        let mut url = amqp_url();
        let (host, port) = (url.host_str().unwrap(), url.port().unwrap_or(5672));
        let proxy = Proxy::start(format!("{host}:{port}")).await;
        url.set_host(Some(&proxy.address.ip().to_string())).unwrap();
        url.set_port(Some(proxy.address.port())).unwrap();
        let random = RandomState::new().build_hasher().finish();
        let topology = Topology {
            prefix: format!("t{random:016x}"),
            ladder: ladder(),
            ..Topology::default()
        };
        let server = Server {
            url: url.as_str().parse().unwrap(),
            ca: None,
            topology,
        };
        amqp::setup(&server).await.unwrap();
        Self {
            server,
            proxy,
            metrics: Arc::new(Metrics::new(0)),
            running: Vec::new(),
            publishers: Vec::new(),
        }
    }

    async fn publisher(&mut self) -> AmqpPublisher {
        let readiness = Readiness::default();
        let part = readiness.told("queue");
        let publisher = AmqpPublisher::start(self.server.clone(), self.metrics.clone(), part);
        ready(&readiness).await;
        self.publishers.push(publisher.clone());
        publisher
    }

    async fn consumers(&mut self, lanes: usize) -> Vec<AmqpConsumer> {
        let readiness = Readiness::default();
        let mut running = AmqpConsumers::start(
            self.server.clone(),
            lanes,
            PREFETCH,
            &self.metrics,
            &readiness,
        );
        let lanes = running.take_lanes();
        // A failed event is moved on within the settling only when the way is free.
        ready(&readiness).await;
        self.running.push(running);
        lanes
    }

    async fn reopened(mut self) -> Self {
        self.running.clear();
        self.publishers.clear();
        self
    }

    async fn dead_letters(&mut self) -> Vec<DeadLetter> {
        let url = amqp_url();
        let connection = Connection::connect(url.as_str(), ConnectionProperties::default());
        let connection = connection.await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let queue = self.server.topology.dead();
        let mut dead = Vec::new();
        while let Some(message) = channel
            .basic_get(queue.as_str().into(), BasicGetOptions { no_ack: false })
            .await
            .unwrap()
        {
            dead.push(dead_letter(message));
        }
        // Closing it gives them back.
        connection.close(200, "seen".into()).await.unwrap();
        dead
    }

    async fn stall(&mut self) -> Mute {
        self.proxy.mute()
    }

    async fn remove(self) {
        for consumers in &self.running {
            consumers.close().await;
        }
        for publisher in &self.publishers {
            publisher.close().await;
        }
        amqp::remove(&self.server).await.unwrap();
    }
}

fn dead_letter(message: BasicGetMessage) -> DeadLetter {
    let properties = &message.properties;
    let none = FieldTable::default();
    let headers = properties.headers().as_ref().unwrap_or(&none).inner();
    let text = |name: &str| match headers.get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        other => panic!("{name}: {other:?}"),
    };
    let number = |name: &str| match headers.get(name)? {
        AMQPValue::LongLongInt(number) => Some(*number),
        other => panic!("{name}: {other:?}"),
    };
    DeadLetter {
        attempt: number("x-attempt").map_or(0, |attempt| attempt.try_into().unwrap()),
        first_failed_at: number("x-first-failed-at").map(Millis),
        reason: text("x-error"),
        detail: text("x-error-detail"),
        event: Event {
            id: EventId::parse(properties.message_id().as_ref().unwrap().as_str()).unwrap(),
            event_type: EventType::parse(properties.kind().as_ref().unwrap().as_str()).unwrap(),
            received_at: number("x-received-at").map(Millis).unwrap(),
            attempted_at: number("svix-timestamp").unwrap(),
            traceparent: text("traceparent"),
            body: Bytes::from(message.delivery.data),
        },
    }
}
