//! Which node of the broker a process is connected to, and what it says while it connects.

use clerk_sync_pipeline::queue::amqp;

use crate::harness::{
    SOON,
    clerk::{SECRET, client, created, deliver, post},
    eventually,
    process::{Env, Process, base_env, run},
    proxy::{Mode, Proxy},
    servers::{TestQueue, authority, broker_alone, rabbitmqctl, through},
};

fn ingest_env(queue: &TestQueue, amqp_url: &str) -> Env {
    let mut env = base_env();
    queue.env(&mut env);
    env.insert("AMQP_URL", amqp_url.to_owned());
    env.insert("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned());
    env
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_lost_is_left_for_another() {
    let queue = TestQueue::new().await;
    let broker = queue.server.nodes.first();
    let (one, two) = (
        Proxy::to(authority(broker)).await,
        Proxy::to(authority(broker)).await,
    );
    let url = |proxy: &Proxy| through(broker, proxy.address).expose().to_string();
    let nodes = format!("{},{}", url(&one), url(&two));
    let ingest = Process::start("clerk-sync-ingest", &[], &ingest_env(&queue, &nodes));
    let webhook = ingest.webhook_url().await;
    ingest.ready().await;
    let client = client();
    // Whichever it is on, it loses that one, twice.
    for (lost, left) in [(&one, &two), (&two, &one), (&one, &two)] {
        left.set(Mode::Open);
        lost.set(Mode::Closed);
        let letter = created("user_1", "a@a.example");
        deliver(&client, &webhook, &letter).await;
        ingest.ready().await;
    }

    // What is done once takes whichever node answers.
    let mut env = Env::new();
    queue.env(&mut env);
    env.insert("AMQP_URL", nodes);
    for _ in 0..4 {
        let (status, _, stderr) = run("clerk-sync", &["setup"], &env).await;
        assert!(status.success(), "{stderr}");
    }
    two.set(Mode::Closed);
    let (status, _, stderr) = run("clerk-sync", &["setup"], &env).await;
    assert_eq!(status.code(), Some(1));
    for proxy in [&one, &two] {
        let address = proxy.address.to_string();
        assert!(stderr.contains(&address), "{address} is named:\n{stderr}");
    }
    ingest.stop().await;
    queue.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_connects_during_an_alarm_says_so_and_is_ready_when_it_is_over() {
    let alone = broker_alone().await;
    let queue = TestQueue::on_a_broker_held("5s");
    amqp::setup(&queue.server).await.unwrap();
    rabbitmqctl(&["set_vm_memory_high_watermark", "0.00001"]).await;
    let broker = queue.server.nodes.first().expose().to_string();
    let ingest = Process::start("clerk-sync-ingest", &[], &ingest_env(&queue, &broker));
    let webhook = ingest.webhook_url().await;
    eventually("the alarm is told", SOON, async || {
        let (status, body) = ingest.admin("/readyz").await;
        status == 503 && body.contains("broker alarm")
    })
    .await;
    let letter = created("user_1", "a@a.example");
    assert_eq!(post(&client(), &webhook, &letter).await, 503);
    rabbitmqctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    ingest.ready().await;
    assert_eq!(post(&client(), &webhook, &letter).await, 204);
    let queued = queue.drain(&queue.server.topology.apply()).await;
    assert_eq!(
        queued.len(),
        1,
        "the question of the connection was no message"
    );
    ingest.stop().await;
    queue.remove().await;
    drop(alone);
}
