//! What an operator is promised on RabbitMQ beyond the contract.

use std::{collections::BTreeSet, time::Duration};

use clerk_sync_pipeline::queue::{
    BatchLimits, Consume as _, DELIVERY_LIMIT, Reason, Rung, Topology,
    amqp::{AmqpParked, Server},
    parked::{self, Fate, Letter, Parked as _, Place},
};
use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::BasicPublishOptions,
    types::{AMQPValue, FieldTable},
};

use super::{Observer, RabbitMq, amqp_url, headers};
use crate::{
    contract::{self, Queue as _, event, one, settle_all_done, within},
    parked::{Parking as _, numbered, park},
};

async fn publish_by_hand(exchange: &str, routing_key: &str, properties: BasicProperties) {
    let url = amqp_url();
    let connection = Connection::connect(url.as_str(), ConnectionProperties::default());
    let connection = connection.await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let options = BasicPublishOptions::default();
    channel
        .basic_publish(
            exchange.into(),
            routing_key.into(),
            options,
            b"who knows",
            properties,
        )
        .await
        .unwrap();
    connection.close(200, "done".into()).await.unwrap();
}

async fn letters(operator: &mut AmqpParked, place: Place) -> Vec<Letter> {
    within("a letter", async {
        loop {
            let mut seen = Vec::new();
            let walk = operator.walk(place, |letter| {
                seen.push(letter.clone());
                Fate::Keep
            });
            walk.await.unwrap();
            if !seen.is_empty() {
                return seen;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_while_somebody_thinks_is_for_others_to_see() {
    let mut queue = RabbitMq::new().await;
    park(&mut queue, &numbered(30), Reason::MissingEmail).await;
    let mut thinking = queue.operator().await;
    let walk = thinking.walk(Place::Dead, |_| Fate::Mark);
    assert_eq!(within("a walk", walk).await.unwrap(), 0);
    park(&mut queue, &[event("msg_late")], Reason::MissingEmail).await;
    let mut other = queue.operator().await;
    let seen = letters(&mut other, Place::Dead).await;
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].id.as_str(), "msg_late");
    other.close().await;
    assert_eq!(thinking.discard_marked().await.unwrap(), 30);
    assert_eq!(letters(&mut thinking, Place::Dead).await.len(), 1);
    thinking.close().await;
    queue.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_message_is_a_letter_like_any_other() {
    let mut queue = RabbitMq::new().await;
    let topology = queue.server.topology.clone();
    // Without anything of ours; and to a rung that nobody has, with headers that mean nothing.
    publish_by_hand("", &topology.dead(), BasicProperties::default()).await;
    let mut odd = FieldTable::default();
    odd.insert("x-error".into(), AMQPValue::LongString("\u{1b}[2J".into()));
    odd.insert("x-attempt".into(), AMQPValue::LongLongInt(-3));
    odd.insert("x-received-at".into(), AMQPValue::Boolean(true));
    odd.insert("x-first-failed-at".into(), AMQPValue::Double(0.5));
    odd.insert("x-death".into(), AMQPValue::LongString("of course".into()));
    let odd = BasicProperties::default()
        .with_headers(odd)
        .with_expiration("3600000".into())
        .with_timestamp(1_767_225_600);
    publish_by_hand(&topology.retry(), "7s", odd).await;

    let mut operator = queue.operator().await;
    let bare = letters(&mut operator, Place::Dead).await.remove(0);
    assert_eq!(bare.code, parked::UNKNOWN);
    assert_eq!((bare.attempts, bare.bytes), (0, 9));
    assert_eq!((bare.received_at, bare.first_failed_at), (None, None));
    let odd = letters(&mut operator, Place::Unrouted).await.remove(0);
    assert_eq!(odd.code, parked::UNROUTED);
    assert_eq!((odd.attempts, odd.first_failed_at), (0, None));
    assert_eq!(odd.received_at.unwrap().0, 1_767_225_600_000);
    assert!(odd.id.as_str().starts_with("foreign_"), "{}", odd.id);
    assert_eq!(odd.id, bare.id, "it is made of the bytes");
    assert!(
        odd.headers
            .contains(&("x-received-at".to_owned(), "true".to_owned()))
    );

    let body = operator.body(Place::Unrouted, &odd.id).await.unwrap();
    assert_eq!(body.as_deref(), Some(&b"who knows"[..]));
    // One is sent again, and the other has an end.
    let walk = operator.walk(Place::Unrouted, |_| Fate::Replay);
    assert_eq!(walk.await.unwrap(), 1);
    let delivery = one(&mut queue.consumer().await).await;
    assert_eq!(delivery.event.id, odd.id);
    assert_eq!(delivery.event.event_type.as_str(), "7s", "its routing key");
    assert_eq!(&delivery.event.body[..], b"who knows");
    assert_eq!((delivery.attempt, delivery.first_failed_at), (0, None));
    let walk = operator.walk(Place::Dead, |_| Fate::Mark);
    assert_eq!(walk.await.unwrap(), 0);
    assert_eq!(operator.discard_marked().await.unwrap(), 1);
    for place in [Place::Dead, Place::Unrouted] {
        assert_eq!(operator.count(place).await.unwrap(), 0);
    }
    operator.close().await;
    queue.remove().await;
}

/// Not to where ingest publishes: whoever has bound a queue there has seen the event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_goes_to_the_first_rung_as_the_event_first_came() {
    let mut queue = RabbitMq::new().await;
    let topology = queue.server.topology.clone();
    let first_came = Observer::new(&topology.events(), &["#"]).await;
    contract::publish(&queue.publisher().await, &["msg_1"]).await;
    let original = first_came.next().await;
    // Given up by the broker: x-death is there to be left behind.
    let mut consumer = queue.consumer().await;
    for _ in 0..=DELIVERY_LIMIT {
        one(&mut consumer).await;
        within("hand back", consumer.hand_back()).await;
    }
    let mut operator = queue.operator().await;
    let dead = letters(&mut operator, Place::Dead).await.remove(0);
    assert!(dead.headers.iter().any(|(name, _)| name == "x-death"));

    let sent = Observer::new(&topology.retry(), &["200ms"]).await;
    let walk = operator.walk(Place::Dead, |_| Fate::Replay);
    assert_eq!(walk.await.unwrap(), 1);
    let replayed = sent.next().await;
    assert_eq!(replayed.properties, original.properties);
    assert_eq!(headers(&replayed), headers(&original));
    assert_eq!(replayed.data, original.data);
    assert_eq!(*replayed.properties.delivery_mode(), Some(2));

    let events = first_came.channel.clone();
    assert!(one(&mut consumer).await.event == event("msg_1"));
    let got = events.basic_get(first_came.queue.clone(), Default::default());
    assert!(got.await.unwrap().is_none(), "others see it once");
    first_came.close().await;
    sent.close().await;
    operator.close().await;
    drop(consumer);
    queue.remove().await;
}

/// The exchange's alternate would take the letters, and the broker call it routed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_to_a_rung_that_is_not_there_moves_nothing() {
    let mut queue = RabbitMq::new().await;
    park_some(&mut queue, 20).await;
    let topology = Topology {
        ladder: "7s".parse().unwrap(),
        ..queue.server.topology.clone()
    };
    let rung = topology.rung(Rung(0));
    let server = Server {
        topology,
        ..queue.server.clone()
    };
    let mut operator = AmqpParked::open(&server).await.unwrap();
    let walk = operator.walk(Place::Dead, |_| Fate::Replay);
    let error = walk.await.unwrap_err();
    assert_eq!(error.done, 0);
    for part in [rung.as_str(), "RETRY_DELAYS", "clerk-sync setup"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    operator.close().await;
    let mut operator = queue.operator().await;
    within("all are back", async {
        while operator.count(Place::Dead).await.unwrap() < 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(operator.count(Place::Unrouted).await.unwrap(), 0);
    operator.close().await;
    queue.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_missing_names_setup() {
    let queue = RabbitMq::new().await;
    let server = Server {
        topology: Topology {
            prefix: format!("{}.nothing", queue.server.topology.prefix),
            ..queue.server.topology.clone()
        },
        ..queue.server.clone()
    };
    let mut operator = AmqpParked::open(&server).await.unwrap();
    let error = operator.count(Place::Dead).await.unwrap_err().to_string();
    for part in [server.topology.dead().as_str(), "clerk-sync setup"] {
        assert!(error.contains(part), "{error}");
    }
    operator.close().await;
    queue.remove().await;
}

/// Published or not, nobody knows: then the letter stays too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_goes_silent_in_mid_replay_loses_nothing() {
    const LETTERS: usize = 300;
    let mut queue = RabbitMq::new().await;
    park_some(&mut queue, LETTERS).await;
    let mut operator = queue.operator().await;
    let (reached, mut seen) = (LETTERS / 3, 0);
    let mut silence = None;
    let walk = operator.walk(Place::Dead, |_| {
        seen += 1;
        if seen == reached {
            silence = Some(queue.proxy.mute());
        }
        Fate::Replay
    });
    let error = tokio::time::timeout(Duration::from_secs(60), walk)
        .await
        .expect("it does not wait for ever")
        .unwrap_err();
    assert!(error.done < LETTERS as u64, "{error}");
    drop(operator);
    drop(silence);

    let mut operator = queue.operator().await;
    let mut left: BTreeSet<String> = numbered(LETTERS)
        .iter()
        .map(|event| event.id.to_string())
        .collect();
    // What the first one held comes back when the broker has noticed its end.
    let mut consumer = queue.consumer().await;
    within("each letter, here or there", async {
        while !left.is_empty() {
            let limits = BatchLimits {
                events: 100,
                linger: Duration::from_millis(5),
            };
            let next = consumer.next_batch(limits);
            if let Ok(came) = tokio::time::timeout(Duration::from_millis(300), next).await {
                for id in contract::ids(&came) {
                    left.remove(id);
                }
                settle_all_done(&mut consumer, came).await;
            }
            let walk = operator.walk(Place::Dead, |letter| {
                left.remove(letter.id.as_str());
                Fate::Keep
            });
            walk.await.unwrap();
        }
    })
    .await;
    operator.close().await;
    drop(consumer);
    queue.remove().await;
}

async fn park_some(queue: &mut RabbitMq, count: usize) {
    let reason = Reason::MissingEmail;
    park(queue, &numbered(count), reason).await;
}
