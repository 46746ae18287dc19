//! Bindings: what RabbitMQ's management API tells, and what is said without it.
//!
//! The servers of these tests run without the plugin, so the API is played: its answers are those
//! of rabbitmq_management 3.10 for such a topology.

use std::{net::SocketAddr, sync::Arc};

use clerk_sync_pipeline::queue::amqp::inspect;
use lapin::options::QueueDeleteOptions;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::{Site, broker::hide_a_missing_binding, doctor};
use crate::harness::servers::TestQueue;

/// Plays the API for these bindings; `/` as virtual host, guest as user.
async fn play(bindings: Vec<inspect::Binding>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let bindings = Arc::new(bindings);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let bindings = bindings.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let (status, body) = answer(&head, &bindings);
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n\
                     content-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            });
        }
    });
    address
}

fn answer(head: &str, bindings: &[inspect::Binding]) -> (&'static str, String) {
    // guest:guest
    if !head
        .to_lowercase()
        .contains("authorization: basic z3vlc3q6z3vlc3q=")
    {
        return (
            "401 Unauthorized",
            json!({ "error": "not_authorised" }).to_string(),
        );
    }
    let path = head.split(' ').nth(1).unwrap();
    let exchange = path
        .strip_prefix("/api/exchanges/%2F/")
        .and_then(|rest| rest.strip_suffix("/bindings/source"));
    let Some(exchange) = exchange else {
        return (
            "404 Not Found",
            json!({ "error": "Object Not Found" }).to_string(),
        );
    };
    let of_it = bindings
        .iter()
        .filter(|binding| binding.exchange == exchange);
    let rows: Vec<_> = of_it
        .map(|binding| {
            json!({
                "source": exchange, "vhost": "/", "destination": binding.queue,
                "destination_type": "queue", "routing_key": binding.routing_key, "arguments": {},
                "properties_key": "~",
            })
        })
        .collect();
    ("200 OK", json!(rows).to_string())
}

fn wanted(queue: &TestQueue) -> Vec<inspect::Binding> {
    inspect::bindings(&queue.server.topology)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_that_is_gone_is_named_although_nothing_is_unrouted() {
    let site = Site::new().await;
    let all = play(wanted(&site.queue)).await;
    let url = |address: SocketAddr| format!("http://guest:guest@{address}");
    let diagnosis = doctor(
        &site.with("RABBITMQ_MANAGEMENT_URL", url(all)),
        &["--strict"],
    )
    .await;
    diagnosis.is(&[]);
    assert_eq!(diagnosis.of(&["skipped"]), [""; 0]);

    let theirs = hide_a_missing_binding(&site.queue).await;
    let topology = site.queue.server.topology.clone();
    let mut left = wanted(&site.queue);
    left.retain(|binding| binding.exchange != topology.events());
    left.push(inspect::Binding {
        exchange: topology.events(),
        queue: theirs.clone(),
        routing_key: "#".to_owned(),
    });
    let address = play(left).await;
    let diagnosis = doctor(&site.with("RABBITMQ_MANAGEMENT_URL", url(address)), &[]).await;
    diagnosis.is(&["problem rabbitmq/bindings"]);
    let lost = format!("{} to {} (#)", topology.events(), topology.apply());
    diagnosis.says("rabbitmq/bindings", &[&lost, "clerk-sync setup"]);

    // Without it nothing is claimed.
    let diagnosis = doctor(&site.env, &[]).await;
    diagnosis.is(&[]);
    assert_eq!(diagnosis.of(&["skipped"]), ["skipped rabbitmq/bindings"]);
    diagnosis.says(
        "rabbitmq/bindings",
        &["not looked at", "RABBITMQ_MANAGEMENT_URL", "--probe"],
    );

    let (_connection, channel) = site.queue.channel().await;
    let delete = QueueDeleteOptions::default();
    channel.queue_delete(theirs.into(), delete).await.unwrap();
    site.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_does_not_tell_is_a_warning_without_its_password() {
    let site = Site::new().await;
    let address = play(wanted(&site.queue)).await;
    let url = format!("http://guest:hunter2@{address}");
    let diagnosis = doctor(&site.with("RABBITMQ_MANAGEMENT_URL", url), &[]).await;
    diagnosis.is(&["warning rabbitmq/bindings"]);
    diagnosis.says("rabbitmq/bindings", &["401", "rabbitmq_management"]);
    assert!(!diagnosis.report.to_string().contains("hunter2"));
    site.remove().await;
}
