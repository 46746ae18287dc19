//! Parked letters on RabbitMQ.
//!
//! A walk takes message after message and answers none of those that stay until it is over: given
//! back at once they would come round again. What has no answer when its channel closes is back in
//! the queue, whether the walk ends, fails or is killed. Each look counts against the queue's
//! delivery limit, which is a million for that reason.

use std::{
    ops::ControlFlow,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::try_join_all;
use lapin::{
    Channel, Connection,
    message::Delivery,
    options::{BasicAckOptions, BasicGetOptions, QueueDeclareOptions},
    types::FieldTable,
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    Server,
    connection::{CLOSE_TIMEOUT, CutOnDrop, Link, errand},
    explain,
    letter::letter,
    message,
};
use crate::{
    event::EventId,
    queue::{
        Rung, Topology,
        parked::{Fate, Interrupted, Letter, Parked, Place},
    },
};

use replay::Replays;

mod replay;

/// Channels that a walk takes messages on: each holds one body, and each message costs a round
/// trip and an entry in the queue's log, which several can share.
const LANES: usize = 16;
/// Longest wait for the broker's word on one message.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long letters that were given back may take to appear, one after the other.
const STILL: Duration = Duration::from_secs(1);
/// Between two looks whether they have.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The dead letters and the unrouted messages of a broker.
pub struct AmqpParked {
    topology: Topology,
    connection: Connection,
    link: Link,
    replays: Replays,
    /// What the last walk left in hand.
    in_hand: Option<InHand>,
    _cut: CutOnDrop,
}

/// Messages that have no answer yet, and the channels that hold them.
struct InHand {
    queue: String,
    messages: u64,
    lanes: Vec<Lane>,
}

/// A channel, and the messages on it that were marked.
struct Lane {
    channel: Channel,
    marked: Vec<u64>,
}

/// What the lanes of a walk share.
struct Walk<J> {
    queue: String,
    /// How many may still be taken: as many as there were. What is put back, or comes, meanwhile
    /// cannot make the walk longer.
    left: AtomicU64,
    kept: AtomicU64,
    done: AtomicU64,
    judge: Mutex<J>,
}

/// What becomes of a message, or that enough was seen.
trait Judge: FnMut(&Delivery) -> ControlFlow<(), Fate> + Send {}

impl<J: FnMut(&Delivery) -> ControlFlow<(), Fate> + Send> Judge for J {}

impl AmqpParked {
    /// Connects.
    ///
    /// # Errors
    /// The broker cannot be reached; for an operator.
    pub async fn open(server: &Server) -> Result<Self, Interrupted> {
        let (connection, cut) = errand(server).await.map_err(Interrupted::at_once)?;
        let link = cut.link();
        Ok(Self {
            topology: server.topology.clone(),
            connection,
            link,
            replays: Replays::new(server.topology.clone()),
            in_hand: None,
            _cut: cut,
        })
    }

    /// How many messages wait in a queue.
    async fn depth(&self, queue: &str) -> Result<u64, String> {
        let channel = answered(self.connection.create_channel()).await?;
        let declare = channel.queue_declare(queue.into(), passive(), FieldTable::default());
        let declared = answered(declare).await?;
        Ok(declared.message_count().into())
    }

    /// Has every message judged that is there now. Returns how many were replayed; what was marked
    /// is kept in hand.
    async fn go_through(&mut self, place: Place, judge: impl Judge) -> Result<u64, Interrupted> {
        self.let_go().await;
        let total = self.count(place).await?;
        let walk = Walk {
            queue: self.queue(place),
            left: AtomicU64::new(total),
            kept: AtomicU64::new(0),
            done: AtomicU64::new(0),
            judge: Mutex::new(judge),
        };
        let lanes = LANES.min(usize::try_from(total).unwrap_or(LANES));
        let looked = try_join_all((0..lanes).map(|_| self.look(&walk))).await;
        let done = walk.done.load(Ordering::Relaxed);
        let lanes = looked.map_err(|cause| interrupted(done, cause))?;
        let marked = lanes.iter().any(|lane| !lane.marked.is_empty());
        self.in_hand = Some(InHand {
            queue: walk.queue,
            messages: walk.kept.load(Ordering::Relaxed),
            lanes,
        });
        if !marked {
            self.let_go().await;
        }
        Ok(done)
    }

    /// One lane: takes messages until nothing is left.
    async fn look(&self, walk: &Walk<impl Judge>) -> Result<Lane, String> {
        let channel = answered(self.connection.create_channel()).await?;
        let mut marked = Vec::new();
        while let Some(message) = self.take(walk, &channel).await? {
            let judged = {
                let mut judge = walk.judge.lock().unwrap_or_else(PoisonError::into_inner);
                judge(&message)
            };
            let tag = message.delivery_tag;
            if judged == ControlFlow::Continue(Fate::Replay) {
                let (connection, link) = (&self.connection, &self.link);
                self.replays.publish(connection, link, message).await?;
                // Taken out only after the broker has it in the other place.
                answered(channel.basic_ack(tag, BasicAckOptions::default())).await?;
                walk.done.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            walk.kept.fetch_add(1, Ordering::Relaxed);
            match judged {
                ControlFlow::Continue(Fate::Mark) => marked.push(tag),
                ControlFlow::Continue(_) => {}
                ControlFlow::Break(()) => walk.left.store(0, Ordering::Relaxed),
            }
        }
        Ok(Lane { channel, marked })
    }

    /// The next message, as long as some of the walk's are left.
    async fn take<J>(&self, walk: &Walk<J>, channel: &Channel) -> Result<Option<Delivery>, String> {
        let one_less = |left: u64| left.checked_sub(1);
        let another = walk
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        if another.is_err() {
            return Ok(None);
        }
        let options = BasicGetOptions { no_ack: false };
        let taken = answered(channel.basic_get(walk.queue.as_str().into(), options)).await;
        match taken {
            Ok(taken) => Ok(taken.map(|message| message.delivery)),
            Err(_) if self.connection.status().blocked() => Err(ALARM.to_owned()),
            Err(cause) => Err(cause),
        }
    }

    fn queue(&self, place: Place) -> String {
        match place {
            Place::Dead => self.topology.dead(),
            Place::Unrouted => self.topology.unrouted(),
        }
    }

    /// Closes the channels of the last walk, which gives back what they hold, and waits until that
    /// is in the queue again: the broker says closed before, and whoever looked now would miss some.
    async fn let_go(&mut self) {
        let Some(in_hand) = self.in_hand.take() else {
            return;
        };
        for lane in &in_hand.lanes {
            // When the broker does not answer, the end of the connection does it.
            let closing = lane.channel.close(200, "done".into());
            let _ = timeout(CLOSE_TIMEOUT, closing).await;
        }
        let (mut seen, mut grown) = (0, Instant::now());
        while let Ok(depth) = self.depth(&in_hand.queue).await {
            if depth > seen {
                (seen, grown) = (depth, Instant::now());
            }
            // Others may have taken some meanwhile.
            if depth >= in_hand.messages || grown.elapsed() > STILL {
                break;
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}

impl Parked for AmqpParked {
    fn name(&self, place: Place) -> String {
        self.queue(place)
    }

    async fn count(&mut self, place: Place) -> Result<u64, Interrupted> {
        let depth = self.depth(&self.queue(place)).await;
        depth.map_err(|cause| interrupted(0, cause))
    }

    async fn walk(
        &mut self,
        place: Place,
        mut judge: impl FnMut(&Letter) -> Fate + Send,
    ) -> Result<u64, Interrupted> {
        let judge = |message: &Delivery| ControlFlow::Continue(judge(&letter(message, place)));
        self.go_through(place, judge).await
    }

    async fn discard_marked(&mut self) -> Result<u64, Interrupted> {
        let mut done = 0;
        let Some(mut in_hand) = self.in_hand.take() else {
            return Ok(0);
        };
        let discard = async {
            for Lane { channel, marked } in &in_hand.lanes {
                for tag in marked {
                    answered(channel.basic_ack(*tag, BasicAckOptions::default())).await?;
                }
                // Its answer says that those before it have been heard.
                answered(channel.close(200, "done".into())).await?;
                done += marked.len() as u64;
            }
            Ok(())
        };
        discard.await.map_err(|cause| interrupted(done, cause))?;
        in_hand.lanes.clear();
        in_hand.messages -= done;
        self.in_hand = Some(in_hand);
        self.let_go().await;
        Ok(done)
    }

    async fn body(&mut self, place: Place, id: &EventId) -> Result<Option<Bytes>, Interrupted> {
        let mut body = None;
        let judge = |message: &Delivery| {
            if message::id(message) != *id {
                return ControlFlow::Continue(Fate::Keep);
            }
            body = Some(Bytes::copy_from_slice(&message.data));
            ControlFlow::Break(())
        };
        self.go_through(place, judge).await?;
        Ok(body)
    }

    fn replay_delay(&self) -> Duration {
        self.topology.ladder.delay(Rung(0))
    }

    async fn close(mut self) {
        self.let_go().await;
        // When it is not polite in time, the guard cuts it.
        let closing = self.connection.close(200, "done".into());
        let _ = timeout(CLOSE_TIMEOUT, closing).await;
    }
}

const ALARM: &str = "the broker takes no messages: it holds a memory or disk alarm. Free some, then \
                     try again";

/// The cause with what to do about it.
fn interrupted(done: u64, cause: String) -> Interrupted {
    let cause = if cause.contains("ACCESS_REFUSED") {
        format!("{cause}: grant this user the rights that docs/DEAD_LETTERS.md names")
    } else {
        cause
    };
    Interrupted { done, cause }
}

fn passive() -> QueueDeclareOptions {
    QueueDeclareOptions {
        passive: true,
        ..Default::default()
    }
}

fn no_answer() -> String {
    format!("the broker did not answer within {ANSWER_TIMEOUT:?}")
}

/// The broker's answer, in time, or what to tell an operator.
async fn answered<T>(rpc: impl Future<Output = lapin::Result<T>>) -> Result<T, String> {
    match timeout(ANSWER_TIMEOUT, rpc).await {
        Ok(answer) => answer.map_err(|error| explain(&error)),
        Err(_) => Err(no_answer()),
    }
}
