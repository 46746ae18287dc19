//! RabbitMQ: reached, as wanted, permitted, and how full.

use std::time::Duration;

use clerk_sync_pipeline::{
    queue::{
        Topology,
        amqp::{
            Server,
            inspect::{Depth, Inspector, Object, Right, Rights, State},
        },
    },
    secret::ServerUrl,
};
use futures_util::future::join_all;
use tokio::time::timeout;

use super::{
    depths, management,
    network::{ALL_QUESTIONS, PATIENCE, encryption, in_millis},
    report::{Group, Line},
};

/// What a broker answered.
struct Seen {
    objects: Vec<Object>,
    depths: Vec<Depth>,
    rights: Rights,
    round_trip: Result<Option<Duration>, String>,
}

pub(super) async fn examine(server: &Server, management_url: Option<&ServerUrl>) -> Group {
    let connecting = server
        .nodes
        .iter()
        .map(|node| async move { (node, Inspector::connect(server, node, PATIENCE).await) });
    let mut lines = Vec::new();
    let mut inspector = None;
    let (reached, lost): (Vec<_>, Vec<_>) = join_all(connecting)
        .await
        .into_iter()
        .partition(|(_, connected)| connected.is_ok());
    for (node, cause) in lost
        .into_iter()
        .filter_map(|(node, it)| Some((node, it.err()?)))
    {
        lines.push(away(node, &cause, reached.is_empty()));
    }
    for (node, connected) in reached {
        let Ok(connected) = connected else { continue };
        let took = connected.connected_in;
        lines.push(Line::ok("reachable", format!("{node}, in {}", in_millis(took))).took(took));
        let cure = "use amqps://, unless you trust the network in between";
        lines.push(encryption(node, node.expose().scheme() == "amqps", cure));
        if inspector.is_none() {
            inspector = Some(connected);
        } else {
            connected.close().await;
        }
    }
    if let Some(inspector) = inspector {
        let topology = &server.topology;
        let asked = timeout(ALL_QUESTIONS, ask(inspector));
        let (asked, bindings) = tokio::join!(asked, management::bindings(management_url, server));
        match asked {
            Ok(seen) => lines.extend(judge(&seen, topology, bindings)),
            Err(_) => lines.push(Line::problem(
                "topology",
                format!("the broker took the connection, and then did not answer within {ALL_QUESTIONS:?}"),
                "look at the broker's log and at its alarms",
            )),
        }
    }
    Group::new("rabbitmq", lines)
}

async fn ask(inspector: Inspector) -> Seen {
    let seen = Seen {
        objects: inspector.objects().await,
        depths: inspector.depths().await,
        // Last, since a broker with an alarm hears nothing after their publishes.
        rights: inspector.rights().await,
        round_trip: inspector.round_trip().await,
    };
    inspector.close().await;
    seen
}

fn away(node: &ServerUrl, cause: &str, alone: bool) -> Line {
    let shown = node.to_string();
    let text = if cause.contains(&shown) {
        cause.to_owned()
    } else {
        format!("{shown}: {cause}")
    };
    if alone {
        let cure = "is RabbitMQ running there? AMQP_URL has its host and port, user and password, \
                    and after the last slash the virtual host";
        Line::problem("reachable", text, cure)
    } else {
        let cure = "connections go to the other nodes meanwhile; start this one, or take it out of \
                    AMQP_URL";
        Line::warning("reachable", text, cure)
    }
}

fn judge(seen: &Seen, topology: &Topology, bindings: Line) -> Vec<Line> {
    let mut lines = objects(&seen.objects);
    lines.push(bindings);
    lines.push(rights(&seen.rights, topology));
    lines.push(round_trip(&seen.round_trip));
    lines.extend(depths::judge(&seen.depths, topology));
    lines
}

