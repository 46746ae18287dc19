//! Requests whose end is ambiguous, and bytes that are no requests.

use super::siege::{PATH, PER_CONNECTION, Siege, signed_lines, unsigned_head};
use crate::harness::{
    clerk::{Letter, created},
    wire::{lossy, statuses},
};

/// What a smuggler hides: in one reading it is a body, in another a request. It is not signed.
fn smuggled() -> String {
    format!("{}evil!", unsigned_head("content-length: 5\r\n"))
}

/// Each is sent with a second request behind it on the same connection. The server must answer
/// once, not with a 2xx, and close: whatever stands behind is nobody's request.
#[tokio::test(flavor = "multi_thread")]
async fn an_ambiguous_request_is_refused_and_nothing_behind_it_is_served() {
    let siege = Siege::lay().await;
    let head = |lines: &str| unsigned_head(lines);
    let smuggled = smuggled();
    let length = smuggled.len();
    for (what, request) in [
        (
            "two lengths",
            head("content-length: 5\r\ncontent-length: 6\r\n") + "hello",
        ),
        (
            "a list of lengths",
            head("content-length: 5, 6\r\n") + "hello",
        ),
        (
            "a list of one length",
            head("content-length: 5, 5\r\n") + "hello",
        ),
        (
            "a length with a sign",
            head("content-length: +5\r\n") + "hello",
        ),
        (
            "a length in hexadecimal",
            head("content-length: 0x5\r\n") + "hello",
        ),
        (
            "an unknown coding",
            head("transfer-encoding: chunky\r\n") + "5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "chunked is not last",
            head("transfer-encoding: chunked, identity\r\n") + "0\r\n\r\n",
        ),
        (
            "a coding in two lines, chunked first",
            head("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n") + "0\r\n\r\n",
        ),
        (
            "a space before the colon",
            head("content-length : 5\r\n") + "hello",
        ),
        (
            "a space before the name",
            head(" content-length: 5\r\n") + "hello",
        ),
        (
            "a folded line",
            head("x-folded: a\r\n b\r\ncontent-length: 5\r\n") + "hello",
        ),
        (
            "a line without a colon",
            head("content-length\r\n") + "hello",
        ),
        (
            "a bare CR in a value",
            head("x-cr: a\rb\r\ncontent-length: 5\r\n") + "hello",
        ),
        (
            "a CR before the end of a line",
            head("x-cr: a\r\r\ncontent-length: 5\r\n") + "hello",
        ),
        (
            "a NUL in a value",
            head("x-nul: a\0b\r\ncontent-length: 5\r\n") + "hello",
        ),
        (
            "a NUL in a name",
            head("x-\0nul: a\r\ncontent-length: 5\r\n") + "hello",
        ),
        (
            "an empty name",
            head(": a\r\ncontent-length: 5\r\n") + "hello",
        ),
        (
            "a chunk without a size",
            head("transfer-encoding: chunked\r\n") + "\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "a chunk's size with a sign",
            head("transfer-encoding: chunked\r\n") + "+5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "a chunk's size with a prefix",
            head("transfer-encoding: chunked\r\n") + "0x5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "a chunk's size beyond 64 bits",
            head("transfer-encoding: chunked\r\n") + "10000000000000005\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "a chunk longer than its size",
            head("transfer-encoding: chunked\r\n") + "3\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "a chunk's size ended by LF",
            head("transfer-encoding: chunked\r\n") + "5\nhello\r\n0\r\n\r\n",
        ),
        (
            "a chunk ended by LF",
            head("transfer-encoding: chunked\r\n") + "5\r\nhello\n0\r\n\r\n",
        ),
        (
            "a bare CR in a chunk's extension",
            head("transfer-encoding: chunked\r\n") + "5;a\rb\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "both, the length first",
            head(&format!(
                "content-length: {length}\r\ntransfer-encoding: chunked\r\n"
            )) + "0\r\n\r\n",
        ),
        (
            "both, the coding first",
            head(&format!(
                "transfer-encoding: chunked\r\ncontent-length: {length}\r\n"
            )) + "0\r\n\r\n",
        ),
        (
            "a coding for HTTP/1.0",
            head("transfer-encoding: chunked\r\n").replace("HTTP/1.1", "HTTP/1.0") + "0\r\n\r\n",
        ),
    ] {
        let said = siege.ask(format!("{request}{smuggled}").as_bytes()).await;
        let statuses = statuses(&said);
        assert_eq!(statuses.len(), 1, "{what}: answered once, {}", lossy(&said));
        assert!(
            (400..500).contains(&statuses[0]),
            "{what}: {}",
            lossy(&said)
        );
    }
    siege.lifted("ambiguous requests", PER_CONNECTION).await;
}

