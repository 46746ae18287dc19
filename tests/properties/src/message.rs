//! An event goes to the broker as a message and comes back as the same event.

use std::io::Cursor;

use clerk_sync_pipeline::{
    EventId, EventType, Millis,
    queue::{
        Delivery, Failure, MAX_ERROR_DETAIL, Reason,
        amqp::fuzzing::{delivery, failed_properties, properties},
    },
};
use lapin::{
    BasicProperties,
    protocol::basic::{gen_properties, parse_properties},
    types::ShortString,
};

const NOW: Millis = Millis(1_780_000_000_000);
/// More than a message's properties take: a frame of RabbitMQ has 128 KiB.
const ROOM: usize = 128 * 1024;
/// Everything that a message of ours may carry.
const HEADERS: [&str; 7] = [
    "x-received-at",
    "svix-timestamp",
    "traceparent",
    "x-attempt",
    "x-first-failed-at",
    "x-error",
    "x-error-detail",
];

/// The input is a message's properties as AMQP writes them, the length and the text of a routing
/// key, and the body.
///
/// Any message becomes a delivery with a valid id and type and all of its body. Published again,
/// for the first time, because it failed or because it has to wait, it comes back as the same event,
/// its attempts counted and never begun anew, and with nothing in it that is not ours.
pub fn message(input: &[u8]) {
    let Ok((rest, found)) = parse_properties(input) else {
        return;
    };
    let (length, rest) = rest.split_first().unwrap_or((&0, rest));
    let (routing_key, body) = rest.split_at(rest.len().min(usize::from(*length)));
    let Ok(routing_key) = std::str::from_utf8(routing_key) else {
        return;
    };

    let first = receive(found.clone(), routing_key, body);
    assert!(EventId::parse(first.event.id.as_str()).is_some());
    assert!(EventType::parse(first.event.event_type.as_str()).is_some());
    assert_eq!(first.event.body, body);

    let anew = receive(carried(&properties(&first.event)), "elsewhere", body);
    assert!(anew.event == first.event, "the same event");
    assert_eq!((anew.attempt, anew.first_failed_at), (0, None));
    assert_eq!(anew.redeliveries, 0);

    let failure = Failure::new(Reason::EmailTaken, "\u{e9}".repeat(MAX_ERROR_DETAIL));
    let mut last = first;
    for counted in [true, false, true] {
        let attempt = if counted {
            last.next_attempt()
        } else {
            last.attempt
        };
        let again = carried(&failed_properties(&last, &failure, attempt, NOW));
        let next = receive(again, "elsewhere", body);
        assert!(next.event == last.event, "the same event");
        let one_more = last.attempt.saturating_add(u32::from(counted));
        assert_eq!(next.attempt, one_more);
        assert_eq!(next.first_failed_at, last.first_failed_at.or(Some(NOW)));
        assert_eq!(next.redeliveries, 0, "counted anew");
        last = next;
    }
}

/// The same after the way over the wire.
fn carried(sent: &BasicProperties) -> BasicProperties {
    for header in sent.headers().iter().flat_map(|table| table.inner().keys()) {
        assert!(HEADERS.contains(&header.as_str()), "{header} is not ours");
    }
    let mut buffer = vec![0; ROOM];
    let written = gen_properties(sent)(Cursor::new(&mut buffer[..]).into());
    let length = written.expect("there is room").write.position();
    let wire = &buffer[..usize::try_from(length).expect("it is in memory")];
    let (rest, found) = parse_properties(wire).expect("it was written by us");
    assert!(rest.is_empty());
    assert_eq!(found, *sent);
    found
}

fn receive(properties: BasicProperties, routing_key: &str, body: &[u8]) -> Delivery {
    let key = ShortString::try_new(routing_key).expect("its length is one byte");
    let exchange = ShortString::from("clerk.events");
    let mut message = lapin::message::Delivery::mock(1, exchange, key, false, body.to_vec());
    message.properties = properties;
    delivery(message, 7)
}
