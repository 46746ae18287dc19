//! A lane: waits until a batch is worth taking, takes it, settles it.

use std::{future::pending, time::Instant};

use tokio::{sync::watch, time::sleep_until};

use super::{
    CLOSED, Handle,
    command::{Answer, Answered, Command},
    writer::{READY_COUNTED, Ready},
};
use crate::queue::{BatchLimits, Consume, Delivery, Settlement, Unsettled};

/// Consumes from the file.
pub struct EmbeddedConsumer {
    queue: Handle,
    ready: watch::Receiver<Ready>,
    /// Who holds the rows that this consumer took: another number after each release.
    holder: u64,
    /// A batch that was asked for. It is kept here, not in the future that waits for it, so that
    /// dropping the future loses nothing.
    asked: Option<Answered<Vec<Delivery>>>,
    /// Taken, and not yet given out.
    in_hand: Vec<Delivery>,
}

impl EmbeddedConsumer {
    pub(super) fn new(queue: Handle) -> Self {
        let ready = queue.ready.clone();
        let holder = queue.next_holder();
        Self {
            queue,
            ready,
            holder,
            asked: None,
            in_hand: Vec::new(),
        }
    }

    /// Resolves when as many are ready as a batch may hold, or `linger` after the first.
    async fn worth_taking(&mut self, limits: BatchLimits) {
        let enough = limits.events.clamp(1, READY_COUNTED);
        let mut linger_ends = None;
        loop {
            let Ready { count, next } = *self.ready.borrow_and_update();
            linger_ends = match (count, linger_ends) {
                (0, _) => None,
                (count, _) if count >= enough => return,
                (_, None) => Some(Instant::now() + limits.linger),
                (_, begun) => begun,
            };
            tokio::select! {
                told = self.ready.changed() => if told.is_err() { pending().await },
                () = reached(linger_ends) => return,
                () = reached(next) => {
                    // The thread sleeps: it looks again, and tells.
                    let looking = self.queue.commands.send(Command::Wake).await;
                    if looking.is_err() || self.ready.changed().await.is_err() {
                        pending::<()>().await;
                    }
                }
            }
        }
    }

    async fn ask(&mut self, limit: usize) {
        // A place first, then the command and its receiver in one step: nothing to lose between.
        let Ok(place) = self.queue.commands.reserve().await else {
            return pending().await;
        };
        let (answer, asked) = Answer::new();
        place.send(Command::Take {
            holder: self.holder,
            limit,
            answer,
        });
        self.asked = Some(asked);
    }

    /// Gives back all that is taken or asked for, without waiting.
    fn release(&mut self) {
        self.asked = None;
        self.in_hand.clear();
        self.queue.released.push(self.holder);
        self.holder = self.queue.next_holder();
        // Only wakes the thread: when the channel is full, it is awake.
        let _ = self.queue.commands.try_send(Command::Wake);
    }
}

impl Consume for EmbeddedConsumer {
    async fn next_batch(&mut self, limits: BatchLimits) -> Vec<Delivery> {
        let limit = limits.events.max(1);
        loop {
            if !self.in_hand.is_empty() {
                let given = limit.min(self.in_hand.len());
                return self.in_hand.drain(..given).collect();
            }
            if self.asked.is_none() {
                self.worth_taking(limits).await;
                self.ask(limit).await;
            }
            if let Some(asked) = &mut self.asked {
                // Empty: another lane was faster, or the file cannot be written just now; the
                // thread tells through `ready` when to ask again.
                let taken = asked.await;
                self.asked = None;
                self.in_hand = taken.ok().and_then(Result::ok).unwrap_or_default();
            }
        }
    }

    async fn settle(&mut self, settled: Vec<(Delivery, Settlement)>) -> Result<(), Unsettled> {
        let holder = self.holder;
        if settled
            .iter()
            .any(|(delivery, _)| delivery.tag.incarnation != holder)
        {
            return Err(Unsettled("they were handed back before".to_owned()));
        }
        let rows = settled
            .into_iter()
            .map(|(delivery, settlement)| (delivery.tag, settlement));
        let unsettled = ReleaseOnDrop(self);
        let (answer, answered) = Answer::new();
        let settle = Command::Settle {
            rows: rows.collect(),
            answer,
        };
        let closed = || Unsettled(CLOSED.to_owned());
        unsettled
            .0
            .queue
            .commands
            .send(settle)
            .await
            .map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?.map_err(Unsettled)?;
        std::mem::forget(unsettled);
        Ok(())
    }

    async fn hand_back(&mut self) {
        self.release();
        let (answer, done) = Answer::new();
        if self
            .queue
            .commands
            .send(Command::Flush { answer })
            .await
            .is_ok()
        {
            let _ = done.await;
        }
    }
}

async fn reached(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant.into()).await,
        None => pending().await,
    }
}

/// Settling failed or was given up: the rows must come again, so they are let go.
struct ReleaseOnDrop<'a>(&'a mut EmbeddedConsumer);

impl Drop for ReleaseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        self.release();
    }
}
