//! How much is where on RabbitMQ, asked again and again over one connection.

use std::time::Duration;

use lapin::{Channel, Connection, options::QueueDeclareOptions, types::FieldTable};
use tokio::time::timeout;

use super::{
    Server,
    connection::{CLOSE_TIMEOUT, CutOnDrop, errand},
    explain,
};
use crate::queue::stock::Stock;

/// Longest wait for the broker's word on all queues.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks a broker how many messages its queues have. Connects when it is asked, and again after each
/// failure.
pub struct AmqpGauge {
    server: Server,
    open: Option<Open>,
}

struct Open {
    connection: Connection,
    channel: Channel,
    _cut: CutOnDrop,
}

impl AmqpGauge {
    /// Nothing is connected yet.
    #[must_use]
    pub fn new(server: Server) -> Self {
        Self { server, open: None }
    }

    /// How many messages are where, at this moment.
    ///
    /// # Errors
    /// The broker cannot be reached, or a queue does not exist; for an operator.
    pub async fn read(&mut self) -> Result<Stock, String> {
        // Taken out: a channel that has failed, or an answer that comes too late, is of no use.
        let open = match self.open.take() {
            Some(open) if open.channel.status().connected() => open,
            Some(_) | None => self.connect().await?,
        };
        let asked = timeout(ANSWER_TIMEOUT, self.ask(&open.channel)).await;
        let stock =
            asked.map_err(|_| format!("the broker did not answer within {ANSWER_TIMEOUT:?}"))??;
        self.open = Some(open);
        Ok(stock)
    }

    /// Lets go.
    pub async fn close(&mut self) {
        if let Some(open) = self.open.take() {
            // When it is not polite in time, the guard cuts it.
            let closing = open.connection.close(200, "done".into());
            let _ = timeout(CLOSE_TIMEOUT, closing).await;
        }
    }

    async fn connect(&self) -> Result<Open, String> {
        let (connection, cut) = errand(&self.server).await?;
        let channel = timeout(ANSWER_TIMEOUT, connection.create_channel()).await;
        let channel = channel
            .map_err(|_| format!("the broker did not answer within {ANSWER_TIMEOUT:?}"))?
            .map_err(|error| explain(&error))?;
        Ok(Open {
            connection,
            channel,
            _cut: cut,
        })
    }

    async fn ask(&self, channel: &Channel) -> Result<Stock, String> {
        let topology = &self.server.topology;
        let mut delayed = 0;
        for rung in topology.ladder.rungs() {
            delayed += depth(channel, &topology.rung(rung)).await?;
        }
        Ok(Stock {
            ready: depth(channel, &topology.apply()).await?,
            delayed,
            in_flight: None,
            dead: depth(channel, &topology.dead()).await?,
            unrouted: depth(channel, &topology.unrouted()).await?,
        })
    }
}

async fn depth(channel: &Channel, queue: &str) -> Result<u64, String> {
    let passive = QueueDeclareOptions {
        passive: true,
        ..Default::default()
    };
    let declared = channel
        .queue_declare(queue.into(), passive, FieldTable::default())
        .await
        .map_err(|error| explain(&error))?;
    Ok(declared.message_count().into())
}
