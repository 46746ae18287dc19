//! The queue on RabbitMQ 3.10 to 4.x.
//!
//! One rule runs through it: a connection, its channels, tags and deliveries belong to one
//! incarnation; on the first error all of it is dropped and built anew after a jittered delay.
//! lapin's own recovery stays off: with it confirms hang, consumers go silent, and an old tag can
//! acknowledge deliveries that nobody has processed (measured on lapin 4.12.3).

use std::path::PathBuf;

use crate::{queue::Topology, secret::ServerUrl};

mod confirm;
mod connection;
mod consumer;
mod message;
mod moving;
mod publisher;
mod topology;

pub use consumer::{AmqpConsumer, AmqpConsumers};
pub use publisher::AmqpPublisher;
pub use topology::{SetupError, depth, remove, setup};

/// A broker, and the topology on it.
#[derive(Clone, Debug)]
pub struct Server {
    /// `amqp://` or `amqps://`, with user, password and vhost. `?heartbeat=10` unless it says so.
    pub url: ServerUrl,
    /// PEM file of a certificate authority to trust beside the system's.
    pub ca: Option<PathBuf>,
    /// Names, delays and limits.
    pub topology: Topology,
}

/// Text of an error, for an operator: the broker's reply and its causes, on one line.
fn explain(error: &lapin::Error) -> String {
    use std::error::Error as _;
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    match error.kind() {
        lapin::ErrorKind::ProtocolError(reply) if reply.get_id() == NOT_FOUND => {
            format!("{text}: run `clerk-sync setup`")
        }
        _ => text,
    }
}

/// AMQP's reply code for an exchange or a queue that does not exist.
const NOT_FOUND: u16 = 404;
