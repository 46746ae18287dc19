//! The bodies, and what each comes to.

mod texts;

use crate::harness::clerk::Letter;

/// What becomes of a body that is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It is odd only where nobody looks: its user is there.
    Created,
    /// It asks for nothing that we do.
    Ignored,
    /// It is kept, for this reason.
    Dead(&'static str),
}

pub(super) struct Case {
    pub(super) what: &'static str,
    pub(super) letter: Letter,
    pub(super) end: End,
}

const MALFORMED: End = End::Dead("malformed");

fn case(what: &'static str, body: impl Into<Vec<u8>>, end: End) -> Case {
    let letter = Letter::new(body);
    Case { what, letter, end }
}

/// A `user.created` whose user `id` has `fields` added, or in the place of its own.
fn user(id: &str, fields: &str) -> String {
    let own = |name: &str, field: String| {
        let named = fields.contains(&format!("\"{name}\":"));
        if named {
            String::new()
        } else {
            format!("{field},")
        }
    };
    let mut body = String::from(r#"{"type":"user.created","object":"event","data":{"#);
    body += &own("id", format!(r#""id":"{id}""#));
    body += &own("created_at", r#""created_at":1780000000000"#.to_owned());
    body += &own("updated_at", r#""updated_at":1780000000001"#.to_owned());
    body += &own(
        "email_addresses",
        format!(
            r#""email_addresses":[{{"id":"idn_1","email_address":"{id}@a.example","verification":{{"status":"verified"}}}}]"#
        ),
    );
    body += fields;
    body += r#"},"timestamp":1780000000007}"#;
    body
}

fn deep(open: &str, close: &str, levels: usize) -> String {
    open.repeat(levels) + &close.repeat(levels)
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = nested();
    cases.extend(numbers());
    cases.extend(keys());
    cases.extend(texts::texts());
    cases.extend(texts::no_events());
    cases
}

fn nested() -> Vec<Case> {
    let levels = 100_000;
    let arrays = deep("[", "]", levels);
    let objects = deep(r#"{"a":"#, "}", 80_000).replacen("}", "1}", 1);
    vec![
        case(
            "arrays in a field that nobody reads",
            user("deep_1", &format!(r#""x":{arrays}"#)),
            End::Created,
        ),
        case(
            "objects in a field that nobody reads",
            user("deep_2", &format!(r#""x":{objects}"#)),
            End::Created,
        ),
        case(
            "arrays for a name",
            user("deep_3", &format!(r#""first_name":{arrays}"#)),
            MALFORMED,
        ),
        case(
            "arrays for the addresses",
            user("deep_4", &format!(r#""email_addresses":{arrays}"#)),
            MALFORMED,
        ),
        case(
            "arrays for a user",
            format!(r#"{{"type":"user.created","data":{arrays}}}"#),
            MALFORMED,
        ),
        case(
            "arrays for a deleted user",
            format!(r#"{{"type":"user.deleted","data":{arrays}}}"#),
            MALFORMED,
        ),
        case(
            "arrays for a session's user",
            format!(r#"{{"type":"session.created","data":{{"user":{arrays}}}}}"#),
            MALFORMED,
        ),
        case(
            "arrays in a type that nobody knows",
            format!(r#"{{"type":"deep.sea","data":{arrays}}}"#),
            End::Ignored,
        ),
        case(
            "arrays beside the data",
            format!(r#"{{"x":{arrays},"type":"deep.sea","data":{{}}}}"#),
            End::Ignored,
        ),
        case(
            "arrays for a type",
            format!(r#"{{"type":{arrays},"data":{{}}}}"#),
            MALFORMED,
        ),
        case("arrays alone", arrays.clone(), MALFORMED),
        case("arrays that never close", "[".repeat(500_000), MALFORMED),
        case(
            "objects that never close",
            r#"{"a":"#.repeat(100_000),
            MALFORMED,
        ),
        case(
            "data that never closes",
            format!(r#"{{"type":"user.created","data":{}"#, "[".repeat(levels)),
            MALFORMED,
        ),
    ]
}

fn numbers() -> Vec<Case> {
    let digits = "9".repeat(100_000);
    vec![
        case(
            "100,000 digits where nobody looks",
            user("num_1", &format!(r#""x":{digits}"#)),
            End::Created,
        ),
        case(
            "an exponent where nobody looks",
            user("num_2", r#""x":1e999999999"#),
            End::Created,
        ),
        case(
            "100,000 digits for a time",
            user("num_3", &format!(r#""updated_at":{digits}"#)),
            MALFORMED,
        ),
        case(
            "a time beyond 64 bits",
            user("num_4", r#""updated_at":9223372036854775808"#),
            MALFORMED,
        ),
        case(
            "a time with an exponent",
            user("num_5", r#""updated_at":1e12"#),
            MALFORMED,
        ),
        case(
            "a time that is infinite",
            user("num_6", r#""updated_at":1e999"#),
            MALFORMED,
        ),
        case(
            "a time with a fraction",
            user("num_7", r#""updated_at":1780000000000.5"#),
            MALFORMED,
        ),
        case(
            "a time in text",
            user("num_8", r#""updated_at":"1780000000000""#),
            MALFORMED,
        ),
        case(
            "the last time of 64 bits",
            user("num_9", r#""updated_at":9223372036854775807"#),
            End::Dead("invalid_timestamp"),
        ),
        case(
            "the first time of 64 bits",
            user("num_10", r#""updated_at":-9223372036854775808"#),
            End::Dead("invalid_timestamp"),
        ),
        case(
            "a time before 1970",
            user("num_11", r#""created_at":-1"#),
            End::Dead("invalid_timestamp"),
        ),
        case(
            "the year 10000",
            user("num_12", r#""created_at":253402300800000"#),
            End::Dead("invalid_timestamp"),
        ),
        case(
            "minus zero",
            user("num_13", r#""created_at":-0"#),
            MALFORMED,
        ),
        case("NaN", user("num_14", r#""created_at":NaN"#), MALFORMED),
        case(
            "the last envelope time",
            user("num_15", "\"x\":1").replace("1780000000007", "9223372036854775807"),
            End::Created,
        ),
        case(
            "the first envelope time",
            user("num_16", "\"x\":1").replace("1780000000007", "-9223372036854775808"),
            End::Created,
        ),
        case(
            "an envelope time beyond 64 bits",
            user("num_17", "\"x\":1").replace("1780000000007", "1e400"),
            MALFORMED,
        ),
    ]
}

fn keys() -> Vec<Case> {
    let many: String = (0..20_000).map(|n| format!(r#""k{n}":{n},"#)).collect();
    let address = r#"{"id":"idn_x","email_address":"x@a.example","verification":null}"#;
    let addresses = [address; 5000].join(",");
    vec![
        case(
            "the type twice",
            r#"{"type":"user.created","type":"deep.sea","data":{}}"#,
            MALFORMED,
        ),
        case(
            "the data twice",
            r#"{"type":"user.created","data":{},"data":{}}"#,
            MALFORMED,
        ),
        case(
            "the id twice",
            user("key_1", r#""id":"key_1","id":"key_2""#),
            MALFORMED,
        ),
        case(
            "an address twice",
            user("key_3", r#""email_addresses":[],"email_addresses":[]"#),
            MALFORMED,
        ),
        case(
            "an unknown key twice",
            user("key_4", r#""x":1,"x":2"#),
            End::Created,
        ),
        case(
            "20,000 keys",
            user("key_5", &format!(r#"{many}"y":1"#)),
            End::Created,
        ),
        case(
            "20,000 times one key",
            user("key_6", &format!(r#"{}"y":1"#, r#""x":1,"#.repeat(20_000))),
            End::Created,
        ),
        case(
            "5,000 addresses, none of them verified",
            user(
                "key_7",
                &format!(r#""id":"key_7","email_addresses":[{addresses}]"#),
            ),
            End::Dead("missing_email"),
        ),
        case("an empty key", user("key_8", r#""":1"#), End::Created),
        case(
            "a key as Python has it",
            user("key_9", r#""__class__":{"__proto__":{}}"#),
            End::Created,
        ),
    ]
}
