//! The operator's side of a queue: what is parked for a person.
//!
//! Enters: a judgement on each letter. Leaves: letters back on their way, or gone for good.
//! Guaranteed: a letter is out of its place only after it is durable elsewhere, or after it was
//! meant to be discarded; whoever is killed in between leaves it there, at worst twice.

use bytes::Bytes;

use crate::event::{EventId, EventType, Millis};

pub use tally::Tally;

mod tally;

/// Where events are parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The dead letters: what could not be applied.
    Dead,
    /// What found no queue. Only RabbitMQ can have any.
    Unrouted,
}

impl Place {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Dead => Self::Unrouted,
            Self::Unrouted => Self::Dead,
        }
    }
}

/// A parked event, without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The delivery's id (`svix-id`); one made of the body for what others published without.
    pub id: EventId,
    /// The event's type.
    pub event_type: EventType,
    /// Why it is here: the code of a [`super::Reason`], or [`DELIVERY_LIMIT`], [`UNROUTED`],
    /// [`UNKNOWN`], or a reason of the broker's.
    pub code: String,
    /// One line for an operator.
    pub detail: Option<String>,
    /// How often applying it has failed.
    pub attempts: u32,
    /// When it first failed.
    pub first_failed_at: Option<Millis>,
    /// When the ingester had it. Unknown of what others published without saying.
    pub received_at: Option<Millis>,
    /// Size of its body.
    pub bytes: u64,
    /// What else travels with it: header and value, as the queue has them.
    pub headers: Vec<(String, String)>,
}

/// The code of what was handed out too often without an answer: the queue's own judgement.
pub const DELIVERY_LIMIT: &str = "delivery_limit";
/// The code of what found no queue.
pub const UNROUTED: &str = "unrouted";
/// The code of a letter that does not say why it is here.
pub const UNKNOWN: &str = "unknown";

/// What becomes of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Keep,
    /// It goes to be applied again, as it first came, its attempts counted anew.
    Replay,
    /// It stays for now; [`Parked::discard_marked`] may follow.
    Mark,
}

/// Parked letters, for one operator. Several may be at work at once, and beside workers: each
/// letter is in one hand only.
///
/// The walks hold some hundred bodies at a time, or a 64th of a queue of more than 16,384 letters.
pub trait Parked: Send + 'static {
    /// What a place is called where it is: a queue's name, or a file's.
    fn name(&self, place: Place) -> String;

    /// How many letters are there, those left out that another operator has in hand.
    fn count(&mut self, place: Place) -> impl Future<Output = Result<u64, Interrupted>> + Send;

    /// Looks at as many letters as are there now, each once, in no particular order, and returns
    /// how many were replayed. A replayed one leaves its place only when it is durable in the other.
    ///
    /// # Errors
    /// What was not replayed by then is where it was.
    fn walk(
        &mut self,
        place: Place,
        judge: impl FnMut(&Letter) -> Fate + Send,
    ) -> impl Future<Output = Result<u64, Interrupted>> + Send;

    /// Discards exactly the letters that the last walk marked, those left out that another
    /// operator has moved since; returns how many.
    ///
    /// # Errors
    /// What was not discarded by then is where it was; how much that is, nobody may know.
    fn discard_marked(&mut self) -> impl Future<Output = Result<u64, Interrupted>> + Send;

    /// The body of a letter with this id, byte for byte, if there is one.
    fn body(
        &mut self,
        place: Place,
        id: &EventId,
    ) -> impl Future<Output = Result<Option<Bytes>, Interrupted>> + Send;

    /// How long after its replay an event is handed out.
    fn replay_delay(&self) -> std::time::Duration;

    /// Gives back what is in hand, marked letters too, and lets go.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// The queue failed on the way.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct Interrupted {
    /// How many letters had been replayed or discarded, as far as the broker has said.
    pub done: u64,
    /// What happened, and what to do, for an operator.
    pub cause: String,
}

impl Interrupted {
    /// Before anything was done.
    pub(super) fn at_once(cause: impl Into<String>) -> Self {
        Self {
            done: 0,
            cause: cause.into(),
        }
    }
}
