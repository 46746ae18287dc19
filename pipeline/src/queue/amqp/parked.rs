//! Parked letters on RabbitMQ.
//!
//! A walk takes message after message and answers none of those that stay until it is over: given
//! back at once they would come round again. What has no answer when its channel closes is back in
//! the queue, whether the walk ends, fails or is killed. Each look counts against the queue's
//! delivery limit, which is a million for that reason.

use std::{ops::ControlFlow, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use lapin::{Connection, message::Delivery, options::QueueDeclareOptions, types::FieldTable};
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

use lane::Lane;
use replay::Replays;
use walk::Walk;

mod lane;
mod replay;
mod walk;

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

/// Messages that have no answer yet, and the lanes that hold them.
struct InHand {
    queue: String,
    messages: u64,
    lanes: Vec<Lane>,
}

impl InHand {
    /// Acknowledges what was marked, and waits until that is settled; how many that were.
    async fn discard(&mut self) -> Result<u64, String> {
        let mut done = 0;
        for lane in &mut self.lanes {
            for tag in std::mem::take(&mut lane.marked) {
                lane.acknowledge(tag).await?;
                done += 1;
            }
        }
        lane::settled(&self.lanes, &self.queue).await?;
        self.messages = self.messages.saturating_sub(done);
        Ok(done)
    }
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

    /// How many messages wait in a queue, from somebody who knows: a broker that cannot ask the
    /// queue's leader in time says 0.
    async fn known_depth(&self, queue: &str) -> Result<u64, String> {
        let depth = self.depth(queue).await?;
        if depth > 0 {
            return Ok(depth);
        }
        let channel = answered(self.connection.create_channel()).await?;
        let found = lane::get(&channel, queue).await?;
        answered(channel.close(200, "done".into())).await?;
        match found {
            Some(_) => Ok(self.depth(queue).await?.max(1)),
            None => Ok(0),
        }
    }

    /// Has every message judged that is there now. Returns how many were replayed; what was marked
    /// is kept in hand.
    async fn go_through(&mut self, place: Place, judge: impl Judge) -> Result<u64, Interrupted> {
        self.let_go().await;
        let total = self.count(place).await?;
        let mut walk = Walk::new(self, self.queue(place), total);
        let mut looked = walk.go(judge).await;
        let (in_hand, done) = walk.end();
        let marked = in_hand.lanes.iter().any(|lane| !lane.marked.is_empty());
        if looked.is_ok() && marked {
            // Somebody may think about it, and what comes meanwhile is for others to see.
            looked = lane::cancel(&in_hand.lanes).await;
        }
        self.in_hand = Some(in_hand);
        if looked.is_err() || !marked {
            self.let_go().await;
        }
        looked
            .map(|()| done)
            .map_err(|cause| interrupted(done, cause))
    }

    fn queue(&self, place: Place) -> String {
        match place {
            Place::Dead => self.topology.dead(),
            Place::Unrouted => self.topology.unrouted(),
        }
    }

    /// Closes the lanes of the last walk, which gives back what they hold, and waits until that is in
    /// the queue again: the broker says closed before, and whoever looked now would miss some.
    async fn let_go(&mut self) {
        let Some(in_hand) = self.in_hand.take() else {
            return;
        };
        join_all(in_hand.lanes.into_iter().map(Lane::close)).await;
        if self.connection.status().blocked() {
            return;
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
        let depth = self.known_depth(&self.queue(place)).await;
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
        let Some(mut in_hand) = self.in_hand.take() else {
            return Ok(0);
        };
        let discarded = in_hand.discard().await;
        self.in_hand = Some(in_hand);
        self.let_go().await;
        // An acknowledgement has no answer, so after a failure nobody knows how many.
        discarded.map_err(|cause| interrupted(0, format!("{cause}; some may be discarded")))
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
