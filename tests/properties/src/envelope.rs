//! The one thing that the door reads of a body.

use std::fmt;

use clerk_sync_ingest::fuzzing::event_type;
use clerk_sync_pipeline::EventType;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

/// A body's type is what a second reader finds, who keeps every value of the key `type`: its only
/// value, if that is a text fit to be a routing key, of a body that is one JSON object. Space
/// around the body changes nothing.
pub fn envelope(input: &[u8]) {
    let found = event_type(input);
    assert!(EventType::parse(found.as_str()).is_some(), "a routing key");
    assert_eq!(found, expected(input));
    let padded = [b" \r\n\t", input, b"\n \t\r"].concat();
    assert_eq!(event_type(&padded), found);
}

fn expected(body: &[u8]) -> EventType {
    let types = serde_json::from_slice::<Types>(body).map(|types| types.0);
    match types.as_deref() {
        Ok([Some(only)]) => EventType::parse(only).unwrap_or_else(EventType::unparsable),
        _ => EventType::unparsable(),
    }
}

/// The values of `type` in an object, `None` for what is no text.
struct Types(Vec<Option<String>>);

impl<'de> Deserialize<'de> for Types {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Types(Vec::new()))
    }
}

impl<'de> Visitor<'de> for Types {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        // One value after another, so that memory is bounded by the types alone.
        while let Some(key) = map.next_key::<String>()? {
            if key == "type" {
                self.0.push(Some(map.next_value()?));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(self)
    }
}
