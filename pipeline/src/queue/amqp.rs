//! The queue on RabbitMQ 3.10 to 4.x.
//!
//! One rule runs through it: a connection, its channels, tags and deliveries belong to one
//! incarnation; on the first error all of it is dropped and built anew after a jittered delay.
//! lapin's own recovery stays off: with it confirms hang, consumers go silent, and an old tag can
//! acknowledge deliveries that nobody has processed (measured on lapin 4.12.3).

use std::path::PathBuf;

use crate::queue::Topology;

mod confirm;
mod connection;
mod consumer;
mod explain;
mod gauge;
pub mod inspect;
mod letter;
mod message;
mod moving;
mod nodes;
mod parked;
mod publisher;
mod topology;

pub use consumer::{AmqpConsumer, AmqpConsumers};
use explain::{NOT_FOUND, explain};
pub use gauge::AmqpGauge;
pub use nodes::Nodes;
pub use parked::AmqpParked;
pub use publisher::AmqpPublisher;
pub use topology::{SetupError, depth, remove, setup};

/// What only the fuzz targets need (tests/properties).
#[doc(hidden)]
pub mod fuzzing {
    pub use super::message::{delivery, failed_properties, properties};
}

/// A broker, and the topology on it.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where it is. `?heartbeat=10` unless an address says so.
    pub nodes: Nodes,
    /// PEM file of a certificate authority to trust beside the system's.
    pub ca: Option<PathBuf>,
    /// Names, delays and limits.
    pub topology: Topology,
}
