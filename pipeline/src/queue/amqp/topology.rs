//! Declaring the topology, looking at it, and taking it away.

use std::time::Duration;

use lapin::{
    Channel, Connection, ErrorKind, ExchangeKind,
    options::{
        ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tokio::time::timeout;

use super::{
    Server,
    connection::errand,
    explain::{PRECONDITION_FAILED, explain},
    moving::DEAD,
};
use crate::queue::{DELIVERY_LIMIT, PARKED_DELIVERY_LIMIT, Topology};

/// Longest wait for the whole of a setup; a fresh quorum queue takes some 10 ms.
const SETUP_TIMEOUT: Duration = Duration::from_mins(1);

/// Why the topology is not as wanted.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// No connection, or no permission.
    #[error("cannot set up the queue: {0}")]
    Broker(String),
    /// Objects that exist with other arguments. Each line names object, argument, found and wanted
    /// as far as the broker tells.
    #[error(
        "the broker holds other definitions:\n{}\nNothing was changed in these. Empty and delete \
         them (or the policies that made them), then run `clerk-sync setup` again; or choose \
         another QUEUE_PREFIX.",
        .0.iter().map(|line| format!("  - {line}")).collect::<Vec<_>>().join("\n")
    )]
    Different(Vec<String>),
}

/// Declares every exchange, queue and binding. What exists as wanted is left alone, so it can run
/// any number of times. Returns kind and name of each, in the order they were declared.
///
/// # Errors
/// The broker cannot be reached or refuses; or objects exist that differ: all of them are named.
pub async fn setup(server: &Server) -> Result<Vec<String>, SetupError> {
    let (connection, _guard) = errand(server).await.map_err(SetupError::Broker)?;
    timeout(SETUP_TIMEOUT, declare(&connection, &server.topology))
        .await
        .unwrap_or_else(|_| Err(SetupError::Broker("no answer in time".to_owned())))
}

