//! The queue on RabbitMQ, and what it promises beyond the contract.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::Arc,
};

use bytes::Bytes;
use clerk_sync_pipeline::{
    Event, EventId, EventType, Millis,
    admin::Readiness,
    queue::{
        BatchLimits, Consume as _, Failure, Reason, Rung, Settlement, Topology,
        amqp::{self, AmqpConsumer, AmqpConsumers, AmqpParked, AmqpPublisher, Server},
    },
    telemetry::Metrics,
};
use futures_util::FutureExt as _;
use lapin::{
    Channel, Connection, ConnectionProperties,
    message::BasicGetMessage,
    options::{BasicGetOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use url::Url;

use crate::{
    contract::{self, DeadLetter, Queue, keeps_every_promise, ladder, within},
    parked::{Parking, keeps_every_promise_to_operators},
    proxy::{Mute, Proxy},
};

mod operator;

keeps_every_promise!(RabbitMq);
keeps_every_promise_to_operators!(RabbitMq);

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

/// A connection that does not go through a queue's proxy.
async fn channel() -> (Connection, Channel) {
    let url = amqp_url();
    let connection = Connection::connect(url.as_str(), ConnectionProperties::default());
    let connection = connection.await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
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
            nodes: url.as_str().parse().unwrap(),
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
        let (connection, channel) = channel().await;
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

impl Parking for RabbitMq {
    type Operator = AmqpParked;

    async fn operator(&self) -> AmqpParked {
        AmqpParked::open(&self.server).await.unwrap()
    }
}

/// Gets a copy of whatever passes an exchange of the topology, from now on.
struct Observer {
    connection: Connection,
    channel: Channel,
    queue: ShortString,
}

impl Observer {
    async fn new(exchange: &str, routing_keys: &[&str]) -> Self {
        let (connection, channel) = channel().await;
        let options = QueueDeclareOptions {
            exclusive: true,
            ..Default::default()
        };
        let declared = channel.queue_declare("".into(), options, FieldTable::default());
        let queue = declared.await.unwrap().name().clone();
        for routing_key in routing_keys {
            let (queue, exchange) = (queue.clone(), exchange.into());
            let (options, none) = (QueueBindOptions::default(), FieldTable::default());
            channel
                .queue_bind(queue, exchange, (*routing_key).into(), options, none)
                .await
                .unwrap();
        }
        Self {
            connection,
            channel,
            queue,
        }
    }

    /// The next message that it has seen.
    async fn next(&self) -> BasicGetMessage {
        let options = BasicGetOptions { no_ack: true };
        within("a message", async {
            loop {
                let got = self.channel.basic_get(self.queue.clone(), options).await;
                match got.unwrap() {
                    Some(message) => return message,
                    None => tokio::time::sleep(std::time::Duration::from_millis(2)).await,
                }
            }
        })
        .await
    }

    async fn close(self) {
        self.connection.close(200, "seen".into()).await.unwrap();
    }
}

/// Name and value of every header.
fn headers(message: &BasicGetMessage) -> BTreeMap<String, AMQPValue> {
    let headers = message.properties.headers().clone().unwrap_or_default();
    let pair = |(name, value): (&ShortString, &AMQPValue)| (name.to_string(), value.clone());
    headers.inner().iter().map(pair).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_hop_carries_the_failure_and_nothing_of_the_brokers() {
    let mut queue = RabbitMq::new().await;
    let topology = queue.server.topology.clone();
    let sent = Observer::new(&topology.retry(), &["200ms", "400ms", "dead"]).await;
    let expired = Observer::new(&topology.return_exchange(), &[""]).await;
    contract::publish(&queue.publisher().await, &["msg_1"]).await;
    let mut consumer = queue.consumer().await;
    let mut first_failed_at = None;
    for (attempt, routing_key) in [(1, "200ms"), (2, "400ms"), (3, "dead")] {
        let delivery = contract::one(&mut consumer).await;
        let failure = Failure::new(Reason::EmailTaken, format!("failure {attempt}"));
        let how = match topology.ladder.rung(delivery.attempt) {
            Some(rung) => Settlement::Retry(rung, failure),
            None => Settlement::DeadLetter(failure),
        };
        contract::settle(&mut consumer, delivery, how).await;

        let message = sent.next().await;
        assert_eq!(message.routing_key.as_str(), routing_key);
        assert_eq!(*message.properties.delivery_mode(), Some(2), "persistent");
        let mut found = headers(&message);
        let first = found.remove("x-first-failed-at").unwrap();
        assert_eq!(*first_failed_at.get_or_insert(first.clone()), first);
        let number = AMQPValue::LongLongInt;
        let text = |text: &str| AMQPValue::LongString(text.into());
        let original = contract::event("msg_1");
        let expected = [
            ("svix-timestamp", number(original.attempted_at)),
            ("traceparent", text(&original.traceparent.unwrap())),
            ("x-attempt", number(attempt)),
            ("x-error", text("email_taken")),
            ("x-error-detail", text(&format!("failure {attempt}"))),
            ("x-received-at", number(original.received_at.0)),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(found, BTreeMap::from(expected));

        if attempt < 3 {
            // Else there would have been nothing to leave behind.
            let returned = headers(&expired.next().await);
            assert!(returned.contains_key("x-death"), "{returned:?}");
        }
    }
    sent.close().await;
    expired.close().await;
    drop(consumer);
    queue.remove().await;
}

/// An acknowledgement may stand for all deliveries before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_a_settle_that_was_given_up_settles_only_itself() {
    let mut queue = RabbitMq::new().await;
    contract::publish(&queue.publisher().await, &["msg_1", "msg_2"]).await;
    let mut consumer = queue.consumer().await;
    let mut held = contract::batch(&mut consumer, 2).await;
    let (second, first) = (held.pop().unwrap(), held.pop().unwrap());
    let id = first.event.id.clone();
    let failure = Failure::new(Reason::EmailTaken, "given up");
    let retry = Settlement::Retry(Rung(1), failure);
    let given_up = consumer.settle(vec![(first, retry)]).now_or_never();
    assert!(given_up.is_none(), "nothing is confirmed that soon");
    contract::settle(&mut consumer, second, Settlement::Done).await;
    consumer.hand_back().await;
    // It may be on its rung too. Nobody knows, so it comes once more as it was.
    loop {
        let again = contract::one(&mut consumer).await;
        assert_eq!(again.event.id, id);
        if again.attempt == 0 {
            break;
        }
        contract::settle(&mut consumer, again, Settlement::Done).await;
    }
    drop(consumer);
    queue.remove().await;
}

/// Two lanes of half-empty batches would cost twice as much.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_gets_nothing_before_the_one_before_it_is_full() {
    let mut queue = RabbitMq::new().await;
    let publisher = queue.publisher().await;
    let mut second = queue.consumers(2).await;
    let mut first = second.remove(0);
    let mut second = second.remove(0);
    let batch = |events: usize| BatchLimits {
        events,
        linger: contract::NEVER,
    };
    // The second consumes before the first, so that it is no matter of who came first.
    contract::publish(&publisher, &["msg_early"]).await;
    let early = contract::one(&mut second).await;
    contract::settle(&mut second, early, Settlement::Done).await;
    let full = usize::from(PREFETCH);
    let ids: Vec<String> = (0..full + 10).map(|n| format!("msg_{n}")).collect();
    let publish = async {
        consumers_of(&queue.server.topology.apply(), 2).await;
        // One by one: they would be shared evenly.
        for id in &ids {
            contract::publish(&publisher, &[id]).await;
        }
    };
    let (in_first, in_second) = within("both lanes' batches", async {
        let (in_first, in_second, ()) = tokio::join!(
            first.next_batch(batch(full)),
            second.next_batch(batch(10)),
            publish
        );
        (in_first, in_second)
    })
    .await;
    assert_eq!(contract::ids(&in_first), ids[..full]);
    assert_eq!(contract::ids(&in_second), ids[full..]);
    drop((first, second));
    queue.remove().await;
}

/// Waits until a queue has so many consumers.
async fn consumers_of(queue: &str, wanted: u32) {
    let (connection, channel) = channel().await;
    let options = QueueDeclareOptions {
        passive: true,
        ..Default::default()
    };
    within("the consumers", async {
        loop {
            let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
            if declared.await.unwrap().consumer_count() == wanted {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    })
    .await;
    connection.close(200, "seen".into()).await.unwrap();
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
