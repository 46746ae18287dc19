//! RabbitMQ's management API: the one place that tells which bindings there are.

use std::collections::BTreeSet;

use anyhow::Context as _;
use clerk_sync_pipeline::{
    queue::amqp::{
        Server,
        inspect::{self, Binding},
    },
    secret::ServerUrl,
};
use lapin::uri::AMQPUri;
use reqwest::{Client, StatusCode, redirect};
use serde::Deserialize;

use super::{network::PATIENCE, report::Line};

const NAME: &str = "bindings";

/// Whether every binding of the topology is there.
///
/// AMQP itself has no question for it: a message that reaches a foreign queue and not ours is
/// confirmed as any other.
pub(super) async fn bindings(url: Option<&ServerUrl>, server: &Server) -> Line {
    let Some(url) = url else {
        return Line::skipped(
            NAME,
            "not looked at: the protocol does not tell. RABBITMQ_MANAGEMENT_URL does, and `--probe` \
             shows that an event gets through",
        );
    };
    match missing(url, server).await {
        Ok(missing) if missing.is_empty() => Line::ok(NAME, "all are there"),
        Ok(missing) => {
            let named = |binding: &Binding| match binding.routing_key.as_str() {
                "" => format!("{} to {}", binding.exchange, binding.queue),
                key => format!("{} to {} ({key})", binding.exchange, binding.queue),
            };
            let names: Vec<String> = missing.iter().map(named).collect();
            Line::problem(
                NAME,
                format!("not there: {}", names.join(", ")),
                "run `clerk-sync setup`, which makes it; what was published meanwhile is in the \
                 unrouted queue, or in a queue of somebody else's alone",
            )
        }
        Err(error) => Line::warning(
            NAME,
            format!("not looked at: {url}: {error:#}"),
            "RABBITMQ_MANAGEMENT_URL needs the plugin rabbitmq_management, and a user with the tag \
             `management` that may use the virtual host",
        ),
    }
}

async fn missing(url: &ServerUrl, server: &Server) -> anyhow::Result<BTreeSet<Binding>> {
    let client = Client::builder()
        .timeout(PATIENCE)
        .redirect(redirect::Policy::none())
        .build()?;
    let address = server.nodes.first().expose().as_str();
    let address: AMQPUri = address.parse().map_err(anyhow::Error::msg)?;
    let wanted: BTreeSet<Binding> = inspect::bindings(&server.topology).into_iter().collect();
    let exchanges: BTreeSet<&str> = wanted.iter().map(|it| it.exchange.as_str()).collect();
    let mut found = BTreeSet::new();
    for exchange in exchanges {
        found.extend(of_exchange(&client, url, &address.vhost, exchange).await?);
    }
    Ok(wanted.difference(&found).cloned().collect())
}

async fn of_exchange(
    client: &Client,
    url: &ServerUrl,
    vhost: &str,
    exchange: &str,
) -> anyhow::Result<Vec<Binding>> {
    #[derive(Deserialize)]
    struct Row {
        destination: String,
        destination_type: String,
        routing_key: String,
    }
    let mut endpoint = url.expose().clone();
    endpoint
        .path_segments_mut()
        .map_err(|()| anyhow::anyhow!("the URL has no path"))?
        .pop_if_empty()
        .extend(["api", "exchanges", vhost, exchange, "bindings", "source"]);
    // Its user and password go into a header.
    let request = client.get(endpoint);
    let response = request.send().await.map_err(reqwest::Error::without_url)?;
    match response.status() {
        StatusCode::OK => {}
        // An exchange that is not there has no bindings; that it is not there is told elsewhere.
        StatusCode::NOT_FOUND => return Ok(Vec::new()),
        status => anyhow::bail!("it answers {status}"),
    }
    let body = response
        .bytes()
        .await
        .map_err(reqwest::Error::without_url)?;
    let rows: Vec<Row> =
        serde_json::from_slice(&body).context("the answer is not a list of bindings")?;
    let to_queues = rows
        .into_iter()
        .filter(|row| row.destination_type == "queue");
    let binding = |row: Row| Binding {
        exchange: exchange.to_owned(),
        queue: row.destination,
        routing_key: row.routing_key,
    };
    Ok(to_queues.map(binding).collect())
}
