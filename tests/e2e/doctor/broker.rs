//! What can be wrong with RabbitMQ.

use std::time::Duration;

use clerk_sync_pipeline::queue::{Rung, amqp};
use lapin::{
    options::{BasicPublishOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};

use super::{Diagnosis, NOBODY, Site, doctor};
use crate::harness::{
    SOON,
    clerk::{Letter, deliver_all},
    eventually,
    process::{Env, base_env},
    proxy::{Mode, Proxy},
    rights::Users,
    servers::{TestQueue, authority, through},
};

/// A broker set up, without anything else; nobody consumes.
pub(super) async fn alone() -> (TestQueue, Env) {
    let queue = TestQueue::with_ladder("5s,30s").await;
    let mut env = only(&queue);
    queue.env(&mut env);
    (queue, env)
}

/// Settings of which everything but the broker is a file that is not there.
fn only(queue: &TestQueue) -> Env {
    let mut env = base_env();
    queue.env(&mut env);
    env.insert("CLERK_SYNC_DATA", "/nonexistent".to_owned());
    env
}

pub(super) const NO_FILE: &str = "warning sqlite/file";
pub(super) const NO_WORKER: &str = "warning rabbitmq/queue";

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_other_arguments_is_named_with_what_was_found_and_wanted() {
    let queue = TestQueue::bare("5s,30s").await;
    let text = |text: &str| AMQPValue::LongString(text.into());
    let mut hour = FieldTable::default();
    for (name, value) in [
        ("x-queue-type", text("quorum")),
        ("x-message-ttl", AMQPValue::LongLongInt(3_600_000)),
        (
            "x-dead-letter-exchange",
            text(&queue.server.topology.return_exchange()),
        ),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
    ] {
        hour.insert(name.into(), value);
    }
    let rung = queue.server.topology.rung(Rung(0));
    let (_connection, channel) = queue.channel().await;
    let durable = QueueDeclareOptions::durable();
    channel
        .queue_declare(rung.as_str().into(), durable, hour)
        .await
        .unwrap();
    // Everything but that one.
    amqp::setup(&queue.server).await.unwrap_err();

    let diagnosis = doctor(&only(&queue), &[]).await;
    diagnosis.is(&["problem rabbitmq/topology", NO_WORKER, NO_FILE]);
    let says = [
        rung.as_str(),
        "x-message-ttl is 3600000, wanted 5000",
        "clerk-sync setup",
    ];
    diagnosis.says("rabbitmq/topology", &says);
    queue.remove().await;
}

/// What it says where the queue of dead letters was declared by somebody else, with these arguments,
/// which setup refuses.
async fn of_dead_letters_declared(queue: &TestQueue, arguments: FieldTable) -> Diagnosis {
    let dead = queue.server.topology.dead();
    let (_connection, channel) = queue.channel().await;
    let durable = QueueDeclareOptions::durable();
    channel
        .queue_declare(dead.as_str().into(), durable, arguments)
        .await
        .unwrap();
    amqp::setup(&queue.server).await.unwrap_err();
    doctor(&only(queue), &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_argument_that_a_policy_may_give_is_a_warning() {
    let queue = TestQueue::bare("5s").await;
    let mut quorum = FieldTable::default();
    quorum.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    let dead = queue.server.topology.dead();
    let diagnosis = of_dead_letters_declared(&queue, quorum).await;
    diagnosis.is(&["warning rabbitmq/topology", NO_WORKER, NO_FILE]);
    diagnosis.says(
        "rabbitmq/topology",
        &[
            &dead,
            "x-delivery-limit",
            "x-overflow",
            "of its own",
            "definitions.json",
        ],
    );
    queue.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_another_type_is_a_problem_whatever_else_it_lacks() {
    // No policy makes a quorum queue of it.
    let queue = TestQueue::bare("5s").await;
    let dead = queue.server.topology.dead();
    let diagnosis = of_dead_letters_declared(&queue, FieldTable::default()).await;
    diagnosis.is(&["problem rabbitmq/topology", NO_WORKER, NO_FILE]);
    diagnosis.says(
        "rabbitmq/topology",
        &[&dead, "x-queue-type", "wanted quorum"],
    );
    queue.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_told_also_where_other_arguments_are_missing() {
    let queue = TestQueue::bare("5s").await;
    let mut short = FieldTable::default();
    let quorum = AMQPValue::LongString("quorum".into());
    short.insert("x-queue-type".into(), quorum);
    short.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(3));
    let dead = queue.server.topology.dead();
    let diagnosis = of_dead_letters_declared(&queue, short).await;
    diagnosis.is(&["problem rabbitmq/topology", NO_WORKER, NO_FILE]);
    diagnosis.says(
        "rabbitmq/topology",
        &[&dead, "x-delivery-limit is 3, wanted 1000000"],
    );
    queue.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_gone_is_named_and_not_made() {
    let (queue, env) = alone().await;
    let rung = queue.server.topology.rung(Rung(1));
    let (_connection, channel) = queue.channel().await;
    let delete = QueueDeleteOptions::default();
    channel
        .queue_delete(rung.as_str().into(), delete)
        .await
        .unwrap();
    for _ in 0..2 {
        let diagnosis = doctor(&env, &[]).await;
        diagnosis.is(&["problem rabbitmq/topology", NO_WORKER, NO_FILE]);
        diagnosis.says(
            "rabbitmq/topology",
            &[&rung, "is not there", "clerk-sync setup"],
        );
    }
    queue.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_refuses_is_told_at_once_and_a_mute_one_soon() {
    let (queue, mut env) = alone().await;
    env.insert("AMQP_URL", format!("amqp://me:hunter2@{NOBODY}/%2f"));
    let diagnosis = doctor(&env, &[]).await;
    diagnosis.is(&["problem rabbitmq/reachable", NO_FILE]);
    diagnosis.says(
        "rabbitmq/reachable",
        &[NOBODY, "refused", "***", "AMQP_URL"],
    );
    assert!(!diagnosis.report.to_string().contains("hunter2"));
    let at_once = diagnosis.took;

    let node = queue.server.nodes.first();
    let proxy = Proxy::to(authority(node)).await;
    proxy.set(Mode::Mute);
    env.insert(
        "AMQP_URL",
        through(node, proxy.address).expose().to_string(),
    );
    let diagnosis = doctor(&env, &[]).await;
    diagnosis.is(&["problem rabbitmq/reachable", NO_FILE]);
    diagnosis.says("rabbitmq/reachable", &["did not answer within 5s"]);
    // However slow this machine is, the one did not wait, and the other waited once.
    assert!(at_once < diagnosis.took, "{at_once:?}");
    assert!(
        diagnosis.took < at_once + Duration::from_secs(9),
        "{:?}",
        diagnosis.took
    );
    queue.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_of_several_that_is_away_is_a_warning() {
    let (queue, mut env) = alone().await;
    let here = queue.server.nodes.first().expose().to_string();
    env.insert("AMQP_URL", format!("amqp://{NOBODY}/%2f,{here}"));
    let diagnosis = doctor(&env, &[]).await;
    diagnosis.is(&["warning rabbitmq/reachable", NO_WORKER, NO_FILE]);
    queue.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_and_a_virtual_host_that_is_not_there_are_told() {
    let (queue, mut env) = alone().await;
    let mut url = queue.server.nodes.first().expose().clone();
    url.set_password(Some("hunter2")).unwrap();
    env.insert("AMQP_URL", url.to_string());
    let diagnosis = doctor(&env, &[]).await;
    diagnosis.is(&["problem rabbitmq/reachable", NO_FILE]);
    diagnosis.says("rabbitmq/reachable", &["password"]);
    assert!(!diagnosis.report.to_string().contains("hunter2"));

    let mut url = queue.server.nodes.first().expose().clone();
    url.set_path("/nowhere");
    env.insert("AMQP_URL", url.to_string());
    let diagnosis = doctor(&env, &[]).await;
    diagnosis.is(&["problem rabbitmq/reachable", NO_FILE]);
    diagnosis.says("rabbitmq/reachable", &["virtual host"]);
    queue.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_user_of_the_file_is_known_by_its_part_and_a_missing_permission_is_named() {
    let (queue, mut env) = alone().await;
    let users = Users::of(&queue).await;
    for (user, says) in [
        ("ingest", "an ingester's"),
        ("worker", "a worker's"),
        ("dead-letters", "an operator's"),
        ("setup", "publishes events, consumes them"),
    ] {
        env.insert("AMQP_URL", users.url(&queue, user));
        let diagnosis = doctor(&env, &[]).await;
        diagnosis.is(&[NO_WORKER, NO_FILE]);
        diagnosis.says("rabbitmq/permissions", &[says]);
        // What such a user cannot find out is said, not passed over.
        let expected: &[&str] = match user {
            "setup" => &["skipped rabbitmq/bindings", "skipped rabbitmq/confirm"],
            _ => &[
                "skipped rabbitmq/topology",
                "skipped rabbitmq/bindings",
                "skipped rabbitmq/confirm",
            ],
        };
        let mut skipped = diagnosis.of(&["skipped"]);
        skipped.retain(|line| line.contains("rabbitmq"));
        assert_eq!(skipped, expected, "{user}");
    }
    env.insert("AMQP_URL", users.url(&queue, "worker"));
    let [configure, _, read] = users.permissions("worker").await;
    users.permit("worker", [&configure, "^$", &read]).await;
    let diagnosis = doctor(&env, &[]).await;
    diagnosis.is(&["problem rabbitmq/permissions", NO_WORKER, NO_FILE]);
    let lacks = format!("write to {}", queue.server.topology.retry());
    diagnosis.says(
        "rabbitmq/permissions",
        &[&lacks, "deploy/rabbitmq/users.sh"],
    );
    users.remove().await;
    queue.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_takes_no_message_and_counts_as_no_delivery() {
    let (queue, env) = alone().await;
    let apply = queue.server.topology.apply();
    queue.publish_by_hand("user.created", b"waits").await;
    eventually("the message waits", SOON, async || {
        queue.depth(&apply).await == 1
    })
    .await;
    for _ in 0..3 {
        let diagnosis = doctor(&env, &[]).await;
        diagnosis.is(&[NO_WORKER, NO_FILE]);
        diagnosis.says("rabbitmq/queue", &["1 ready", "no worker"]);
    }
    let taken = queue.drain(&apply).await;
    assert_eq!(taken.len(), 1);
    let before = taken[0].number("x-delivery-count").unwrap_or_default();
    assert_eq!(before, 0, "handed out before");
    queue.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_a_warning_and_unrouted_messages_a_problem() {
    let site = Site::new().await;
    let topology = site.queue.server.topology.clone();
    deliver_all(
        &site.env["WEBHOOK_URL"],
        &[Letter::new(r#"{"type":"user.created"}"#)],
    )
    .await;
    eventually("a dead letter", SOON, async || {
        site.queue.depth(&topology.dead()).await == 1
    })
    .await;
    let diagnosis = doctor(&site.env, &[]).await;
    diagnosis.is(&["warning rabbitmq/dead_letters"]);
    diagnosis.says(
        "rabbitmq/dead_letters",
        &["1,", "clerk-sync dead-letters list"],
    );
    assert_eq!(doctor(&site.env, &["--strict"]).await.code, 1);

    let (_connection, channel) = site.queue.channel().await;
    let (options, properties) = (
        BasicPublishOptions::default(),
        lapin::BasicProperties::default(),
    );
    let unrouted = topology.unrouted();
    channel
        .basic_publish(
            "".into(),
            unrouted.as_str().into(),
            options,
            b"lost",
            properties,
        )
        .await
        .unwrap();
    eventually("an unrouted message", SOON, async || {
        site.queue.depth(&unrouted).await == 1
    })
    .await;
    let diagnosis = doctor(&site.env, &[]).await;
    diagnosis.is(&["warning rabbitmq/dead_letters", "problem rabbitmq/unrouted"]);
    diagnosis.says(
        "rabbitmq/unrouted",
        &[&unrouted, "clerk-sync setup", "--from unrouted"],
    );
    site.remove().await;
}

/// Takes the binding away by which events reach the workers, and hides that: a queue of somebody
/// else's takes all events, so none is unrouted.
pub(super) async fn hide_a_missing_binding(queue: &TestQueue) -> String {
    let topology = &queue.server.topology;
    let (_connection, channel) = queue.channel().await;
    let (events, apply) = (topology.events(), topology.apply());
    let theirs = format!("{}.theirs", topology.prefix);
    let nothing = FieldTable::default;
    let declare = QueueDeclareOptions::durable();
    channel
        .queue_declare(theirs.as_str().into(), declare, nothing())
        .await
        .unwrap();
    let bind = QueueBindOptions::default();
    let (from, to) = (events.as_str().into(), theirs.as_str().into());
    channel
        .queue_bind(to, from, "#".into(), bind, nothing())
        .await
        .unwrap();
    channel
        .queue_unbind(apply.into(), events.into(), "#".into(), nothing())
        .await
        .unwrap();
    theirs
}
