//! Where a probe got stuck, and what to do about it.

use std::time::Duration;

use clerk_sync_pipeline::queue::{
    amqp::inspect::{Depth, Inspector},
    embedded::EmbeddedParked,
};

use super::{Answer, Line, Probe, made_up, parked, webhook};
use crate::{doctor::network::PATIENCE, progress::in_words};

/// Where it got stuck.
#[derive(Debug)]
pub(super) enum Stuck {
    /// Somebody wants it to end.
    Interrupted,
    /// Nobody answered the post of this event.
    NoAnswer(&'static str, String),
    /// It was answered, and not with 204.
    NotAccepted(&'static str, Answer),
    /// It was accepted, and the database does not show it.
    NotApplied {
        kind: &'static str,
        /// What the ledger says of it, if it knows it.
        outcome: Option<String>,
        waited: Duration,
    },
    /// The database cannot be asked any more.
    DatabaseLost(String),
}

impl Probe<'_> {
    pub(super) async fn explain(&self, stuck: &Stuck) -> Line {
        match stuck {
            Stuck::Interrupted => {
                Line::problem("interrupted", "the probe was ended", "run it again")
            }
            Stuck::NoAnswer(kind, cause) => Line::problem(
                "accepted",
                format!("{kind} was not accepted: {cause}"),
                webhook::UNREACHABLE,
            ),
            Stuck::NotAccepted(kind, answer) => {
                let (found, cure) = webhook::explain(answer);
                let text = format!("{kind} was not accepted: it {found}");
                Line::problem("accepted", text, cure)
            }
            Stuck::DatabaseLost(cause) => Line::problem(
                "applied",
                format!("it was accepted; whether it was applied cannot be seen: {cause}"),
                "see the database above",
            ),
            Stuck::NotApplied {
                kind,
                outcome,
                waited,
                ..
            } => {
                let waited = in_words(*waited);
                let step = match *kind {
                    made_up::DELETED => "removed",
                    _ => "applied",
                };
                match outcome.as_deref() {
                    None => {
                        let (where_, cure) = self.look_for_it().await;
                        let text = format!(
                            "{kind} was accepted, and not applied within {waited}: {where_}"
                        );
                        Line::problem(step, text, cure)
                    }
                    Some("dead_lettered") => self.dead_lettered(step, kind).await,
                    Some("retried") => Line::problem(
                        step,
                        format!("{kind} was accepted; it failed, and waits for another attempt"),
                        "the worker's log says why. A constraint, trigger or unique index of yours \
                         on `users`, perhaps?",
                    ),
                    Some(other) => Line::problem(
                        step,
                        format!(
                            "{kind} was accepted; the ledger says `{other}`, the row another thing"
                        ),
                        "does another process write to this database, or a trigger of yours?",
                    ),
                }
            }
        }
    }

    async fn dead_lettered(&self, step: &'static str, kind: &str) -> Line {
        let why = match parked::take_out(self.settings, &self.user).await {
            Ok(Some(why)) => format!("dead-lettered ({why}); it was taken out of there"),
            Ok(None) => "dead-lettered, and is not among the dead letters here".to_owned(),
            Err(cause) => format!("dead-lettered, and cannot be taken out of there: {cause}"),
        };
        Line::problem(
            step,
            format!("{kind} was accepted, and {why}"),
            "the README has what each reason means; a letter that stays: `clerk-sync dead-letters \
             list` and `discard`",
        )
    }

    /// An event that no ledger knows: still in the queue, or never there.
    async fn look_for_it(&self) -> (String, &'static str) {
        let Some(server) = self.settings.broker.server() else {
            return self.look_in_the_file();
        };
        let mut depths = Vec::new();
        for node in server.nodes.iter() {
            if let Ok(inspector) = Inspector::connect(&server, node, PATIENCE).await {
                depths = inspector.depths().await;
                inspector.close().await;
                break;
            }
        }
        let find = |name: String| depths.iter().find(|depth| depth.queue == name);
        let unrouted = find(server.topology.unrouted());
        let Some(Depth {
            queue,
            messages,
            consumers,
        }) = find(server.topology.apply())
        else {
            return (
                "and the queue cannot be looked at".to_owned(),
                "see RabbitMQ above; does a worker run, and what does its /readyz say?",
            );
        };
        if unrouted.is_some_and(|depth| depth.messages > 0) {
            return (
                format!(
                    "messages are in {}, where no worker looks",
                    server.topology.unrouted()
                ),
                "an exchange has lost a binding: run `clerk-sync setup`, then `clerk-sync \
                 dead-letters replay --from unrouted --all`",
            );
        }
        match (messages, consumers) {
            (_, 0) => (
                format!("{messages} wait in {queue}, and no worker consumes it"),
                "start a worker: `clerk-sync worker`, or `clerk-sync up`; if one runs, its /readyz \
                 says what keeps it",
            ),
            (0, _) => (
                format!(
                    "{queue} is empty, and the ledger of this database does not know the event"
                ),
                "does the worker write to another DATABASE_URL than this one? If not, is the \
                 process at this URL on another broker or QUEUE_PREFIX, or is the binding of \
                 clerk.events lost (run `clerk-sync setup`)?",
            ),
            (_, _) => (
                format!("{messages} wait in {queue}, the event behind them or among them"),
                "workers do not keep up, or cannot write: look at their logs and /readyz",
            ),
        }
    }

    fn look_in_the_file(&self) -> (String, &'static str) {
        let path = self.settings.data.queue();
        let ladder = &self.settings.broker.topology.retry_delays;
        let depths = EmbeddedParked::open(&path)
            .ok()
            .and_then(|file| file.depths(ladder).ok());
        match depths {
            Some(depths) if depths.ready + depths.in_flight > 0 => (
                format!(
                    "{} wait in {}",
                    depths.ready + depths.in_flight,
                    path.display()
                ),
                "`clerk-sync up` cannot write to its database: its log and /readyz say why",
            ),
            Some(_) => (
                format!(
                    "{} is empty, and the ledger does not know the event",
                    path.display()
                ),
                "is the process at this URL that of this data folder and this database?",
            ),
            None => (
                format!("there is no queue in {}", path.display()),
                "name the data folder of the process at this URL: --data, CLERK_SYNC_DATA",
            ),
        }
    }
}
