//! Signatures: published vectors, rotation, several in one header, the twins' names, the edges of
//! the tolerance.

use bytes::Bytes;
use clerk_sync_ingest::{
    config::signing_secret,
    verify::{Untrusted, Unverified},
};
use clerk_sync_pipeline::event::Millis;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::rig::{BODY, OTHER_SECRET, Rig, SECRET, now_s, request, sign};

/// What Svix publishes: id, timestamp, body, and the signature by `SECRET`.
const ID: &str = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk";
const AT: i64 = 1_649_367_553;
const PAYLOAD: &[u8] = br#"{"email":"test@example.com","username":"test_user"}"#;
const SIGNATURE: &str = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

/// The position of the secret that verifies, with the clock at `now_ms`.
fn verify(
    secrets: &str,
    headers: &HeaderMap,
    body: &[u8],
    now_ms: i64,
) -> Result<usize, Untrusted> {
    let verifier = signing_secret(secrets).unwrap();
    let verified = Unverified::read(headers, Millis(now_ms))?
        .verify(&verifier, Bytes::copy_from_slice(body))?;
    let position = verified.secret_position();
    let event = verified.into_event(Millis(now_ms), None);
    assert_eq!(event.body, body);
    Ok(position)
}

pub(crate) fn svix(id: &str, at: &str, signature: &str) -> HeaderMap {
    headers(&[
        ("svix-id", id),
        ("svix-timestamp", at),
        ("svix-signature", signature),
    ])
}

#[test]
fn the_published_vector_verifies() {
    let at = AT.to_string();
    let published = svix(ID, &at, SIGNATURE);
    assert_eq!(verify(SECRET, &published, PAYLOAD, AT * 1000), Ok(0));
    let unprefixed = SECRET.strip_prefix("whsec_").unwrap();
    assert_eq!(verify(unprefixed, &published, PAYLOAD, AT * 1000), Ok(0));
    // The signatures that the other tests make are of the same kind.
    assert_eq!(sign(SECRET, ID, AT, PAYLOAD), SIGNATURE);
    // The second vector, from Svix' page on verifying by hand.
    let payload = br#"{"event_type":"ping","data":{"success":true}}"#;
    let signature = "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=";
    let headers = svix("msg_loFOjxBNrRLzqYUf", "1731705121", signature);
    assert_eq!(
        verify(OTHER_SECRET, &headers, payload, 1_731_705_121_000),
        Ok(0)
    );
}

#[test]
fn the_tolerance_is_300_s_inclusive_both_ways() {
    let at = AT.to_string();
    let headers = svix(ID, &at, SIGNATURE);
    for (offset_ms, expected) in [
        (0, Ok(0)),
        (300_000, Ok(0)),
        (300_999, Ok(0)),
        (301_000, Err(Untrusted::TimestampOutOfTolerance)),
        (-300_000, Ok(0)),
        (-300_001, Err(Untrusted::TimestampOutOfTolerance)),
        (-301_000, Err(Untrusted::TimestampOutOfTolerance)),
        (
            i64::MAX - AT * 1000,
            Err(Untrusted::TimestampOutOfTolerance),
        ),
        (i64::MIN, Err(Untrusted::TimestampOutOfTolerance)),
    ] {
        let now = (AT * 1000).saturating_add(offset_ms);
        assert_eq!(
            verify(SECRET, &headers, PAYLOAD, now),
            expected,
            "{offset_ms}"
        );
    }
    let furthest = i64::MAX.to_string();
    let signature = sign(SECRET, ID, i64::MAX, PAYLOAD);
    let headers = svix(ID, &furthest, &signature);
    let out = Err(Untrusted::TimestampOutOfTolerance);
    assert_eq!(verify(SECRET, &headers, PAYLOAD, i64::MIN), out);
}

#[test]
fn any_of_several_signatures_is_enough() {
    let at = AT.to_string();
    let garbage = "v1,AAAA v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg== , v9 v1,";
    for signatures in [
        format!("{garbage} {SIGNATURE}"),
        format!("{SIGNATURE} {garbage}"),
        format!("{} {SIGNATURE}", sign(OTHER_SECRET, ID, AT, PAYLOAD)),
    ] {
        let headers = svix(ID, &at, &signatures);
        assert_eq!(
            verify(SECRET, &headers, PAYLOAD, AT * 1000),
            Ok(0),
            "{signatures}"
        );
    }
    let headers = svix(ID, &at, garbage);
    assert_eq!(
        verify(SECRET, &headers, PAYLOAD, AT * 1000),
        Err(Untrusted::SignatureMismatch)
    );
}

