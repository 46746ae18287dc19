//! Publishing with confirms, many at a time on one channel, in one task.
//!
//! The task owns the channel: no lock, no task per message. It says success only for a clean `ack`
//! with no message returned in the same breath: lapin gives a returned message to whichever
//! pending confirm is resolved next, so one return makes every confirm around it suspect, and ends
//! the incarnation.

use std::{collections::VecDeque, pin::pin, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use lapin::{
    BasicProperties, Channel, Confirmation, options::BasicPublishOptions, types::ShortString,
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};

use super::{connection::Link, explain};
use crate::queue::CONFIRM_OVERDUE;

/// A message on its way to an exchange.
pub(super) struct Message {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: bytes::Bytes,
}

/// A message, and who waits for it. The permit lives here, not with the waiter: a caller that has
/// gone away still occupies its place until the broker has answered.
pub(super) struct Job {
    pub(super) message: Message,
    pub(super) answer: oneshot::Sender<Result<(), String>>,
    pub(super) permit: OwnedSemaphorePermit,
}

struct Answered {
    confirmation: Result<Confirmation, lapin::Error>,
    answer: oneshot::Sender<Result<(), String>>,
    age: u64,
    permit: OwnedSemaphorePermit,
}

/// Most messages that are sent between two looks at the confirms.
const MOST_AT_ONCE: usize = 64;
const AGE_TICK: Duration = Duration::from_secs(1);

/// Publishes jobs on one confirm channel until the incarnation ends. Jobs that are pending then
/// are answered with an error: their waiters' senders are dropped.
pub(super) async fn run(
    channel: Channel,
    mut jobs: mpsc::Receiver<Job>,
    link: Link,
    blocked: impl Fn() -> bool,
) {
    let mut pending = FuturesUnordered::new();
    let mut taken = Vec::with_capacity(MOST_AT_ONCE);
    // Made once: each new one would take the lock of everybody who waits for it.
    let mut failed = pin!(link.failed());
    let mut ages = Ages::default();
    // A task that ends, even by a panic, must not leave a channel that nobody serves.
    let _ended = FailOnDrop(&link);
    let mut tick = interval(AGE_TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            // All that is there goes out before the confirms are looked at: one wake-up for many.
            count = jobs.recv_many(&mut taken, MOST_AT_ONCE) => {
                if count == 0 {
                    break;
                }
                pending.extend(taken.drain(..).map(|job| publish(&channel, job, ages.born())));
            }
            Some(first) = pending.next(), if !pending.is_empty() => {
                let mut batch = vec![first];
                // Everything that is resolved by now, up to the first that is not: a returned
                // message sits in a confirm that was resolved no later than the one just seen.
                while let Some(Some(next)) = pending.next().now_or_never() {
                    batch.push(next);
                }
                settle(batch, &mut ages, &link);
            }
            _ = tick.tick() => {
                // While the broker holds an alarm it reads nothing; that is not a dead link.
                if !blocked() && ages.grow() >= CONFIRM_OVERDUE {
                    link.fail(format!("no confirm within {CONFIRM_OVERDUE:?}"));
                }
            }
            () = &mut failed => break,
        }
    }
}

struct FailOnDrop<'a>(&'a Link);

impl Drop for FailOnDrop<'_> {
    fn drop(&mut self) {
        self.0.fail("a confirm channel's task has ended");
    }
}

async fn publish(channel: &Channel, job: Job, age: u64) -> Answered {
    let Job {
        message:
            Message {
                exchange,
                routing_key,
                properties,
                body,
            },
        answer,
        permit,
    } = job;
    let options = BasicPublishOptions {
        mandatory: true,
        ..Default::default()
    };
    let confirmation = match channel
        .basic_publish(exchange, routing_key, options, &body, properties)
        .await
    {
        Ok(confirm) => {
            // lapin has its own copy in frames by now.
            drop(body);
            confirm.await
        }
        Err(error) => Err(error),
    };
    Answered {
        confirmation,
        answer,
        age,
        permit,
    }
}

fn settle(batch: Vec<Answered>, ages: &mut Ages, link: &Link) {
    let returned = batch
        .iter()
        .find_map(|answered| match &answered.confirmation {
            Ok(Confirmation::Ack(Some(message)) | Confirmation::Nack(Some(message))) => {
                Some(format!(
                    "a message was returned by exchange `{}` ({}): run `clerk-sync setup`",
                    message.delivery.exchange, message.reply_text,
                ))
            }
            _ => None,
        });
    if let Some(cause) = &returned {
        link.fail(cause.clone());
    }
    // Once the incarnation has failed no confirm is a success any more: the return that belongs to
    // one of these may have been given to a confirm that was settled before.
    let returned = link.failure();
    for Answered {
        confirmation,
        answer,
        age,
        permit,
    } in batch
    {
        ages.died(age);
        let result = match (&returned, confirmation) {
            (Some(cause), _) => Err(cause.clone()),
            // Success is said here and nowhere else: persistent, routed, confirmed.
            (None, Ok(Confirmation::Ack(None))) => Ok(()),
            (None, Ok(Confirmation::Nack(_))) => Err(
                "the broker refused the message: its queue is at the length limit, or has no \
                     leader to take it"
                    .to_owned(),
            ),
            (None, Ok(Confirmation::Ack(Some(_)) | Confirmation::NotRequested)) => {
                Err("the channel does not confirm".to_owned())
            }
            (None, Err(error)) => {
                let cause = explain(&error);
                link.fail(cause.clone());
                Err(cause)
            }
        };
        drop(permit);
        // A waiter that has gone away has been answered 503 already.
        let _ = answer.send(result);
    }
}

/// How many publishes wait, by the second of their birth: the age of the oldest without a timer
/// for each.
struct Ages {
    /// Second in which `waiting[0]` were born.
    first: u64,
    waiting: VecDeque<usize>,
}

impl Default for Ages {
    fn default() -> Self {
        Self {
            first: 0,
            waiting: VecDeque::from([0]),
        }
    }
}

impl Ages {
    fn born(&mut self) -> u64 {
        let newest = self.waiting.len() - 1;
        self.waiting[newest] += 1;
        self.first + newest as u64
    }

    fn died(&mut self, born: u64) {
        if let Some(waiting) = usize::try_from(born - self.first)
            .ok()
            .and_then(|at| self.waiting.get_mut(at))
        {
            *waiting -= 1;
        }
    }

    /// A second has passed; returns how long the oldest has waited.
    fn grow(&mut self) -> Duration {
        self.waiting.push_back(0);
        while self.waiting.len() > 1 && self.waiting[0] == 0 {
            self.waiting.pop_front();
            self.first += 1;
        }
        AGE_TICK * u32::try_from(self.waiting.len() - 1).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_publish_tells_the_age() {
        let mut ages = Ages::default();
        let old = ages.born();
        assert_eq!(ages.grow(), AGE_TICK);
        let young = ages.born();
        assert_eq!(ages.grow(), AGE_TICK * 2);
        ages.died(old);
        assert_eq!(ages.grow(), AGE_TICK * 2, "now the young one is the oldest");
        ages.died(young);
        assert_eq!(ages.grow(), Duration::ZERO);
    }
}