fn objects(objects: &[Object]) -> Vec<Line> {
    const NAME: &str = "topology";
    const SETUP: &str = "run `clerk-sync setup`, which makes it and leaves the rest alone";
    let mut lines = Vec::new();
    let is = |state: State| move |object: &&Object| object.state == state;
    let missing = objects.iter().filter(is(State::Missing)).count();
    if missing == objects.len() {
        let text = "nothing of the topology is there";
        let cure = "run `clerk-sync setup`; if it was run, is QUEUE_PREFIX the same, and the \
                    virtual host?";
        return vec![Line::problem(NAME, text, cure)];
    }
    for object in objects {
        let name = &object.name;
        match &object.state {
            State::AsWanted | State::There | State::Hidden => {}
            State::Missing => {
                lines.push(Line::problem(NAME, format!("{name} is not there"), SETUP));
            }
            // By its arguments alone it is not as wanted, but a policy may make it so.
            State::Lacks(arguments) => lines.push(Line::warning(
                NAME,
                format!("{name} has no {} of its own", arguments.join(", ")),
                "fine if a policy gives it that, as deploy/rabbitmq/definitions.json does; else \
                 empty and delete it, then run `clerk-sync setup`",
            )),
            State::Different(how) => lines.push(Line::problem(
                NAME,
                how.as_str(),
                "empty and delete it (or the policy that made it so), then run `clerk-sync setup`; \
                 or set QUEUE_MAX_BYTES or QUEUE_PREFIX to what is there",
            )),
            State::Unknown(cause) => lines.push(Line::problem(
                NAME,
                format!("{name}: {cause}"),
                "look at the broker's log",
            )),
        }
    }
    let unseen = objects.iter().filter(is(State::There)).count();
    let hidden = objects.iter().filter(is(State::Hidden)).count();
    if hidden > 0 {
        lines.push(Line::skipped(
            NAME,
            format!(
                "of {hidden} exchanges and queues this user may not ask whether they are there"
            ),
        ));
    }
    if unseen > 0 {
        lines.push(Line::skipped(
            NAME,
            format!(
                "{unseen} exchanges and queues are there; whether with the right arguments is only \
                 told to a user that may configure them, such as that of `clerk-sync setup`"
            ),
        ));
    }
    if lines.is_empty() {
        let text = format!("all {} exchanges and queues are as wanted", objects.len());
        lines.push(Line::ok(NAME, text));
    }
    lines
}

/// A user may be an ingester's, a worker's, an operator's, or all in one. What fits none of them is
/// a mistake.
fn rights(rights: &Rights, topology: &Topology) -> Line {
    const NAME: &str = "permissions";
    let all = [
        &rights.publish_events,
        &rights.publish_retries,
        &rights.consume,
        &rights.look_at_dead_letters,
    ];
    let unknown = all.iter().find_map(|right| match right {
        Right::Unknown(cause) => Some(cause),
        Right::Given | Right::Refused => None,
    });
    if let Some(cause) = unknown {
        return if cause.contains("NOT_FOUND") {
            Line::skipped(NAME, "the topology must be there first")
        } else {
            Line::problem(
                NAME,
                cause.as_str(),
                "free memory or disk of the broker, or look at its log",
            )
        };
    }
    let given = all.map(|right| *right == Right::Given);
    let role = match given {
        [true, true, true, _] => Some("publishes events, consumes them, and moves what failed"),
        [true, false, false, _] => Some("an ingester's: publishes events, and nothing else"),
        [false, true, true, _] => Some("a worker's: consumes events, and moves what failed"),
        [false, true, false, true] => {
            Some("an operator's: looks at dead letters, and replays them")
        }
        _ => None,
    };
    if let Some(role) = role {
        return Line::ok(NAME, role);
    }
    let lacks = [
        (given[0], format!("write to {}", topology.events())),
        (given[1], format!("write to {}", topology.retry())),
        (given[2], format!("read {}", topology.apply())),
    ];
    let lacks = lacks.into_iter().filter(|(given, _)| !given);
    let lacks: Vec<String> = lacks.map(|(_, what)| what).collect();
    Line::problem(
        NAME,
        format!("the user may not {}", lacks.join(", nor ")),
        "run deploy/rabbitmq/users.sh: it gives each user what its part needs (an ingester writes \
         events; a worker reads the queue and writes retries)",
    )
}

fn round_trip(round_trip: &Result<Option<Duration>, String>) -> Line {
    const NAME: &str = "confirm";
    match round_trip {
        Ok(Some(took)) => {
            let text = format!("a message was confirmed in {}", in_millis(*took));
            Line::ok(NAME, text).took(*took)
        }
        Ok(None) => Line::skipped(
            NAME,
            "this user may not have a queue of its own to try it on; `--probe` tries it for real",
        ),
        Err(cause) => Line::problem(NAME, cause.as_str(), "look at the broker's log and alarms"),
    }
}
