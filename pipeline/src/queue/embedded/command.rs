//! What publishers and consumers ask of the thread, and where its answers go.

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{DeadLetter, Depths, store};
use crate::{
    event::{Event, Millis},
    queue::{Delivery, RetryLadder, Settlement, Tag},
};

/// What the thread is asked to do.
pub(super) enum Command {
    Publish {
        event: Event,
        answer: Answer<()>,
        permit: OwnedSemaphorePermit,
    },
    Take {
        holder: u64,
        limit: usize,
        answer: Answer<Vec<Delivery>>,
    },
    Settle {
        rows: Vec<(Tag, Settlement)>,
        answer: Answer<()>,
    },
    Depths {
        answer: Answer<Depths>,
    },
    DeadLetters {
        limit: usize,
        answer: Answer<Vec<DeadLetter>>,
    },
    /// Answered when all that was released before is free again.
    Flush {
        answer: Answer<()>,
    },
    /// Something was released.
    Wake,
    /// The last one; those that are queued behind it are still served.
    Close {
        answer: oneshot::Sender<()>,
    },
}

/// Where the result of a command goes, and until its commit the result itself.
pub(super) struct Answer<T> {
    sender: oneshot::Sender<Result<T, String>>,
    value: Option<T>,
}

/// The other end of an [`Answer`].
pub(super) type Answered<T> = oneshot::Receiver<Result<T, String>>;

impl Command {
    /// Does it within a transaction, and keeps the result.
    pub(super) fn execute(
        &mut self,
        transaction: &Connection,
        ladder: &RetryLadder,
        now: Millis,
    ) -> rusqlite::Result<()> {
        match self {
            Self::Publish { event, answer, .. } => {
                answer.value = Some(store::insert(transaction, event, now)?);
            }
            // The consumer has released, maybe before this: nobody would hold what is taken.
            Self::Take { answer, .. } if answer.sender.is_closed() => {}
            Self::Take {
                holder,
                limit,
                answer,
            } => answer.value = Some(store::take(transaction, *holder, *limit, now)?),
            Self::Settle { rows, answer } => {
                for (tag, settlement) in rows {
                    store::settle(transaction, *tag, settlement, ladder, now)?;
                }
                answer.value = Some(());
            }
            Self::Depths { answer } => {
                answer.value = Some(store::depths(transaction, ladder, now)?);
            }
            Self::DeadLetters { limit, answer } => {
                answer.value = Some(store::dead_letters(transaction, *limit)?);
            }
            Self::Flush { answer } => answer.value = Some(()),
            Self::Wake | Self::Close { .. } => {}
        }
        Ok(())
    }

    /// Says how it ended, after the commit.
    pub(super) fn answer(self, committed: &Result<(), String>) {
        match self {
            Self::Publish { answer, permit, .. } => {
                drop(permit);
                answer.send(committed);
            }
            Self::Settle { answer, .. } | Self::Flush { answer } => answer.send(committed),
            Self::Take { answer, .. } => answer.send(committed),
            Self::Depths { answer } => answer.send(committed),
            Self::DeadLetters { answer, .. } => answer.send(committed),
            Self::Wake | Self::Close { .. } => {}
        }
    }

    /// What it brings to the file.
    pub(super) fn body_bytes(&self) -> usize {
        match self {
            Self::Publish { event, .. } => event.body.len(),
            _ => 0,
        }
    }
}

impl<T> Answer<T> {
    pub(super) fn new() -> (Self, Answered<T>) {
        let (sender, answered) = oneshot::channel();
        let answer = Self {
            sender,
            value: None,
        };
        (answer, answered)
    }

    fn send(self, committed: &Result<(), String>) {
        let given_up = || "the asker had given up".to_owned();
        let answer = committed
            .clone()
            .and_then(|()| self.value.ok_or_else(given_up));
        // Nobody listens any more: a publish stands all the same, and what was taken is released
        // by its consumer.
        let _ = self.sender.send(answer);
    }
}
