//! The way in: a 2xx means that the event is kept, byte for byte, and nothing else does.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::time::sleep;

use crate::harness::{
    SOON,
    clerk::{self, Letter, SECRET, client, created, post},
    eventually,
    process::{Process, base_env},
    proxy::{Mode, Proxy},
    servers::{TestQueue, authority, broker_alone, rabbitmqctl, through},
};

/// An ingester whose broker is reached through a proxy.
struct Door {
    queue: TestQueue,
    proxy: Proxy,
    ingest: Process,
    url: String,
}

impl Door {
    async fn open(queue: TestQueue) -> Self {
        let proxy = Proxy::to(authority(queue.server.nodes.first())).await;
        let mut env = base_env();
        queue.env(&mut env);
        env.insert(
            "AMQP_URL",
            through(queue.server.nodes.first(), proxy.address)
                .expose()
                .to_string(),
        );
        env.insert("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned());
        let ingest = Process::start("clerk-sync-ingest", &[], &env);
        let url = ingest.webhook_url().await;
        Self {
            queue,
            proxy,
            ingest,
            url,
        }
    }

    async fn post(&self, letter: &Letter) -> u16 {
        post(&client(), &self.url, letter).await
    }

    async fn close(self) {
        self.ingest.stop().await;
        self.queue.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_posted_is_what_is_in_the_queue() {
    let door = Door::open(TestQueue::new().await).await;
    door.ingest.ready().await;
    let bodies: Vec<Vec<u8>> = vec![
        b"{\"type\":\"user.created\" ,\t\"b\":1.0,\"a\":1e2,\"b\":2,\n\"big\":12345678901234567890123}".to_vec(),
        "{\"type\":\"user.updated\",\"n\":\"\\u00e9 é \u{202e} 👩‍💻\"}".as_bytes().to_vec(),
        b"not JSON at all".to_vec(),
        b"{}".to_vec(),
        json!({"type": "user.updated", "pad": "x".repeat(350_000)}).to_string().into_bytes(),
        clerk::fixture("unknown_future_event"),
    ];
    let mut letters: Vec<Letter> = bodies.into_iter().map(Letter::new).collect();
    for letter in &letters {
        assert_eq!(door.post(letter).await, 204);
    }
    let mut taken = door.queue.drain(&door.queue.server.topology.apply()).await;
    taken.sort_by(|a, b| a.id.cmp(&b.id));
    letters.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(taken.len(), letters.len());
    for (taken, letter) in taken.iter().zip(&letters) {
        assert_eq!(taken.id.as_deref(), Some(&*letter.id));
        assert!(
            taken.body == letter.body,
            "the body of {} was changed",
            letter.id
        );
        assert_eq!(taken.delivery_mode, Some(2), "persistent");
        assert!(
            taken
                .number("x-received-at")
                .is_some_and(|at| at / 1000 <= clerk::now())
        );
        assert!(taken.number("svix-timestamp").is_some());
    }
    let types: Vec<_> = taken
        .iter()
        .map(|taken| taken.event_type.clone().unwrap())
        .collect();
    assert!(
        types.contains(&"unparsable".to_owned())
            && types.contains(&"userPasskey.enrolled".to_owned())
    );
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_broker_is_a_503_at_once_and_shows_in_readiness() {
    let door = Door::open(TestQueue::new().await).await;
    door.ingest.ready().await;
    door.proxy.set(Mode::Closed);
    eventually("the loss is noticed", SOON, async || {
        door.ingest.admin("/readyz").await.0 == 503
    })
    .await;
    let started = std::time::Instant::now();
    let letter = created("user_1", "a@a.example");
    assert_eq!(door.post(&letter).await, 503);
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "no waiting for what is not there"
    );
    assert!(door.ingest.metric("clerk_sync_queue_connected", "").await < 0.5);

    door.proxy.set(Mode::Open);
    door.ingest.ready().await;
    assert_eq!(door.post(&letter).await, 204);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_between_publish_and_confirm_is_no_2xx() {
    let door = Door::open(TestQueue::new().await).await;
    door.ingest.ready().await;
    // The broker gets the message, its confirm never arrives.
    door.proxy.set(Mode::Mute);
    let letter = created("user_1", "a@a.example");
    let (status, ()) = tokio::join!(door.post(&letter), async {
        sleep(Duration::from_secs(1)).await;
        door.proxy.set(Mode::Closed);
    });
    assert_eq!(status, 503);
    door.proxy.set(Mode::Open);
    door.ingest.ready().await;
    assert_eq!(
        door.post(&letter).await,
        204,
        "delivered again, as Svix does"
    );
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_broker_is_a_503_within_svix_patience_and_is_left() {
    let door = Door::open(TestQueue::new().await).await;
    door.ingest.ready().await;
    door.proxy.set(Mode::Mute);
    let started = std::time::Instant::now();
    assert_eq!(door.post(&created("user_1", "a@a.example")).await, 503);
    assert!(started.elapsed() < Duration::from_secs(10));
    eventually("the dead connection is given up", SOON, async || {
        door.ingest.admin("/readyz").await.0 == 503
    })
    .await;
    door.proxy.set(Mode::Open);
    door.ingest.ready().await;
    assert_eq!(door.post(&created("user_2", "b@a.example")).await, 204);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_answered_2xx_is_in_the_queue_however_often_the_connection_breaks() {
    let door = Door::open(TestQueue::new().await).await;
    door.ingest.ready().await;
    let url = Arc::new(door.url.clone());
    let senders: Vec<_> = (0..8)
        .map(|sender| {
            let url = url.clone();
            tokio::spawn(async move {
                let client = client();
                let mut accepted = Vec::new();
                for number in 0..150 {
                    let letter = created(&format!("user_{sender}_{number}"), "x@a.example");
                    if post(&client, &url, &letter).await == 204 {
                        accepted.push(letter.id);
                    } else {
                        sleep(Duration::from_millis(20)).await;
                    }
                }
                accepted
            })
        })
        .collect();
    for round in 0..6 {
        sleep(Duration::from_millis(200)).await;
        door.proxy.set(if round % 2 == 0 {
            Mode::Mute
        } else {
            Mode::Closed
        });
        sleep(Duration::from_millis(60)).await;
        door.proxy.set(Mode::Closed);
        sleep(Duration::from_millis(20)).await;
        door.proxy.set(Mode::Open);
    }
    let mut accepted = Vec::new();
    for sender in senders {
        accepted.extend(sender.await.unwrap());
    }
    let queue = door.queue.server.topology.apply();
    let queued: std::collections::HashSet<String> = door
        .queue
        .drain(&queue)
        .await
        .into_iter()
        .filter_map(|taken| taken.id)
        .collect();
    let lost: Vec<_> = accepted.iter().filter(|id| !queued.contains(*id)).collect();
    assert!(lost.is_empty(), "{} of {} lost", lost.len(), accepted.len());
    assert!(
        accepted.len() > 100,
        "only {} were accepted at all",
        accepted.len()
    );
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unrouted_event_is_kept_and_a_returned_one_is_a_503() {
    let door = Door::open(TestQueue::new().await).await;
    door.ingest.ready().await;
    let topology = door.queue.server.topology.clone();
    let (_connection, channel) = door.queue.channel().await;
    channel
        .queue_delete(topology.apply().into(), Default::default())
        .await
        .unwrap();
    let letter = created("user_1", "a@a.example");
    assert_eq!(
        door.post(&letter).await,
        204,
        "the alternate exchange keeps it"
    );
    assert_eq!(
        door.queue.drain(&topology.unrouted()).await[0]
            .id
            .as_deref(),
        Some(&*letter.id)
    );

    channel
        .queue_delete(topology.unrouted().into(), Default::default())
        .await
        .unwrap();
    assert_eq!(
        door.post(&created("user_2", "b@a.example")).await,
        503,
        "nothing keeps it"
    );
    clerk_sync_pipeline::queue::amqp::setup(&door.queue.server)
        .await
        .unwrap();
    door.ingest.ready().await;
    eventually("it is taken again", SOON, async || {
        door.post(&created("user_3", "c@a.example")).await == 204
    })
    .await;
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topology_is_named_with_the_command_that_makes_it() {
    let door = Door::open(TestQueue::bare("5s").await).await;
    eventually("the cause is told", SOON, async || {
        let (status, body) = door.ingest.admin("/readyz").await;
        status == 503 && body.contains("clerk-sync setup")
    })
    .await;
    assert_eq!(door.post(&created("user_1", "a@a.example")).await, 503);
    clerk_sync_pipeline::queue::amqp::setup(&door.queue.server)
        .await
        .unwrap();
    door.ingest.ready().await;
    assert_eq!(door.post(&created("user_1", "a@a.example")).await, 204);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_alarm_is_a_503_and_shows_in_readiness_until_it_is_over() {
    let alone = broker_alone().await;
    let queue = TestQueue::on_a_broker_held("5s");
    clerk_sync_pipeline::queue::amqp::setup(&queue.server)
        .await
        .unwrap();
    let door = Door::open(queue).await;
    door.ingest.ready().await;
    let letter = created("user_1", "a@a.example");
    assert_eq!(door.post(&letter).await, 204);

    rabbitmqctl(&["set_vm_memory_high_watermark", "0.00001"]).await;
    // The first publish makes the broker say so; it is answered in time all the same.
    eventually("publishes are refused", SOON, async || {
        door.post(&letter).await == 503
    })
    .await;
    eventually("the alarm is told", SOON, async || {
        door.ingest.admin("/readyz").await.1.contains("alarm")
    })
    .await;
    let started = std::time::Instant::now();
    assert_eq!(door.post(&letter).await, 503);
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "at once, now that it is known"
    );

    rabbitmqctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    door.ingest.ready().await;
    assert_eq!(door.post(&created("user_2", "b@a.example")).await, 204);
    let queue = door.queue.server.topology.apply();
    let queued = door.queue.drain(&queue).await;
    assert!(
        queued
            .iter()
            .filter_map(|taken| taken.id.as_ref())
            .any(|id| *id == letter.id)
    );
    door.close().await;
    drop(alone);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_a_503_and_takes_events_again_when_it_has_room() {
    let mut queue = TestQueue::bare("5s").await;
    queue.server.topology.max_length_bytes = 20_000;
    clerk_sync_pipeline::queue::amqp::setup(&queue.server)
        .await
        .unwrap();
    let door = Door::open(queue).await;
    door.ingest.ready().await;
    let big = || Letter::new(json!({"type": "user.updated", "pad": "x".repeat(5000)}).to_string());
    let mut statuses = Vec::new();
    for _ in 0..30 {
        statuses.push(door.post(&big()).await);
    }
    let accepted = statuses.iter().filter(|status| **status == 204).count();
    assert!(statuses.contains(&503), "{statuses:?}");
    let queue = door.queue.server.topology.apply();
    assert_eq!(
        door.queue.drain(&queue).await.len(),
        accepted,
        "each 204 is in the queue"
    );
    eventually("it has room again", SOON, async || {
        door.post(&big()).await == 204
    })
    .await;
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_cuts_no_request_and_loses_no_event() {
    let door = Door::open(TestQueue::new().await).await;
    door.ingest.ready().await;
    let url = Arc::new(door.url.clone());
    let senders: Vec<_> = (0..16)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move {
                let client = client();
                let mut accepted = Vec::new();
                let mut cut = 0;
                loop {
                    let letter = created("user_1", "x@a.example");
                    let timestamp = clerk::now();
                    let request = client
                        .post(&*url)
                        .header("svix-id", &letter.id)
                        .header("svix-timestamp", timestamp)
                        .header(
                            "svix-signature",
                            clerk::sign(&letter.id, timestamp, &letter.body),
                        )
                        .body(letter.body.clone());
                    match request.send().await {
                        Ok(response) if response.status() == 204 => accepted.push(letter.id),
                        Ok(_) => {}
                        // Refused is not cut: that request was never begun.
                        Err(error) if error.is_connect() => return (accepted, cut),
                        Err(_) => cut += 1,
                    }
                }
            })
        })
        .collect();
    eventually("the load is on", SOON, async || {
        let outcomes = "clerk_sync_webhook_requests_total";
        door.ingest.metric(outcomes, "accepted").await > 200.0
    })
    .await;
    let Door {
        queue,
        mut ingest,
        proxy,
        ..
    } = door;
    ingest.signal("-TERM");
    let status = ingest.wait().await;
    assert_eq!(status.code(), Some(0), "{}", ingest.output());
    let mut accepted = Vec::new();
    let mut cut = 0;
    for sender in senders {
        let (ids, cuts) = sender.await.unwrap();
        accepted.extend(ids);
        cut += cuts;
    }
    assert_eq!(cut, 0, "requests were cut");
    assert!(accepted.len() > 100);
    let queued: std::collections::HashSet<String> = queue
        .drain(&queue.server.topology.apply())
        .await
        .into_iter()
        .filter_map(|taken| taken.id)
        .collect();
    assert!(
        accepted.iter().all(|id| queued.contains(id)),
        "an accepted event is lost"
    );
    drop(proxy);
    queue.remove().await;
}