async fn declare(connection: &Connection, topology: &Topology) -> Result<Vec<String>, SetupError> {
    let mut declared = Vec::new();
    let mut different = Vec::new();
    for exchange in exchanges(topology) {
        let channel = open(connection).await?;
        let options = ExchangeDeclareOptions {
            durable: true,
            internal: exchange.internal,
            ..Default::default()
        };
        let result = channel
            .exchange_declare(
                exchange.name.as_str().into(),
                exchange.kind,
                options,
                exchange.arguments,
            )
            .await;
        note(
            result,
            format!("exchange {}", exchange.name),
            &mut declared,
            &mut different,
        )?;
    }
    for queue in queues(topology) {
        let channel = open(connection).await?;
        let options = QueueDeclareOptions {
            durable: true,
            ..Default::default()
        };
        let result = channel
            .queue_declare(queue.name.as_str().into(), options, queue.arguments)
            .await;
        let existing = note(
            result.map(drop),
            format!("queue {}", queue.name),
            &mut declared,
            &mut different,
        )?;
        if !existing {
            continue;
        }
        for (exchange, routing_key) in queue.bindings {
            channel
                .queue_bind(
                    queue.name.as_str().into(),
                    exchange.into(),
                    routing_key.into(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                )
                .await
                .map_err(|error| SetupError::Broker(explain(&error)))?;
        }
    }
    if different.is_empty() {
        Ok(declared)
    } else {
        Err(SetupError::Different(different))
    }
}

/// A channel for one declaration: the broker closes it when it refuses.
async fn open(connection: &Connection) -> Result<Channel, SetupError> {
    connection
        .create_channel()
        .await
        .map_err(|error| SetupError::Broker(explain(&error)))
}

/// Files the result of a declaration; true when the object now exists as wanted.
fn note(
    result: lapin::Result<()>,
    name: String,
    declared: &mut Vec<String>,
    different: &mut Vec<String>,
) -> Result<bool, SetupError> {
    let error = match result {
        Ok(()) => {
            declared.push(name);
            return Ok(true);
        }
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::ProtocolError(reply) if reply.get_id() == PRECONDITION_FAILED => {
            different.push(difference(reply.get_message().as_str(), &name));
            Ok(false)
        }
        _ => Err(SetupError::Broker(format!("{name}: {}", explain(&error)))),
    }
}

/// `inequivalent arg 'x-message-ttl' for queue 'clerk.retry.5s' in vhost '/': received '5000' but
/// current is '6000'`, said the other way round: what was found, and what was wanted.
pub(super) fn difference(reply: &str, name: &str) -> String {
    let quoted = |before: &str| {
        let (_, rest) = reply.split_once(before)?;
        // Values stand in quotes, perhaps with their type after them; the word none does not.
        let rest = rest.trim_start();
        let rest = rest.strip_prefix("the value ").unwrap_or(rest);
        match rest.strip_prefix('\'') {
            Some(rest) => rest.split('\'').next(),
            None => Some(rest.trim_end_matches('.').trim()),
        }
    };
    let argument = quoted("inequivalent arg ");
    let wanted = quoted("received ").map(|text| text.split(" but ").next().unwrap_or(text));
    match (argument, quoted("but current is "), wanted) {
        (Some(argument), Some(found), Some(wanted)) => {
            format!("{name}: {argument} is {found}, wanted {wanted}")
        }
        _ => format!("{name}: {reply}"),
    }
}

/// The argument that an object was found to have no value for, if the reply is about one.
pub(super) fn argument_without_value(reply: &str) -> Option<&str> {
    let (_, rest) = reply.split_once("inequivalent arg '")?;
    let (argument, rest) = rest.split_once('\'')?;
    rest.contains("but current is none").then_some(argument)
}

/// How many messages wait in a queue.
///
/// # Errors
/// The broker cannot be reached, or the queue does not exist.
pub async fn depth(server: &Server, queue: &str) -> Result<u32, String> {
    let (connection, _guard) = errand(server).await?;
    let channel = connection
        .create_channel()
        .await
        .map_err(|error| explain(&error))?;
    let passive = QueueDeclareOptions {
        passive: true,
        ..Default::default()
    };
    let queue = channel
        .queue_declare(queue.into(), passive, FieldTable::default())
        .await
        .map_err(|error| explain(&error))?;
    Ok(queue.message_count())
}

/// Deletes every queue and exchange of the topology, with all that is in them.
///
/// # Errors
/// The broker cannot be reached or refuses.
pub async fn remove(server: &Server) -> Result<(), String> {
    let (connection, _guard) = errand(server).await?;
    let channel = connection
        .create_channel()
        .await
        .map_err(|error| explain(&error))?;
    for queue in queues(&server.topology) {
        channel
            .queue_delete(queue.name.into(), QueueDeleteOptions::default())
            .await
            .map_err(|error| explain(&error))?;
    }
    for exchange in exchanges(&server.topology) {
        channel
            .exchange_delete(exchange.name.into(), ExchangeDeleteOptions::default())
            .await
            .map_err(|error| explain(&error))?;
    }
    Ok(())
}

pub(super) struct Exchange {
    pub(super) name: String,
    pub(super) kind: ExchangeKind,
    pub(super) internal: bool,
    pub(super) arguments: FieldTable,
}

pub(super) struct QueueDefinition {
    pub(super) name: String,
    pub(super) arguments: FieldTable,
    /// Exchange and routing key.
    pub(super) bindings: Vec<(String, String)>,
}

pub(super) fn exchanges(topology: &Topology) -> Vec<Exchange> {
    let unrouted = topology.unrouted();
    let alternate = || table([("alternate-exchange", text(&unrouted))]);
    let exchange = |name, kind, internal, arguments| Exchange {
        name,
        kind,
        internal,
        arguments,
    };
    let plain = FieldTable::default;
    vec![
        exchange(topology.unrouted(), ExchangeKind::Fanout, true, plain()),
        exchange(topology.events(), ExchangeKind::Topic, false, alternate()),
        exchange(topology.retry(), ExchangeKind::Direct, false, alternate()),
        exchange(
            topology.return_exchange(),
            ExchangeKind::Fanout,
            true,
            plain(),
        ),
        exchange(topology.dlx(), ExchangeKind::Fanout, false, plain()),
    ]
}

pub(super) fn queues(topology: &Topology) -> Vec<QueueDefinition> {
    let ladder = &topology.ladder;
    let apply = QueueDefinition {
        name: topology.apply(),
        arguments: quorum([
            ("x-dead-letter-exchange", text(&topology.dlx())),
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-overflow", text("reject-publish")),
            ("x-delivery-limit", count(DELIVERY_LIMIT.into())),
            ("x-max-length-bytes", count(topology.max_length_bytes)),
        ]),
        bindings: vec![
            (topology.events(), "#".to_owned()),
            (topology.return_exchange(), String::new()),
        ],
    };
    let rungs = ladder.rungs().map(|rung| QueueDefinition {
        name: topology.rung(rung),
        arguments: quorum([
            (
                "x-message-ttl",
                count(u64::try_from(ladder.delay(rung).as_millis()).unwrap_or(u64::MAX)),
            ),
            ("x-dead-letter-exchange", text(&topology.return_exchange())),
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-overflow", text("reject-publish")),
        ]),
        bindings: vec![(topology.retry(), ladder.name(rung))],
    });
    let parked = |name, bindings| QueueDefinition {
        name,
        arguments: quorum([
            ("x-overflow", text("reject-publish")),
            ("x-delivery-limit", count(PARKED_DELIVERY_LIMIT.into())),
        ]),
        bindings,
    };
    let dead = vec![
        (topology.retry(), DEAD.to_owned()),
        (topology.dlx(), String::new()),
    ];
    let unrouted = vec![(topology.unrouted(), String::new())];
    let parked = [
        parked(topology.dead(), dead),
        parked(topology.unrouted(), unrouted),
    ];
    std::iter::once(apply).chain(rungs).chain(parked).collect()
}

fn quorum<const N: usize>(arguments: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = table(arguments);
    table.insert("x-queue-type".into(), text("quorum"));
    table
}

fn table<const N: usize>(arguments: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert(name.into(), value);
    }
    table
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn count(number: u64) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(number).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatch_names_object_argument_found_and_wanted() {
        let reply = "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue \
                     'clerk.retry.5s' in vhost '/': received '5000' but current is '6000'";
        assert_eq!(
            difference(reply, "clerk.retry.5s"),
            "clerk.retry.5s: x-message-ttl is 6000, wanted 5000"
        );
        assert_eq!(argument_without_value(reply), None);
        let reply = "PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue \
                     'clerk.apply' in vhost '/': received the value '20' of type 'signedint' but current is none";
        assert_eq!(
            difference(reply, "clerk.apply"),
            "clerk.apply: x-delivery-limit is none, wanted 20"
        );
        assert_eq!(argument_without_value(reply), Some("x-delivery-limit"));
    }
}