#[test]
fn the_twins_are_read_when_no_svix_header_is_there_and_never_mixed() {
    let at = AT.to_string();
    let twins = [
        ("webhook-id", ID),
        ("webhook-timestamp", &at),
        ("webhook-signature", SIGNATURE),
    ];
    assert_eq!(verify(SECRET, &headers(&twins), PAYLOAD, AT * 1000), Ok(0));
    // One svix header, and the others are missed.
    for (name, missing) in [
        ("svix-id", "svix-timestamp"),
        ("svix-timestamp", "svix-id"),
        ("svix-signature", "svix-id"),
    ] {
        let mut mixed = headers(&twins);
        let twin = mixed.remove(name.replace("svix", "webhook")).unwrap();
        mixed.insert(HeaderName::from_static(name), twin);
        let missing = Err(Untrusted::MissingHeader(missing));
        assert_eq!(verify(SECRET, &mixed, PAYLOAD, AT * 1000), missing);
    }
    // Both families: the svix one counts, wrong or right.
    let mut both = headers(&twins);
    both.extend(svix(ID, &at, "v1,AAAA"));
    assert_eq!(
        verify(SECRET, &both, PAYLOAD, AT * 1000),
        Err(Untrusted::SignatureMismatch)
    );
    let wrong = [
        ("webhook-id", "x"),
        ("webhook-timestamp", "x"),
        ("webhook-signature", "x"),
    ];
    let mut both = headers(&wrong);
    both.extend(svix(ID, &at, SIGNATURE));
    assert_eq!(verify(SECRET, &both, PAYLOAD, AT * 1000), Ok(0));
}

#[test]
fn a_full_stop_in_the_id_cannot_move_the_border_between_id_and_body() {
    // What was signed for `ID` and this body also reads as another id, time and body.
    let body = format!("{{\"a\":\"x.{AT}.y\"}}");
    let signature = sign(SECRET, ID, AT, body.as_bytes());
    let forged_id = format!("{ID}.{AT}.{{\"a\":\"x");
    let headers = svix(&forged_id, &AT.to_string(), &signature);
    let refused = Err(Untrusted::MalformedHeader("svix-id"));
    assert_eq!(verify(SECRET, &headers, b"y\"}", AT * 1000), refused);
}

#[tokio::test]
async fn each_of_two_secrets_is_accepted_and_counted() {
    let mut rig = Rig::with_secrets(&format!(" {SECRET} , {OTHER_SECRET},"), |_| {}).await;
    let now = now_s();
    for (secret, twin) in [(SECRET, false), (OTHER_SECRET, false), (OTHER_SECRET, true)] {
        let family = if twin { "webhook" } else { "svix" };
        let signature = sign(secret, "msg_1", now, BODY);
        let headers = format!(
            "{family}-id: msg_1\r\n{family}-timestamp: {now}\r\n{family}-signature: {signature}\r\n"
        );
        rig.ask(&request(&headers, BODY)).await.is_accepted();
        assert_eq!(rig.event().await.id.as_str(), "msg_1");
    }
    assert_eq!(rig.metrics.secret_matches(0).get(), 1);
    assert_eq!(rig.metrics.secret_matches(1).get(), 2);
}

#[test]
fn wrong_secrets_are_all_named_and_never_shown() {
    for (secrets, named) in [
        ("", &["blank"][..]),
        (" , ", &["none"]),
        ("sk_test_abcdefgh", &["secret 1 is not base64"]),
        (
            "whsec_!!hunter2!!,whsec_dGVzdA==",
            &["secret 1 is not base64", "secret 2 is too short"],
        ),
    ] {
        let problem = signing_secret(secrets).unwrap_err();
        for named in named {
            assert!(problem.contains(named), "{problem}");
        }
        assert!(problem.contains("Clerk dashboard"), "{problem}");
        assert!(
            !problem.contains("hunter2") && !problem.contains("dGVzdA"),
            "{problem}"
        );
    }
    let many = [SECRET; 11].join(",");
    assert!(signing_secret(&many).unwrap_err().contains("at most 10"));
    let shown = format!("{:?}", signing_secret(SECRET).unwrap());
    assert!(!shown.contains("C2FVsBQ"), "{shown}");
}
