//! The users of RabbitMQ: each suffices, nothing of it can be spared, and it is no more.

use std::time::Duration;

use clerk_sync_pipeline::queue::{Rung, Topology, amqp};
use lapin::{
    BasicProperties, Channel, Connection, ExchangeKind,
    options::{
        BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
        ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::FieldTable,
};

use tokio::time::{sleep, timeout};

use super::{ingest_env, worker_env};
use crate::harness::{
    SOON,
    process::{Env, Process, run},
    rights::{USERS, Users},
    servers::{TestDb, TestQueue},
};

/// What somebody may try.
#[derive(Clone, Debug)]
enum Act {
    /// To an exchange; the empty name is the default exchange, which reaches every queue.
    Publish(String),
    Get(String),
    Consume(String),
    /// A queue that is not there, and the exchange to bind it to.
    Declare(String),
    Bind(String, String),
    DeclareExchange(String),
    DeleteQueue(String),
}

/// On a channel of its own, since a refusal closes it. Nothing is left behind.
async fn act(connection: &Connection, act: &Act) -> lapin::Result<()> {
    let channel = connection.create_channel().await?;
    let nothing = FieldTable::default;
    match act {
        Act::Publish(exchange) => publish(&channel, exchange).await,
        Act::Get(queue) => {
            let get = BasicGetOptions { no_ack: false };
            channel
                .basic_get(queue.as_str().into(), get)
                .await
                .map(drop)
        }
        Act::Consume(queue) => {
            let (tag, consume) = ("".into(), BasicConsumeOptions::default());
            let consumer = channel.basic_consume(queue.as_str().into(), tag, consume, nothing());
            consumer.await.map(drop)
        }
        Act::Declare(queue) => {
            let declare = QueueDeclareOptions::default();
            let declared = channel.queue_declare(queue.as_str().into(), declare, nothing());
            declared.await.map(drop)
        }
        Act::Bind(queue, exchange) => {
            let (queue, exchange) = (queue.as_str().into(), exchange.as_str().into());
            let bind = QueueBindOptions::default();
            channel
                .queue_bind(queue, exchange, "more".into(), bind, nothing())
                .await
        }
        Act::DeclareExchange(exchange) => {
            let (kind, declare) = (ExchangeKind::Fanout, ExchangeDeclareOptions::default());
            channel
                .exchange_declare(exchange.as_str().into(), kind, declare, nothing())
                .await
        }
        Act::DeleteQueue(queue) => {
            let delete = QueueDeleteOptions::default();
            channel
                .queue_delete(queue.as_str().into(), delete)
                .await
                .map(drop)
        }
    }?;
    channel.close(200, "done".into()).await
}

/// A publish is refused by and by: the confirm, or its failure, is the answer.
async fn publish(channel: &Channel, exchange: &str) -> lapin::Result<()> {
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    let confirm = channel
        .basic_publish(
            exchange.into(),
            "dead".into(),
            options,
            b"by hand",
            properties,
        )
        .await?;
    confirm.await.map(drop)
}

async fn is_allowed(url: &str, what: &Act) -> bool {
    let connection = Connection::connect(url, Default::default()).await.unwrap();
    match act(&connection, what).await {
        Ok(()) => true,
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("ACCESS_REFUSED"), "{what:?}: {text}");
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_user_of_rabbitmq_can_do_its_part_and_nothing_else() {
    let queue = TestQueue::bare("5s,30s").await;
    let users = Users::of(&queue).await;
    let topology = &queue.server.topology;
    // The file says it of the prefix, so that it holds for any ladder.
    let mut env = Env::new();
    queue.env(&mut env);
    env.insert("AMQP_URL", users.url(&queue, "setup"));
    let (status, _, stderr) = run("clerk-sync", &["setup"], &env).await;
    assert!(status.success(), "{stderr}");

    let (events, retry) = (topology.events(), topology.retry());
    let (applies, dead, unrouted) = (topology.apply(), topology.dead(), topology.unrouted());
    let new = format!("{}.new", topology.prefix);
    let acts = [
        Act::Publish(events.clone()),
        Act::Publish(retry.clone()),
        Act::Publish(topology.dlx()),
        Act::Publish(String::new()),
        Act::Get(applies.clone()),
        Act::Consume(applies.clone()),
        Act::Get(dead.clone()),
        Act::Get(unrouted.clone()),
        Act::Get(topology.rung(Rung(0))),
        Act::Declare(new.clone()),
        Act::Declare("another".to_owned()),
        Act::DeclareExchange(new),
        Act::Bind(applies.clone(), retry.clone()),
        Act::DeleteQueue(applies.clone()),
    ];
    let allowed: [(&str, &[usize]); 3] = [
        ("ingest", &[0]),
        ("worker", &[1, 4, 5]),
        ("dead-letters", &[1, 6, 7]),
    ];
    for (user, may) in allowed {
        let url = users.url(&queue, user);
        for (number, what) in acts.iter().enumerate() {
            assert_eq!(
                is_allowed(&url, what).await,
                may.contains(&number),
                "{user}: {what:?}"
            );
        }
    }
    users.remove().await;
    queue.remove().await;
}

/// What a program says when it has not got what it needs, or nothing.
async fn complaint(user: &str, url: String, queue: &TestQueue, db: &TestDb) -> Option<String> {
    let told = async |process: Process| {
        let settled = async {
            loop {
                match process.admin("/readyz").await {
                    (200, _) => return None,
                    (_, body) if body.contains("ACCESS_REFUSED") => return Some(body),
                    _ => sleep(Duration::from_millis(25)).await,
                }
            }
        };
        let complaint = timeout(SOON, settled).await.expect("ready, or why not");
        process.stop().await;
        complaint
    };
    match user {
        "ingest" => {
            told(Process::start(
                "clerk-sync-ingest",
                &[],
                &ingest_env(queue, url),
            ))
            .await
        }
        "worker" => {
            told(Process::start(
                "clerk-sync-worker",
                &[],
                &worker_env(queue, url, db),
            ))
            .await
        }
        "setup" => {
            let mut env = Env::new();
            queue.env(&mut env);
            env.insert("AMQP_URL", url);
            let (status, _, stderr) = run("clerk-sync", &["setup"], &env).await;
            (!status.success()).then_some(stderr)
        }
        _ => {
            let Topology { prefix, .. } = &queue.server.topology;
            let its = [
                Act::Publish(format!("{prefix}.retry")),
                Act::Get(format!("{prefix}.dead")),
            ];
            for what in its {
                if !is_allowed(&url, &what).await {
                    return Some(format!("deploy/rabbitmq/users.sh: {what:?}"));
                }
            }
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_permission_of_a_user_can_be_spared_and_a_missing_one_is_named() {
    let queue = TestQueue::bare("5s").await;
    let users = Users::of(&queue).await;
    let db = TestDb::postgres().await.migrated().await;
    // The last one is setup: what the others need is there before.
    amqp::setup(&queue.server).await.unwrap();
    for user in USERS {
        let url = users.url(&queue, user);
        let given = users.permissions(user).await;
        let nothing = complaint(user, url.clone(), &queue, &db).await;
        assert_eq!(nothing, None, "{user} has what it needs");
        for (number, kind) in ["configure", "write", "read"].into_iter().enumerate() {
            if given[number] == "^$" {
                continue;
            }
            let mut less = given.each_ref().map(String::as_str);
            less[number] = "^$";
            users.permit(user, less).await;
            let complaint = complaint(user, url.clone(), &queue, &db)
                .await
                .unwrap_or_else(|| panic!("{user} can do without {kind} {}", given[number]));
            assert!(
                complaint.contains("deploy/rabbitmq/users.sh"),
                "{complaint}"
            );
            assert!(
                user == "dead-letters" || complaint.contains(kind),
                "{user}, {kind}: {complaint}"
            );
        }
    }
    users.remove().await;
    queue.remove().await;
    db.remove().await;
}
