//! A channel that holds messages of a walk, until they are acknowledged or it is closed.

use futures_util::future::try_join_all;
use lapin::{
    Channel, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicCancelOptions, BasicGetOptions},
};
use tokio::time::timeout;

use super::answered;
use crate::queue::amqp::connection::CLOSE_TIMEOUT;

/// Gets that bring every acknowledgement to the queue. The first returns when those on their way have
/// arrived, and those held back are sent then; the second comes behind these; the third is to spare.
const GETS_TO_SETTLE: usize = 3;

pub(super) struct Lane {
    channel: Channel,
    /// Dropped before the channel is closed it would be cancelled first, by a call of its own.
    pub(super) consumer: Consumer,
    /// The tags of the messages that were marked.
    pub(super) marked: Vec<u64>,
    has_acknowledged: bool,
}

impl Lane {
    pub(super) fn new(channel: Channel, consumer: Consumer) -> Self {
        Self {
            channel,
            consumer,
            marked: Vec::new(),
            has_acknowledged: false,
        }
    }

    /// Says it; the broker has done it after [`settled`].
    pub(super) async fn acknowledge(&mut self, tag: u64) -> Result<(), String> {
        self.has_acknowledged = true;
        let options = BasicAckOptions { multiple: false };
        answered(self.channel.basic_ack(tag, options)).await
    }

    /// A message that waits in the queue: only its leader can say that there is none.
    pub(super) async fn get(&self, queue: &str) -> Result<Option<Delivery>, String> {
        get(&self.channel, queue).await
    }

    async fn cancel(&self) -> Result<(), String> {
        let options = BasicCancelOptions::default();
        answered(self.channel.basic_cancel(self.consumer.tag(), options)).await
    }

    async fn settled(&self, queue: &str) -> Result<(), String> {
        if self.has_acknowledged {
            for _ in 0..GETS_TO_SETTLE {
                self.get(queue).await?;
            }
        }
        Ok(())
    }

    /// Gives back what it holds.
    pub(super) async fn close(self) {
        // When the broker does not answer, the end of the connection does it.
        let closing = self.channel.close(200, "done".into());
        let _ = timeout(CLOSE_TIMEOUT, closing).await;
    }
}

/// Waits until the acknowledgements on these lanes are settled. What it takes in hand is held as the
/// rest.
///
/// An acknowledgement has no answer. Those of a quorum queue go by the channel, which holds them back
/// while 32 are on their way (`rabbit_fifo_client`), and forgets what it holds back when it is closed.
/// A get takes the same way, and has an answer.
pub(super) async fn settled(lanes: &[Lane], queue: &str) -> Result<(), String> {
    try_join_all(lanes.iter().map(|lane| lane.settled(queue))).await?;
    Ok(())
}

/// Has no more sent to these lanes. What they hold they go on holding.
pub(super) async fn cancel(lanes: &[Lane]) -> Result<(), String> {
    try_join_all(lanes.iter().map(Lane::cancel)).await?;
    Ok(())
}

/// A message that waits in a queue, unacknowledged.
pub(super) async fn get(channel: &Channel, queue: &str) -> Result<Option<Delivery>, String> {
    let options = BasicGetOptions { no_ack: false };
    let got = answered(channel.basic_get(queue.into(), options)).await?;
    Ok(got.map(|message| message.delivery))
}
