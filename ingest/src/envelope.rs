//! The one thing that is read of a body: its `type`, borrowed, without building a tree.

use std::borrow::Cow;

use clerk_sync_pipeline::event::EventType;
use serde::Deserialize;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    event_type: Cow<'a, str>,
}

/// The type of a verified body; [`EventType::unparsable`] when it is not a JSON object, has no
/// `type` or several, or one that is not fit to be a routing key. It is queued all the same.
pub fn event_type(body: &[u8]) -> EventType {
    // serde would also take an array for a struct.
    let is_object = body.trim_ascii_start().starts_with(b"{");
    is_object
        .then(|| serde_json::from_slice::<Envelope<'_>>(body).ok())
        .flatten()
        .and_then(|envelope| EventType::parse(&envelope.event_type))
        .unwrap_or_else(EventType::unparsable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_is_found_wherever_it_stands() {
        for body in [
            r#"{"type":"user.created"}"#,
            r#" { "data" : {"type":"other","x":[{"type":"no"}]} , "type" : "user.created" } "#,
            r#"{"data":{},"object":"event","timestamp":1654012591835,"type":"user.created"}"#,
            r#"{"data":{"a":1,"a":2},"type":"user.created"}"#,
            r#"{"type":"user\u002ecreated"}"#,
        ] {
            assert_eq!(
                event_type(body.as_bytes()).as_str(),
                "user.created",
                "{body}"
            );
        }
    }

    #[test]
    fn what_is_not_an_event_is_unparsable() {
        for body in [
            &b""[..],
            b"null",
            b"[]",
            b"[\"user.created\"]",
            b"\"user.created\"",
            b"{}",
            b"{\"type\":7}",
            b"{\"type\":null}",
            b"{\"type\":\"\"}",
            b"{\"type\":\"user created\"}",
            b"{\"type\":\"user.created\"",
            b"{\"type\":\"user.created\"} trailing",
            b"{\"type\":\"user.created\",\"type\":\"user.deleted\"}",
            b"{\"type\":\"\xff\"}",
        ] {
            assert_eq!(
                event_type(body),
                EventType::unparsable(),
                "{}",
                body.escape_ascii()
            );
        }
    }

    #[test]
    fn nesting_does_not_exhaust_the_stack() {
        let body = format!(
            "{{\"data\":{}{},\"type\":\"a\"}}",
            "[".repeat(200_000),
            "]".repeat(200_000)
        );
        assert_eq!(event_type(body.as_bytes()).as_str(), "a");
    }
}
