//! What an inspection finds, and what it is compared with.

use crate::queue::{
    Topology,
    amqp::topology::{self, QueueDefinition},
};

/// How an object of the topology is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// As wanted.
    AsWanted,
    /// There; this user may not ask whether its arguments are as wanted.
    There,
    /// This user may not even ask whether it is there.
    Hidden,
    /// Not there.
    Missing,
    /// There, of its type, and without these arguments. A policy may give them; whether one does, the
    /// protocol does not tell.
    Lacks(Vec<String>),
    /// Of another type or with other arguments: the first of them, what was found and what is
    /// wanted.
    Different(String),
    /// The broker did not say.
    Unknown(String),
}

/// An exchange or a queue of the topology.
#[derive(Clone, Debug)]
pub struct Object {
    /// `queue clerk.apply`
    pub name: String,
    /// How it is.
    pub state: State,
}

/// A queue's contents.
#[derive(Clone, Debug)]
pub struct Depth {
    /// Its name.
    pub queue: String,
    /// Messages that are ready.
    pub messages: u32,
    /// Who consumes it.
    pub consumers: u32,
}

/// Whether the user may do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Right {
    /// It may.
    Given,
    /// The broker refuses.
    Refused,
    /// That cannot be told: what it is about is not there, an alarm, or no answer.
    Unknown(String),
}

/// That messages of an exchange reach a queue.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Binding {
    /// The exchange.
    pub exchange: String,
    /// The queue.
    pub queue: String,
    /// `#` for all, `dead`, a rung's delay; empty where the exchange does not look at it.
    pub routing_key: String,
}

/// The bindings that a topology needs. The protocol has no question whether one is there.
#[must_use]
pub fn bindings(topology: &Topology) -> Vec<Binding> {
    let of_queue = |queue: QueueDefinition| {
        let name = queue.name;
        queue
            .bindings
            .into_iter()
            .map(move |(exchange, routing_key)| Binding {
                exchange,
                queue: name.clone(),
                routing_key,
            })
    };
    topology::queues(topology)
        .into_iter()
        .flat_map(of_queue)
        .collect()
}

/// What the user may do.
#[derive(Clone, Debug)]
pub struct Rights {
    /// Publish events, as an ingester does.
    pub publish_events: Right,
    /// Move what failed to a rung, as a worker does; and replay, as an operator does.
    pub publish_retries: Right,
    /// Consume what is to be applied, as a worker does.
    pub consume: Right,
    /// Look at the dead letters, as an operator does.
    pub look_at_dead_letters: Right,
}
