//! What a broker has, and what its user may do there: asked, and nothing changed.
//!
//! Each question has a channel of its own, as the broker closes the channel on which it says no.

use std::time::{Duration, Instant};

use lapin::{
    Channel, Confirmation, Connection,
    options::{
        BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
        ExchangeDeclareOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tokio::time::timeout;

use super::{
    Server,
    connection::{CLOSE_TIMEOUT, CutOnDrop, errand_on},
    explain::{ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED, code, explain},
    publisher::check_exchange,
    topology::{self, Exchange},
};
use crate::{queue::Topology, secret::ServerUrl};

pub use found::{Binding, Depth, Object, Right, Rights, State, bindings};

mod found;

/// The one argument of a queue that no policy gives.
const QUEUE_TYPE: &str = "x-queue-type";

/// What is said of a broker that blocks whoever publishes.
const ALARM: &str = "the broker takes no messages: it holds a memory or disk alarm";

/// A connection that asks.
pub struct Inspector {
    topology: Topology,
    connection: Connection,
    patience: Duration,
    /// How long it took to connect.
    pub connected_in: Duration,
    _cut: CutOnDrop,
}

impl Inspector {
    /// Connects to one node.
    ///
    /// # Errors
    /// It cannot be reached in time, or refuses the user; for an operator.
    pub async fn connect(
        server: &Server,
        node: &ServerUrl,
        patience: Duration,
    ) -> Result<Self, String> {
        let started = Instant::now();
        let (connection, cut) = errand_on(server, node, patience).await?;
        Ok(Self {
            topology: server.topology.clone(),
            connection,
            patience,
            connected_in: started.elapsed(),
            _cut: cut,
        })
    }

    /// Every exchange and queue of the topology.
    ///
    /// An object that is there is declared once more, which changes nothing: the broker compares.
    pub async fn objects(&self) -> Vec<Object> {
        let mut objects = Vec::new();
        for exchange in topology::exchanges(&self.topology) {
            let name = format!("exchange {}", exchange.name);
            let declare = async |passive, arguments| {
                let declare = self.declare_exchange(&exchange, passive, arguments);
                self.in_time(declare).await
            };
            let state = state_of(&name, &exchange.arguments, declare).await;
            objects.push(Object { name, state });
        }
        for queue in topology::queues(&self.topology) {
            let name = format!("queue {}", queue.name);
            let declare = async |passive, arguments| {
                let declare = self.declare_queue(&queue.name, passive, arguments);
                self.in_time(declare).await
            };
            let state = state_of(&name, &queue.arguments, declare).await;
            objects.push(Object { name, state });
        }
        objects
    }

    /// How many messages and consumers the queues have that are there: `clerk.apply` first, then the
    /// rungs, the dead letters and what was unrouted.
    pub async fn depths(&self) -> Vec<Depth> {
        let mut depths = Vec::new();
        for queue in topology::queues(&self.topology) {
            let look = self.in_time(async {
                let channel = self.connection.create_channel().await?;
                let passive = QueueDeclareOptions::default().passive();
                let name = queue.name.as_str().into();
                channel
                    .queue_declare(name, passive, FieldTable::default())
                    .await
            });
            if let Ok(found) = look.await {
                depths.push(Depth {
                    queue: queue.name,
                    messages: found.message_count(),
                    consumers: found.consumer_count(),
                });
            }
        }
        depths
    }

    /// What the user may do. No message is published, and none is taken.
    pub async fn rights(&self) -> Rights {
        // First: from the first publish on, a broker with an alarm hears nothing of this connection.
        let consume = self.may_consume(&self.topology.apply()).await;
        let look_at_dead_letters = self.may_consume(&self.topology.dead()).await;
        Rights {
            publish_events: self.may_publish(&self.topology.events()).await,
            publish_retries: self.may_publish(&self.topology.retry()).await,
            consume,
            look_at_dead_letters,
        }
    }

    /// Publishes a message to a queue of this connection's own, and takes it out of there: how long
    /// that took, from the publish to the confirm. Nothing of it is left. `None` when the user may
    /// not have such a queue, as those of `deploy/rabbitmq/users.sh` may not.
    ///
    /// # Errors
    /// The broker did not confirm, or lost it.
    pub async fn round_trip(&self) -> Result<Option<Duration>, String> {
        if self.connection.status().blocked() {
            return Err(ALARM.to_owned());
        }
        match timeout(self.patience, self.send_to_itself()).await {
            Ok(Ok(took)) => took.map(Some),
            Ok(Err(error)) if code(&error) == Some(ACCESS_REFUSED) => Ok(None),
            Ok(Err(error)) => Err(explain(&error)),
            Err(_) if self.connection.status().blocked() => Err(ALARM.to_owned()),
            Err(_) => Err(format!("no confirm within {:?}", self.patience)),
        }
    }

    /// Says goodbye.
    pub async fn close(self) {
        let closing = self.connection.close(200, "asked".into());
        let _ = timeout(CLOSE_TIMEOUT, closing).await;
    }

    async fn send_to_itself(&self) -> lapin::Result<Result<Duration, String>> {
        let channel = self.connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        let own = QueueDeclareOptions::exclusive().auto_delete();
        let queue = channel
            .queue_declare("".into(), own, FieldTable::default())
            .await?;
        let name = queue.name().clone();
        let started = Instant::now();
        let mandatory = BasicPublishOptions {
            mandatory: true,
            ..Default::default()
        };
        let properties = lapin::BasicProperties::default();
        let confirm =
            channel.basic_publish("".into(), name.clone(), mandatory, b"doctor", properties);
        let confirmed = confirm.await?.await?;
        let took = started.elapsed();
        let taken = channel
            .basic_get(name.clone(), BasicGetOptions { no_ack: true })
            .await?;
        channel
            .queue_delete(name, QueueDeleteOptions::default())
            .await?;
        channel.close(200, "asked".into()).await?;
        Ok(match (confirmed, taken) {
            (Confirmation::Ack(None), Some(_)) => Ok(took),
            (Confirmation::Ack(None), None) => Err("it was confirmed, and is not there".to_owned()),
            _ => Err("the broker refused the message".to_owned()),
        })
    }

    async fn may_publish(&self, exchange: &str) -> Right {
        if self.connection.status().blocked() {
            return Right::Unknown(ALARM.to_owned());
        }
        match timeout(self.patience, check_exchange(&self.connection, exchange)).await {
            Ok(Ok(())) => Right::Given,
            Ok(Err(text)) if text.contains("ACCESS_REFUSED") => Right::Refused,
            Ok(Err(text)) => Right::Unknown(text),
            Err(_) => Right::Unknown(self.silent()),
        }
    }

    /// Asks to consume with a priority that is no number. The right is looked at before that, so the
    /// refusal tells whether there is one, and nothing is ever handed out.
    async fn may_consume(&self, queue: &str) -> Right {
        let asked = self.in_time(async {
            let channel = self.connection.create_channel().await?;
            let mut nonsense = FieldTable::default();
            nonsense.insert("x-priority".into(), AMQPValue::LongString("none".into()));
            let options = BasicConsumeOptions::default();
            channel
                .basic_consume(queue.into(), "".into(), options, nonsense)
                .await?;
            // A broker that takes it: what it has sent goes back with the channel.
            channel.close(200, "asked".into()).await
        });
        match asked.await {
            Ok(())
            | Err(Refusal {
                code: Some(PRECONDITION_FAILED),
                ..
            }) => Right::Given,
            Err(Refusal {
                code: Some(ACCESS_REFUSED),
                ..
            }) => Right::Refused,
            Err(refusal) => Right::Unknown(refusal.text),
        }
    }

    async fn declare_exchange(
        &self,
        exchange: &Exchange,
        passive: bool,
        arguments: FieldTable,
    ) -> lapin::Result<()> {
        let channel = self.connection.create_channel().await?;
        let options = ExchangeDeclareOptions {
            durable: true,
            internal: exchange.internal,
            passive,
            ..Default::default()
        };
        let (name, kind) = (exchange.name.as_str().into(), exchange.kind.clone());
        channel
            .exchange_declare(name, kind, options, arguments)
            .await?;
        close(&channel).await
    }

    async fn declare_queue(
        &self,
        queue: &str,
        passive: bool,
        arguments: FieldTable,
    ) -> lapin::Result<()> {
        let channel = self.connection.create_channel().await?;
        let options = QueueDeclareOptions {
            durable: true,
            passive,
            ..Default::default()
        };
        channel
            .queue_declare(queue.into(), options, arguments)
            .await?;
        close(&channel).await
    }

    async fn in_time<T>(
        &self,
        answer: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, Refusal> {
        match timeout(self.patience, answer).await {
            Ok(answer) => answer.map_err(|error| Refusal {
                code: code(&error),
                text: explain(&error),
            }),
            Err(_) => Err(Refusal {
                code: None,
                text: self.silent(),
            }),
        }
    }

    fn silent(&self) -> String {
        format!("the broker did not answer within {:?}", self.patience)
    }
}

/// The broker's no.
struct Refusal {
    code: Option<u16>,
    text: String,
}

async fn close(channel: &Channel) -> lapin::Result<()> {
    channel.close(200, "asked".into()).await
}

/// Asks whether it is there, and only then whether it is as wanted: declared once more, what is not
/// there would be made.
///
/// The broker names the first argument that differs. One that the object does not have may come from
/// a policy, so the question is asked again without it, until all that is left to differ is told.
async fn state_of(
    name: &str,
    wanted: &FieldTable,
    declare: impl AsyncFn(bool, FieldTable) -> Result<(), Refusal>,
) -> State {
    const PASSIVE: bool = true;
    match declare(PASSIVE, wanted.clone()).await {
        Ok(()) => {}
        Err(Refusal {
            code: Some(NOT_FOUND),
            ..
        }) => return State::Missing,
        Err(Refusal {
            code: Some(ACCESS_REFUSED),
            ..
        }) => return State::Hidden,
        Err(Refusal { text, .. }) => return State::Unknown(text),
    }
    let mut arguments = wanted.inner().clone();
    let mut lacking = Vec::new();
    loop {
        match declare(!PASSIVE, arguments.clone().into()).await {
            Ok(()) if lacking.is_empty() => return State::AsWanted,
            Ok(()) => return State::Lacks(lacking),
            Err(Refusal {
                code: Some(PRECONDITION_FAILED),
                text,
            }) => {
                let lacks = topology::argument_without_value(&text)
                    .filter(|argument| *argument != QUEUE_TYPE)
                    .and_then(|argument| arguments.remove_entry(argument));
                match lacks {
                    Some((argument, _)) => lacking.push(argument.to_string()),
                    None => return State::Different(topology::difference(&text, name)),
                }
            }
            Err(Refusal {
                code: Some(ACCESS_REFUSED),
                ..
            }) => return State::There,
            Err(Refusal { text, .. }) => return State::Unknown(text),
        }
    }
}
