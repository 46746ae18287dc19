//! The door: a request is believed exactly when its signature is right.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use clerk_sync_ingest::verify::{Unverified, Verifier};
use clerk_sync_pipeline::{Millis, secret::Secret};
use hmac::{Hmac, Mac as _};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;

/// Two secrets, as while one is replaced by the other.
const SECRETS: [&str; 2] = [
    "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    "whsec_plJ3nmyCDGBKInavdOK15jsl",
];
/// The server's clock, in seconds.
const NOW: i64 = 1_780_000_000;
/// The limits, as the documentation has them.
const TOLERANCE: u64 = 300;
const LONGEST_ID: usize = 255;
const MOST_SIGNATURES: usize = 32;
const LONGEST_SIGNATURES: usize = 4096;

/// The input is lines `name: value`, an empty line, and the body. In a value `{0}` and `{1}` stand
/// for the right signature of each secret, so that an engine that cannot guess one finds the way
/// to what is behind it.
///
/// Believed are those requests, and no others, that a second implementation of Svix' rules (other
/// hash, other parsing) believes; what is believed becomes the event that was signed, byte for
/// byte.
pub fn request(input: &[u8]) {
    let (lines, body) = split(input);
    let headers = sign(&lines, body);
    let secrets = SECRETS.map(Secret::new);
    let verifier = Verifier::new(&secrets).expect("they are right");
    let verified = Unverified::read(&headers, Millis(NOW * 1000 + 999))
        .and_then(|unverified| unverified.verify(&verifier, Bytes::copy_from_slice(body)));

    let expected = believe(&headers, body);
    let Ok(verified) = verified else {
        assert!(expected.is_none(), "refused, although it is signed");
        return;
    };
    let expected = expected.expect("believed, although it is not signed");
    assert_eq!(verified.secret_position(), expected.position);
    let event = verified.into_event(Millis(7), None);
    assert_eq!(event.id.as_str().as_bytes(), expected.id);
    assert_eq!(event.attempted_at, expected.timestamp);
    assert_eq!(event.body, body);
    assert_eq!(event.received_at, Millis(7));
}

type Line<'a> = (&'a [u8], &'a [u8]);

fn split(input: &[u8]) -> (Vec<Line<'_>>, &[u8]) {
    let mut lines = Vec::new();
    let mut rest = input;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if line.is_empty() {
            return (lines, rest);
        }
        if let Some(colon) = line.iter().position(|byte| *byte == b':') {
            let value = &line[colon + 1..];
            lines.push((&line[..colon], value.strip_prefix(b" ").unwrap_or(value)));
        }
    }
    (lines, rest)
}

/// The headers as HTTP would hand them over, with signatures where they are asked for.
fn sign(lines: &[Line<'_>], body: &[u8]) -> HeaderMap {
    let value = |name: &[u8]| {
        let line = lines
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name));
        line.map_or(&b""[..], |(_, value)| *value)
    };
    let mut headers = HeaderMap::new();
    for (name, text) in lines {
        let Ok(header) = HeaderName::from_bytes(name) else {
            continue;
        };
        let family: &[u8] = if name.to_ascii_lowercase().starts_with(b"webhook") {
            b"webhook"
        } else {
            b"svix"
        };
        let (id, timestamp) = (
            value(&[family, b"-id"].concat()),
            value(&[family, b"-timestamp"].concat()),
        );
        let mut text = text.to_vec();
        for (position, mark) in [b"{0}", b"{1}"].into_iter().enumerate() {
            if let Some(at) = text.windows(3).position(|window| window == mark) {
                let signature = signature(position, id, timestamp, body);
                text.splice(at..at + 3, signature.into_bytes());
            }
        }
        if let Ok(text) = HeaderValue::from_bytes(&text) {
            headers.append(header, text);
        }
    }
    headers
}

fn signature(position: usize, id: &[u8], timestamp: &[u8], body: &[u8]) -> String {
    let key = SECRETS[position].trim_start_matches("whsec_");
    let key = BASE64_STANDARD.decode(key).expect("they are right");
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("any length is right");
    for part in [id, b".", timestamp, b".", body] {
        mac.update(part);
    }
    BASE64_STANDARD.encode(mac.finalize().into_bytes())
}

/// What a request that should be believed says.
struct Believed<'a> {
    id: &'a [u8],
    timestamp: i64,
    position: usize,
}

/// Svix' rules, and ours on top, written a second time.
fn believe<'a>(headers: &'a HeaderMap, body: &[u8]) -> Option<Believed<'a>> {
    let is_svix = headers
        .keys()
        .any(|name| ["svix-id", "svix-timestamp", "svix-signature"].contains(&name.as_str()));
    let family = if is_svix { "svix" } else { "webhook" };
    let only = |part: &str| {
        let mut values = headers.get_all(format!("{family}-{part}")).iter();
        let value = values.next()?.as_bytes();
        values.next().is_none().then_some(value)
    };
    let (id, stamp, signatures) = (only("id")?, only("timestamp")?, only("signature")?);
    let plain = |id: &[u8]| {
        id.iter()
            .all(|byte| (b'!'..=b'~').contains(byte) && *byte != b'.')
    };
    if id.is_empty() || id.len() > LONGEST_ID || !plain(id) {
        return None;
    }
    let timestamp: i64 = std::str::from_utf8(stamp).ok()?.parse().ok()?;
    if timestamp < 0 || timestamp.to_string().as_bytes() != stamp {
        return None;
    }
    if timestamp.abs_diff(NOW) > TOLERANCE {
        return None;
    }
    let visible = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
    let list: Vec<&[u8]> = signatures.split(|byte| *byte == b' ').collect();
    if list.len() > MOST_SIGNATURES
        || signatures.len() > LONGEST_SIGNATURES
        || !signatures.iter().all(visible)
        || std::str::from_utf8(body).is_err()
    {
        return None;
    }
    let position = (0..SECRETS.len()).find(|position| {
        let right = format!("v1,{}", signature(*position, id, stamp, body));
        list.contains(&right.as_bytes())
    })?;
    Some(Believed {
        id,
        timestamp,
        position,
    })
}
