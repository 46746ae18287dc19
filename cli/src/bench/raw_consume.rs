//! Consumes as lapin's documentation shows it, in batches, with nothing of ours around.

use anyhow::Context as _;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::{
    Channel, Connection, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};

/// Consumes on a channel of its own.
pub(super) struct RawConsumer {
    channel: Channel,
    deliveries: Consumer,
    batch: usize,
}

/// One message.
pub(super) struct Letter(Delivery);

impl Letter {
    /// Its event's id.
    pub(super) fn id(&self) -> Option<&str> {
        let id = self.0.properties.message_id().as_ref()?;
        Some(id.as_str())
    }
}

impl RawConsumer {
    /// Two batches are on their way at once: one in hand, one that waits.
    pub(super) async fn start(
        connection: &Connection,
        queue: &str,
        batch: u16,
    ) -> anyhow::Result<Self> {
        let channel = connection.create_channel().await?;
        channel
            .basic_qos(batch.saturating_mul(2), BasicQosOptions::default())
            .await?;
        let deliveries = channel
            .basic_consume(
                queue.into(),
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await?;
        Ok(Self {
            channel,
            deliveries,
            batch: batch.into(),
        })
    }

    /// Its channel. The last one to hold it closes it.
    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The next message, and those that are there already, up to a batch of them.
    pub(super) async fn batch(&mut self) -> anyhow::Result<Vec<Letter>> {
        let first = self.deliveries.next().await;
        let mut letters = vec![Letter(first.context("the channel was closed")??)];
        while letters.len() < self.batch
            && let Some(Some(delivery)) = self.deliveries.next().now_or_never()
        {
            letters.push(Letter(delivery?));
        }
        Ok(letters)
    }

    /// Acknowledges a batch, and with it all before.
    pub(super) async fn ack(&self, letters: &[Letter]) -> anyhow::Result<()> {
        let newest = letters.last().context("an empty batch")?.0.delivery_tag;
        self.channel
            .basic_ack(newest, BasicAckOptions { multiple: true })
            .await?;
        Ok(())
    }
}