/// Of a request with a length and a coding the coding counts, and the connection ends with its
/// answer (RFC 9112, 6.1): a proxy that counted otherwise finds nothing of what it hid served.
#[tokio::test(flavor = "multi_thread")]
async fn a_signed_request_with_a_length_and_a_coding_is_the_last_of_its_connection() {
    let siege = Siege::lay().await;
    let queued = siege.metric("clerk_sync_webhook_requests_total", "").await;
    let hidden = created("user_hidden", "hidden@a.example");
    let hidden_request = format!(
        "POST {PATH} HTTP/1.1\r\nhost: test\r\n{}content-length: {}\r\n\r\n{}",
        signed_lines(&hidden),
        hidden.body.len(),
        String::from_utf8(hidden.body.clone()).unwrap(),
    );
    // Signed over other bytes than a reader of the coding finds: the empty body.
    let outer = Letter::new(hidden_request.as_bytes());
    let request = format!(
        "POST {PATH} HTTP/1.1\r\nhost: test\r\n{}content-length: {}\r\n\
         transfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden_request}",
        signed_lines(&outer),
        hidden_request.len() + 5,
    );
    let said = siege.ask(request.as_bytes()).await;
    assert_eq!(statuses(&said), [401], "{}", lossy(&said));
    assert!(siege.metric("clerk_sync_webhook_requests_total", "").await > queued);
    siege
        .lifted("a hidden request that is signed", PER_CONNECTION)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_request_are_refused_and_the_connection_closed() {
    let siege = Siege::lay().await;
    let client_hello: &[u8] = b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\x5f\x1c\x2b\x3a\x4d\
        \x5e\x6f\x70\x81\x92\xa3\xb4\xc5\xd6\xe7\xf8\x09\x1a\x2b\x3c\x4d\x5e\x6f\x70\x81\x92\xa3\
        \xb4\xc5\xd6\xe7\xf8\x00\x20\xcc\xa8\xcc\xa9\xc0\x2f\xc0\x30\xc0\x2b\xc0\x2c\xc0\x13\xc0\
        \x09\xc0\x14\xc0\x0a\x00\x9c\x00\x9d\x00\x2f\x00\x35\xc0\x12\x00\x0a\x01\x00\x00\x58";
    let noise: Vec<u8> = (0..4096).map(|_| rand::random()).collect();
    let zeros = vec![0; 65_536];
    for garbage in [
        client_hello,
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"EHLO mail.example\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"GET\r\n\r\n",
        b"POST /api/webhooks/clerk\r\n\r\n",
        b"POST /api/webhooks/clerk HTTP/9.9\r\n\r\n",
        b"POST /api/webhooks/clerk HTTP/1.1 \r\nhost: a\r\n\r\n",
        b"POST  /api/webhooks/clerk HTTP/1.1\r\nhost: a\r\n\r\n",
        b"P\xc3\x96ST /api/webhooks/clerk HTTP/1.1\r\nhost: a\r\n\r\n",
        b"POST /api/webhooks/clerk HTTP/1.1\r\nh\xc3\xb6st: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnot a frame, not at all",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"\r\n\r\n\r\n\r\n\0",
        &noise,
        &zeros,
    ] {
        let said = siege.ask(garbage).await;
        assert!(
            !said.starts_with(b"HTTP/1.1 2") && statuses(&said).len() <= 1,
            "{}: {}",
            garbage.escape_ascii(),
            lossy(&said)
        );
    }
    siege.lifted("garbage", PER_CONNECTION).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_that_lies_takes_nobody_along() {
    let siege = Siege::lay().await;
    let letter = created("user_1", "a@a.example");
    let body = String::from_utf8(letter.body.clone()).unwrap();
    let request = |length: usize| {
        format!(
            "POST {PATH} HTTP/1.1\r\nhost: test\r\n{}content-length: {length}\r\n\r\n{body}",
            signed_lines(&letter)
        )
    };
    // Shorter: other bytes than were signed, and the rest is no request.
    let said = siege.ask(request(body.len() - 1).as_bytes()).await;
    assert_eq!(statuses(&said).first(), Some(&401), "{}", lossy(&said));
    assert!(
        statuses(&said)[1..]
            .iter()
            .all(|status| [400, 408].contains(status))
    );
    // Longer: the next request becomes a part of the body, which is then not what was signed.
    let next = unsigned_head("content-length: 0\r\n");
    let said = siege
        .ask((request(body.len() + next.len()) + &next).as_bytes())
        .await;
    assert_eq!(statuses(&said).first(), Some(&401), "{}", lossy(&said));
    // Longer, and then silence.
    let said = siege.ask(request(body.len() + 1).as_bytes()).await;
    assert_eq!(statuses(&said), [408], "{}", lossy(&said));
    siege.lifted("lying lengths", PER_CONNECTION).await;
}
