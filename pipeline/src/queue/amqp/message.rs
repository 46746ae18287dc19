//! An event as an AMQP message, and back.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};

use crate::{
    event::{Event, EventId, EventType, Millis},
    queue::{Delivery, Failure, Tag},
    telemetry::Label as _,
};

pub(super) const RECEIVED_AT: &str = "x-received-at";
const ATTEMPTED_AT: &str = "svix-timestamp";
const TRACEPARENT: &str = "traceparent";
pub(super) const ATTEMPT: &str = "x-attempt";
pub(super) const FIRST_FAILED_AT: &str = "x-first-failed-at";
pub(super) const ERROR: &str = "x-error";
pub(super) const ERROR_DETAIL: &str = "x-error-detail";
/// Kept by quorum queues: how often a message was handed out before.
const DELIVERY_COUNT: &str = "x-delivery-count";

/// AMQP's number for a message that is kept on disk.
const PERSISTENT: u8 = 2;

/// The properties of a first publish.
pub fn properties(event: &Event) -> BasicProperties {
    base(event).with_headers(headers(event))
}

/// The properties of a failed event on its way to a rung or to the dead letters. Made anew: what
/// the broker added (`x-death` and its kin) is not carried on.
pub fn failed_properties(
    delivery: &Delivery,
    failure: &Failure,
    attempt: u32,
    now: Millis,
) -> BasicProperties {
    let mut headers = headers(&delivery.event);
    let first = delivery.first_failed_at.unwrap_or(now);
    headers.insert(ATTEMPT.into(), AMQPValue::LongLongInt(attempt.into()));
    headers.insert(FIRST_FAILED_AT.into(), AMQPValue::LongLongInt(first.0));
    headers.insert(ERROR.into(), text(failure.reason.as_str()));
    headers.insert(ERROR_DETAIL.into(), text(&failure.detail));
    base(&delivery.event).with_headers(headers)
}

fn base(event: &Event) -> BasicProperties {
    BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type("application/json".into())
        .with_message_id(event.id.as_str().into())
        .with_type(event.event_type.as_str().into())
        .with_timestamp(u64::try_from(event.received_at.0 / 1000).unwrap_or_default())
}

fn headers(event: &Event) -> FieldTable {
    let mut headers = FieldTable::default();
    headers.insert(
        RECEIVED_AT.into(),
        AMQPValue::LongLongInt(event.received_at.0),
    );
    headers.insert(
        ATTEMPTED_AT.into(),
        AMQPValue::LongLongInt(event.attempted_at),
    );
    if let Some(traceparent) = &event.traceparent {
        headers.insert(TRACEPARENT.into(), text(traceparent));
    }
    headers
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.as_bytes().to_vec().into())
}

/// A message as a delivery. Nothing is refused: what others published by hand is given an id made
/// of its bytes, and will be found malformed where payloads are understood.
pub fn delivery(message: lapin::message::Delivery, incarnation: u64) -> Delivery {
    let properties = &message.properties;
    let headers = properties.headers().as_ref();
    let number = |name: &str| headers.and_then(|table| integer(table.inner().get(name)?));
    let traceparent = headers
        .and_then(|table| table.inner().get(TRACEPARENT))
        .and_then(|value| match value {
            AMQPValue::LongString(text) => Some(text.to_string()),
            _ => None,
        });
    // A number beyond the last one stays beyond every limit, and does not begin anew at 0.
    let count = |name| {
        let number = number(name).unwrap_or_default().max(0);
        u32::try_from(number).unwrap_or(u32::MAX)
    };
    Delivery {
        attempt: count(ATTEMPT),
        first_failed_at: number(FIRST_FAILED_AT).map(Millis),
        redeliveries: count(DELIVERY_COUNT),
        tag: Tag {
            incarnation,
            number: message.delivery_tag,
        },
        event: Event {
            id: id(&message),
            event_type: event_type(&message),
            received_at: number(RECEIVED_AT).map_or_else(Millis::now, Millis),
            attempted_at: number(ATTEMPTED_AT).unwrap_or_default(),
            traceparent,
            body: Bytes::from(message.data),
        },
    }
}

/// The message's id, or one made of its bytes.
pub(super) fn id(message: &lapin::message::Delivery) -> EventId {
    let id = message.properties.message_id().as_ref();
    id.and_then(|id| EventId::parse(short(id)))
        .unwrap_or_else(|| foreign_id(&message.data))
}

/// The message's type, or the routing key that it was published with.
pub(super) fn event_type(message: &lapin::message::Delivery) -> EventType {
    let kind = message.properties.kind().as_ref();
    kind.and_then(|kind| EventType::parse(short(kind)))
        .or_else(|| EventType::parse(short(&message.routing_key)))
        .unwrap_or_else(EventType::unparsable)
}

fn short(text: &ShortString) -> &str {
    text.as_str()
}

fn foreign_id(body: &[u8]) -> EventId {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    EventId::parse(&format!("foreign_{:016x}", hasher.finish())).expect("letters and digits")
}

pub(super) fn integer(value: &AMQPValue) -> Option<i64> {
    match *value {
        AMQPValue::ShortShortInt(n) => Some(n.into()),
        AMQPValue::ShortShortUInt(n) => Some(n.into()),
        AMQPValue::ShortInt(n) => Some(n.into()),
        AMQPValue::ShortUInt(n) => Some(n.into()),
        AMQPValue::LongInt(n) => Some(n.into()),
        AMQPValue::LongUInt(n) => Some(n.into()),
        AMQPValue::LongLongInt(n) => Some(n),
        _ => None,
    }
}
