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
use tokio::time::timeout;

use super::{
    ALARM, AmqpParked, InHand, Judge, answered,
    lane::{self, Lane},
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
const SILENCE: Duration = Duration::from_millis(500);
/// How often it must say so, with a silence after each: what it has handed out may be on its way
/// from a node that lags behind. Only where others have taken some does a walk wait for that.
const EMPTY_LOOKS: usize = 4;

pub(super) struct Walk<'a> {
    parked: &'a AmqpParked,
    queue: String,
    total: u64,
    prefetch: u16,
    /// The last one has room.
    lanes: Vec<Lane>,
    /// Messages that the last lane will not be rid of during the walk.
    stuck: usize,
    /// Letters on their way to the other place; each ends with its lane and tag when the broker has
    /// it there.
    replays: FuturesUnordered<BoxFuture<'a, Result<(usize, u64), String>>>,
    done: u64,
}

/// A message, and whether a lane's room is taken by it.
struct Taken {
    message: Delivery,
    takes_room: bool,
}

impl<'a> Walk<'a> {
    /// Of as many messages as there were. What is put back, or comes, meanwhile cannot make it
    /// longer.
    pub(super) fn new(parked: &'a AmqpParked, queue: String, total: u64) -> Self {
        let prefetch = u16::try_from(total.div_ceil(MOST_LANES)).unwrap_or(u16::MAX);
        Self {
            parked,
            queue,
            total,
            prefetch: prefetch.max(PREFETCH),
            lanes: Vec::new(),
            stuck: 0,
            replays: FuturesUnordered::new(),
            done: 0,
        }
    }

    /// What it leaves in hand, and how many it has replayed.
    pub(super) fn end(self) -> (InHand, u64) {
        let in_hand = InHand {
            queue: self.queue,
            // Those that were sent ahead and not judged, too.
            messages: self.total - self.done,
            lanes: self.lanes,
        };
        (in_hand, self.done)
    }

    /// Has every message judged; fewer, where others have taken some.
    pub(super) async fn go(&mut self, judge: impl Judge) -> Result<(), String> {
        let mut looked = self.look(judge).await;
        // What is on its way arrives in the other place, whatever has happened here: it must not stay.
        while let Some(published) = self.replays.next().await {
            let taken_out = match published {
                Ok(published) => self.take_out(published).await,
                Err(cause) => Err(cause),
            };
            looked = looked.and(taken_out);
        }
        if !self.is_blocked() {
            looked = looked.and(lane::settled(&self.lanes, &self.queue).await);
        }
        // A broker with an alarm does not answer whoever has published.
        looked.map_err(|cause| {
            if self.is_blocked() {
                ALARM.to_owned()
            } else {
                cause
            }
        })
    }

    async fn look(&mut self, mut judge: impl Judge) -> Result<(), String> {
        for _ in 0..self.total {
            let Some(taken) = self.next().await? else {
                break;
            };
            if self.judged(taken, &mut judge).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn judged(&mut self, taken: Taken, judge: &mut impl Judge) -> ControlFlow<()> {
        let Taken {
            message,
            takes_room,
        } = taken;
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
        self.stuck += usize::from(takes_room);
        fate.map_continue(|_| ())
    }

    /// The next message; `None` when the queue has nothing more to hand out.
    async fn next(&mut self) -> Result<Option<Taken>, String> {
        if self.lanes.is_empty() || self.stuck == usize::from(self.prefetch) {
            let lane = self.consume().await?;
            self.lanes.push(lane);
            self.stuck = 0;
        }
        let mut empty_looks = 0;
        loop {
            let Self { lanes, replays, .. } = self;
            let Some(lane) = lanes.last_mut() else {
                return Ok(None);
            };
            // A replay gives its room back when it is taken out.
            let room = usize::from(self.prefetch) - self.stuck;
            let may_come = replays.len() < room.min(AT_ONCE);
            tokio::select! {
                Some(published) = replays.next() => self.take_out(published?).await?,
                message = timeout(SILENCE, lane.consumer.next()), if may_come => match message {
                    Ok(Some(Ok(message))) => return Ok(Some(Taken { message, takes_room: true })),
                    Ok(Some(Err(error))) => return Err(explain(&error)),
                    Ok(None) => return Err("the broker ended the consumer".to_owned()),
                    Err(_) if empty_looks == EMPTY_LOOKS => return Ok(None),
                    // Not by the queue's depth, which is 0 also when nobody knows.
                    Err(_) => match lane.get(&self.queue).await? {
                        Some(message) => return Ok(Some(Taken { message, takes_room: false })),
                        None => empty_looks += 1,
                    },
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

    fn is_blocked(&self) -> bool {
        self.parked.connection.status().blocked()
    }
}
