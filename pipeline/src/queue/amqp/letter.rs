//! A parked message as a letter. Nothing is refused: what others published by hand is a letter too.

use lapin::{
    message::Delivery,
    types::{AMQPValue, FieldTable},
};

use super::message::{
    ATTEMPT, ERROR, ERROR_DETAIL, FIRST_FAILED_AT, RECEIVED_AT, event_type, id, integer,
};
use crate::{
    event::Millis,
    queue::parked::{DELIVERY_LIMIT, Letter, Place, UNKNOWN, UNROUTED},
};

/// The broker's list of where a message died, newest first.
const DEATHS: &str = "x-death";

/// What a message tells of itself.
pub(super) fn letter(message: &Delivery, place: Place) -> Letter {
    let none = FieldTable::default();
    let properties = &message.properties;
    let headers = properties.headers().as_ref().unwrap_or(&none);
    let number = |name: &str| headers.inner().get(name).and_then(integer);
    let published_at = properties.timestamp().and_then(|seconds| {
        let millis = seconds.checked_mul(1000)?;
        i64::try_from(millis).ok()
    });
    let (code, detail) = cause(headers, place);
    Letter {
        id: id(message),
        event_type: event_type(message),
        code,
        detail,
        attempts: number(ATTEMPT)
            .and_then(|attempts| u32::try_from(attempts).ok())
            .unwrap_or_default(),
        first_failed_at: number(FIRST_FAILED_AT).map(Millis),
        received_at: number(RECEIVED_AT).or(published_at).map(Millis),
        bytes: message.data.len() as u64,
        headers: headers
            .inner()
            .iter()
            .map(|(name, value)| (name.to_string(), written(value)))
            .collect(),
    }
}

/// Code and detail. A broker's death is newer than what the worker wrote: the worker's own letters
/// carry no deaths.
fn cause(headers: &FieldTable, place: Place) -> (String, Option<String>) {
    if let Some((reason, queue)) = death(headers) {
        let detail = if reason == DELIVERY_LIMIT {
            format!("{queue} handed it out too often without an answer")
        } else {
            format!("dead-lettered by the broker from {queue}")
        };
        return (reason, Some(detail));
    }
    let text = |name: &str| headers.inner().get(name).and_then(text);
    let code = text(ERROR).filter(|code| is_code(code));
    let default = match place {
        Place::Dead => UNKNOWN,
        Place::Unrouted => UNROUTED,
    };
    (
        code.unwrap_or_else(|| default.to_owned()),
        text(ERROR_DETAIL),
    )
}

/// Why and where the broker itself gave the message up, if it did. That a rung's delay expired is
/// no giving up.
fn death(headers: &FieldTable) -> Option<(String, String)> {
    let AMQPValue::FieldArray(deaths) = headers.inner().get(DEATHS)? else {
        return None;
    };
    deaths.as_slice().iter().find_map(|death| {
        let AMQPValue::FieldTable(death) = death else {
            return None;
        };
        let text = |name: &str| death.inner().get(name).and_then(text);
        let reason = text("reason").filter(|reason| is_code(reason) && reason != "expired")?;
        Some((reason, text("queue").unwrap_or_default()))
    })
}

/// Fit to group by and to type: as all of our codes are.
fn is_code(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=40).contains(&text.len()) && text.bytes().all(plain)
}

fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

/// A header's value, for a person.
fn written(value: &AMQPValue) -> String {
    if let Some(text) = text(value) {
        return text;
    }
    if let Some(number) = integer(value) {
        return number.to_string();
    }
    match value {
        AMQPValue::Boolean(value) => value.to_string(),
        AMQPValue::Timestamp(seconds) => seconds.to_string(),
        AMQPValue::Float(number) => number.to_string(),
        AMQPValue::Double(number) => number.to_string(),
        AMQPValue::FieldArray(values) => {
            let values: Vec<_> = values.as_slice().iter().map(written).collect();
            format!("[{}]", values.join(", "))
        }
        AMQPValue::FieldTable(table) => {
            let pair = |(name, value)| format!("{name}={}", written(value));
            let pairs: Vec<_> = table.inner().iter().map(pair).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        AMQPValue::ByteArray(bytes) => format!("{} bytes", bytes.len()),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    fn table<const N: usize>(pairs: [(&str, AMQPValue); N]) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in pairs {
            table.insert(name.into(), value);
        }
        table
    }

    fn died(reason: &str, queue: &str) -> AMQPValue {
        AMQPValue::FieldTable(table([
            ("reason", string(reason)),
            ("queue", string(queue)),
        ]))
    }

    /// Retried once, then given up by the broker: the older word on both sides must not win.
    #[test]
    fn the_brokers_word_is_newer_than_the_workers() {
        let deaths = vec![
            died("delivery_limit", "clerk.apply"),
            died("expired", "clerk.retry.5s"),
        ];
        let headers = table([
            (ERROR, string("email_taken")),
            ("x-first-death-reason", string("expired")),
            (DEATHS, AMQPValue::FieldArray(deaths.into())),
        ]);
        let (code, detail) = cause(&headers, Place::Dead);
        assert_eq!(code, DELIVERY_LIMIT);
        assert!(detail.unwrap().contains("clerk.apply"));
    }

    #[test]
    fn an_expired_delay_is_no_cause() {
        let deaths = vec![died("expired", "clerk.retry.5s")];
        let headers = table([
            (ERROR, string("email_taken")),
            (ERROR_DETAIL, string("why")),
            (DEATHS, AMQPValue::FieldArray(deaths.into())),
        ]);
        let why = Some("why".to_owned());
        assert_eq!(
            cause(&headers, Place::Dead),
            ("email_taken".to_owned(), why)
        );
    }

    #[test]
    fn a_letter_that_does_not_say_why_has_the_code_of_its_place() {
        for odd in ["", "Two words", "\u{1b}[31m"] {
            let headers = table([(ERROR, string(odd))]);
            assert_eq!(cause(&headers, Place::Dead).0, UNKNOWN);
            assert_eq!(cause(&headers, Place::Unrouted).0, UNROUTED);
        }
    }
}
