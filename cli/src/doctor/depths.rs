//! How full the queues are.

use clerk_sync_pipeline::queue::{Topology, amqp::inspect::Depth};

use super::report::Line;

/// From so many waiting events on, workers do not keep up, or there are too few of them.
const MANY: u32 = 10_000;

pub(super) fn judge(depths: &[Depth], topology: &Topology) -> Vec<Line> {
    let find = |name: &str| depths.iter().find(|depth| depth.queue == name);
    let mut lines = Vec::new();
    if let Some(apply) = find(&topology.apply()) {
        lines.push(queue(apply, retries(depths, topology)));
    }
    if let Some(dead) = find(&topology.dead()) {
        lines.push(dead_letters(dead.messages.into()));
    }
    if let Some(unrouted) = find(&topology.unrouted()) {
        lines.push(match unrouted.messages {
            0 => Line::ok("unrouted", "none"),
            some => Line::problem(
                "unrouted",
                format!("{some} in {}: an exchange has lost a binding", topology.unrouted()),
                "run `clerk-sync setup`, then `clerk-sync dead-letters replay --from unrouted --all`",
            ),
        });
    }
    lines
}

fn retries(depths: &[Depth], topology: &Topology) -> u32 {
    let is_rung = |name: &str| {
        let mut rungs = topology.ladder.rungs();
        rungs.any(|rung| topology.rung(rung) == name)
    };
    let rungs = depths.iter().filter(|depth| is_rung(&depth.queue));
    rungs.map(|depth| depth.messages).sum()
}

fn queue(apply: &Depth, retries: u32) -> Line {
    const NAME: &str = "queue";
    let Depth {
        queue,
        messages,
        consumers,
    } = apply;
    let text = format!("{messages} ready in {queue}, {retries} wait for a retry");
    match (*consumers, *messages) {
        (0, _) => Line::warning(
            NAME,
            format!("{text}; no worker consumes it"),
            "start a worker: `clerk-sync worker`, or `clerk-sync up`; if one runs, its /readyz says \
             what keeps it",
        ),
        (_, MANY..) => Line::warning(
            NAME,
            format!("{text}; {consumers} lanes consume it"),
            "watch whether it shrinks; if not, start another worker, and look whether the database \
             is slow",
        ),
        (_, _) => Line::ok(NAME, format!("{text}; {consumers} lanes consume it")),
    }
}

/// Letters that wait for a person.
pub(super) fn dead_letters(count: u64) -> Line {
    match count {
        0 => Line::ok("dead_letters", "none"),
        some => Line::warning(
            "dead_letters",
            format!("{some}, which could not be applied"),
            "look at them with `clerk-sync dead-letters list`, then replay or discard them",
        ),
    }
}
