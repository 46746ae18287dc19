//! One walk through a queue, from its oldest message on.
//!
//! It consumes, as that brings messages without a round trip for each. A lane is sent as many as its
//! prefetch; when it holds that many that stay, the next one follows. So the prefetch bounds the
//! bodies in memory: 256, or a 64th of a longer queue.

use std::{ops::ControlFlow, time::Duration};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use lapin::{
    message::Delivery,
    options::{BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::time::{Instant, timeout};

use super::{
    ALARM, ANSWER_TIMEOUT, AmqpParked, InHand, Judge, answered,
    lane::{self, Lane},
    no_answer,
    replay::AT_ONCE,
};
use crate::queue::{amqp::explain, parked::Fate};

/// Messages that a lane holds, where that is enough for [`MOST_LANES`]. For each acknowledgement the
/// broker goes through those that its channel holds.
const PREFETCH: u16 = 256;
/// Channels of a walk at most, up to 4 million letters: a broker may allow few.
const MOST_LANES: u64 = 64;
/// A broker that has something to send is ordinarily not silent for so long; after it the queue is
/// asked whether it is empty.
const SILENCE: Duration = Duration::from_millis(250);

pub(super) struct Walk<'a> {
    parked: &'a AmqpParked,
    queue: String,
    prefetch: u16,
    /// The last one has room.
    lanes: Vec<Lane>,
    /// Messages that the last lane will not be rid of during the walk.
    stuck: usize,
    /// Letters on their way to the other place; each ends with its lane and tag when the broker has
    /// it there.
    replays: FuturesUnordered<BoxFuture<'a, Result<(usize, u64), String>>>,
    kept: u64,
    done: u64,
}

impl<'a> Walk<'a> {
    /// Of as many messages as there were. What is put back, or comes, meanwhile cannot make it
    /// longer.
    pub(super) fn new(parked: &'a AmqpParked, queue: String, total: u64) -> Self {
        let prefetch = u16::try_from(total.div_ceil(MOST_LANES)).unwrap_or(u16::MAX);
        Self {
            parked,
            queue,
            prefetch: prefetch.max(PREFETCH),
            lanes: Vec::new(),
            stuck: 0,
            replays: FuturesUnordered::new(),
            kept: 0,
            done: 0,
        }
    }

    /// What it leaves in hand, and how many it has replayed.
    pub(super) fn end(self) -> (InHand, u64) {
        let in_hand = InHand {
            queue: self.queue,
            messages: self.kept,
            lanes: self.lanes,
        };
        (in_hand, self.done)
    }

    /// Has `total` messages judged; fewer, where others have taken some.
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
        self.kept += lane::settled(&self.lanes, &self.queue).await?;
        Ok(())
    }

    fn judged(&mut self, message: Delivery, judge: &mut impl Judge) -> ControlFlow<()> {
        let fate = judge(&message);
        if fate == ControlFlow::Continue(Fate::Replay) {
            self.replay(message);
            return ControlFlow::Continue(());
        }
        if fate == ControlFlow::Continue(Fate::Mark)
            && let Some(lane) = self.lanes.last_mut()
        {
            lane.marked.push(message.delivery_tag);
        }
        self.kept += 1;
        self.stuck += 1;
        fate.map_continue(|_| ())
    }

    /// The next message; `None` when the queue has nothing more to hand out.
    async fn next(&mut self) -> Result<Option<Delivery>, String> {
        if self.lanes.is_empty() || self.stuck == usize::from(self.prefetch) {
            let lane = self.consume().await;
            let lane = self.or_alarm(lane)?;
            self.lanes.push(lane);
            self.stuck = 0;
        }
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut is_empty = false;
        loop {
            let Self { lanes, replays, .. } = self;
            // A replay gives its room back when it is taken out.
            let room = usize::from(self.prefetch) - self.stuck;
            let may_come = replays.len() < room.min(AT_ONCE);
            let message = async {
                match lanes.last_mut() {
                    Some(lane) => timeout(SILENCE, lane.consumer.next()).await,
                    None => Ok(None),
                }
            };
            tokio::select! {
                Some(published) = replays.next() => self.take_out(published?).await?,
                message = message, if may_come => match message {
                    Ok(Some(message)) => {
                        return self.or_alarm(message.map(Some).map_err(|error| explain(&error)));
                    }
                    Ok(None) => return Err("the broker ended the consumer".to_owned()),
                    // What was on its way when the queue was empty has come by now.
                    Err(_) if is_empty => return Ok(None),
                    Err(_) if Instant::now() > deadline => return self.or_alarm(Err(no_answer())),
                    Err(_) => is_empty = self.parked.depth(&self.queue).await? == 0,
                },
            }
        }
    }

    async fn consume(&mut self) -> Result<Lane, String> {
        let channel = answered(self.parked.connection.create_channel()).await?;
        let options = BasicQosOptions { global: false };
        answered(channel.basic_qos(self.prefetch, options)).await?;
        let consume = channel.basic_consume(
            self.queue.as_str().into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = answered(consume).await?;
        Ok(Lane::new(channel, consumer))
    }

    fn replay(&self, message: Delivery) {
        let AmqpParked {
            replays,
            connection,
            link,
            ..
        } = self.parked;
        let lane = self.lanes.len() - 1;
        self.replays.push(Box::pin(async move {
            let tag = message.delivery_tag;
            replays.publish(connection, link, message).await?;
            Ok((lane, tag))
        }));
    }

    /// The broker has it in the other place.
    async fn take_out(&mut self, (lane, tag): (usize, u64)) -> Result<(), String> {
        self.lanes[lane].acknowledge(tag).await?;
        self.done += 1;
        Ok(())
    }

    /// The alarm as the cause, where there is one: such a broker does not answer whoever has published.
    fn or_alarm<T>(&self, answer: Result<T, String>) -> Result<T, String> {
        match answer {
            Err(_) if self.parked.connection.status().blocked() => Err(ALARM.to_owned()),
            answer => answer,
        }
    }
}
