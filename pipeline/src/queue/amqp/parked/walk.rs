//! One walk through a queue, from its oldest message on.
//!
//! It consumes, as that brings messages without a round trip for each. A consumer is sent as many
//! as its prefetch; when it holds that many that stay, another one follows on the same channel. So
//! few bodies are in memory, however long the queue is.

use std::{ops::ControlFlow, time::Duration};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use lapin::{
    Channel, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::time::{Instant, timeout};

use super::{
    ALARM, ANSWER_TIMEOUT, AmqpParked, InHand, Judge, answered, no_answer, replay::AT_ONCE,
};
use crate::queue::{amqp::explain, parked::Fate};

/// Messages that a consumer holds. Each consumer costs two round trips.
const PREFETCH: u16 = 256;
/// Longest silence, in the ordinary, of a broker that has something to send.
const SILENCE: Duration = Duration::from_millis(250);

pub(super) struct Walk<'a> {
    parked: &'a AmqpParked,
    queue: String,
    channel: Channel,
    /// The last one has room.
    consumers: Vec<Consumer>,
    /// Messages that the last one will not be rid of during the walk.
    stuck: usize,
    /// Letters on their way to the other place; each ends with its tag when the broker has it there.
    replays: FuturesUnordered<BoxFuture<'a, Result<u64, String>>>,
    kept: u64,
    marked: Vec<u64>,
    done: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(parked: &'a AmqpParked, queue: String, channel: Channel) -> Self {
        Self {
            parked,
            queue,
            channel,
            consumers: Vec::new(),
            stuck: 0,
            replays: FuturesUnordered::new(),
            kept: 0,
            marked: Vec::new(),
            done: 0,
        }
    }

    /// What it leaves in hand, and how many it has replayed.
    pub(super) fn end(self) -> (InHand, u64) {
        let in_hand = InHand {
            queue: self.queue,
            channel: self.channel,
            consumers: self.consumers,
            messages: self.kept,
            marked: self.marked,
        };
        (in_hand, self.done)
    }

    /// Has `total` messages judged: as many as there were. What is put back, or comes, meanwhile
    /// cannot make the walk longer. Fewer, where others have taken some.
    pub(super) async fn go(&mut self, total: u64, mut judge: impl Judge) -> Result<(), String> {
        for _ in 0..total {
            let Some(message) = self.next().await? else {
                break;
            };
            if self.judged(message, &mut judge).is_break() {
                break;
            }
        }
        while let Some(published) = self.replays.next().await {
            self.take_out(published?).await?;
        }
        if self.done > 0 {
            self.kept += heard(&self.channel, &self.queue).await?;
        }
        Ok(())
    }

    fn judged(&mut self, message: Delivery, judge: &mut impl Judge) -> ControlFlow<()> {
        let fate = judge(&message);
        match fate {
            ControlFlow::Continue(Fate::Replay) => {
                self.replay(message);
                return ControlFlow::Continue(());
            }
            ControlFlow::Continue(Fate::Mark) => self.marked.push(message.delivery_tag),
            ControlFlow::Continue(Fate::Keep) | ControlFlow::Break(()) => {}
        }
        self.kept += 1;
        self.stuck += 1;
        fate.map_continue(|_| ())
    }

    /// The next message; `None` when the queue has nothing more to hand out.
    async fn next(&mut self) -> Result<Option<Delivery>, String> {
        if self.consumers.is_empty() || self.stuck == usize::from(PREFETCH) {
            let consumer = self.consume().await?;
            self.consumers.push(consumer);
            self.stuck = 0;
        }
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut is_empty = false;
        loop {
            let Self {
                consumers, replays, ..
            } = self;
            // A replay gives its room back when it is taken out.
            let room = usize::from(PREFETCH) - self.stuck;
            let may_come = replays.len() < room.min(AT_ONCE);
            let consumer = consumers.last_mut();
            let message = async {
                match consumer {
                    Some(consumer) => timeout(SILENCE, consumer.next()).await,
                    None => Ok(None),
                }
            };
            tokio::select! {
                Some(published) = replays.next() => self.take_out(published?).await?,
                message = message, if may_come => match message {
                    Ok(Some(message)) => {
                        return self.told(message.map(Some).map_err(|error| explain(&error)));
                    }
                    Ok(None) => return Err("the broker ended the consumer".to_owned()),
                    // What was on its way when the queue was empty has come by now.
                    Err(_) if is_empty => return Ok(None),
                    Err(_) if Instant::now() > deadline => return self.told(Err(no_answer())),
                    Err(_) => is_empty = self.parked.depth(&self.queue).await? == 0,
                },
            }
        }
    }

    async fn consume(&mut self) -> Result<Consumer, String> {
        let options = BasicQosOptions { global: false };
        let prefetch = answered(self.channel.basic_qos(PREFETCH, options)).await;
        self.told(prefetch)?;
        let consume = self.channel.basic_consume(
            self.queue.as_str().into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = answered(consume).await;
        self.told(consumer)
    }

    fn replay(&self, message: Delivery) {
        let AmqpParked {
            replays,
            connection,
            link,
            ..
        } = self.parked;
        self.replays.push(Box::pin(async move {
            let tag = message.delivery_tag;
            replays.publish(connection, link, message).await?;
            Ok(tag)
        }));
    }

    /// The broker has it in the other place.
    async fn take_out(&mut self, tag: u64) -> Result<(), String> {
        answered(self.channel.basic_ack(tag, BasicAckOptions::default())).await?;
        self.done += 1;
        Ok(())
    }

    /// A broker with an alarm does not answer whoever has published.
    fn told<T>(&self, answer: Result<T, String>) -> Result<T, String> {
        match answer {
            Err(_) if self.parked.connection.status().blocked() => Err(ALARM.to_owned()),
            answer => answer,
        }
    }
}

/// Waits until the broker has done what was acknowledged on this channel; how many messages that
/// took in hand.
///
/// An acknowledgement has no answer. Those of a quorum queue go by the channel, which holds them back
/// while 32 are on their way (`rabbit_fifo_client`), and forgets what it holds back when it is closed.
/// A get takes the same way and has an answer: when the first comes back, the others are sent, and
/// the second comes behind them.
pub(super) async fn heard(channel: &Channel, queue: &str) -> Result<u64, String> {
    let mut taken = 0;
    for _ in 0..3 {
        let options = BasicGetOptions { no_ack: false };
        let got = answered(channel.basic_get(queue.into(), options)).await?;
        taken += u64::from(got.is_some());
    }
    Ok(taken)
}
