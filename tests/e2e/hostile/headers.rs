//! Signature headers that nobody honest would send, each over a body that would verify otherwise.

use std::time::Duration;

use super::siege::{MIB, PATH, PER_CONNECTION, Siege};
use crate::harness::{
    clerk::{created, now, sign},
    wire::{lossy, statuses},
};

/// A request with these header values, however odd, as bytes.
fn request(lines: &[(&str, &[u8])], body: &[u8]) -> Vec<u8> {
    let mut request =
        format!("POST {PATH} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n").into_bytes();
    for (name, value) in lines {
        request.extend([name.as_bytes(), b": ", *value, b"\r\n"].concat());
    }
    let length = body.len();
    request.extend(format!("content-length: {length}\r\n\r\n").as_bytes());
    request.extend(body);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_is_repeated_or_not_ascii_is_no_signature() {
    let siege = Siege::lay().await;
    let letter = created("user_1", "a@a.example");
    let stamp = now().to_string();
    let signature = sign(&letter.id, now(), &letter.body);
    let as_id = |id| ("svix-id", id);
    let signed = |signatures| ("svix-signature", signatures);
    let (id, at) = (
        as_id(letter.id.as_bytes()),
        ("svix-timestamp", stamp.as_bytes()),
    );
    let by = signed(signature.as_bytes());
    let long_id = vec![b'm'; 15_000];
    let long_signature = [b"v1,".as_slice(), &[b'A'; 15_000]].concat();
    let thousands = ["v1,AAAA"; 1900].join(" ");
    let upper = signature.to_uppercase();
    let cut = signed(&by.1[..by.1.len() - 1]);
    let twin_id = ("webhook-id", id.1);
    let blank = [as_id(b""), ("svix-timestamp", b""), signed(b"")];
    for (what, status, lines) in [
        ("the id twice", 400, vec![id, id, at, by]),
        (
            "the id twice, in two cases",
            400,
            vec![id, ("SVIX-ID", id.1), at, by],
        ),
        (
            "another id first",
            400,
            vec![as_id(b"msg_other"), id, at, by],
        ),
        ("the time twice", 400, vec![id, at, at, by]),
        ("the signature twice", 400, vec![id, at, by, by]),
        ("an id in Latin 1", 400, vec![as_id(b"msg_\xe9"), at, by]),
        ("an id in UTF-8", 400, vec![as_id(b"msg_\xc3\xa9"), at, by]),
        ("a control character", 400, vec![as_id(b"msg_\x07"), at, by]),
        (
            "a signature in Latin 1",
            400,
            vec![id, at, signed(b"v1,\xe9")],
        ),
        ("an endless id", 400, vec![as_id(&long_id), at, by]),
        (
            "an endless signature",
            400,
            vec![id, at, signed(&long_signature)],
        ),
        (
            "thousands of signatures",
            400,
            vec![id, at, signed(thousands.as_bytes())],
        ),
        ("half of each family", 400, vec![twin_id, at, by]),
        (
            "one family less one",
            400,
            vec![id, at, ("webhook-signature", by.1)],
        ),
        (
            "the signature in capitals",
            401,
            vec![id, at, signed(upper.as_bytes())],
        ),
        ("a shortened signature", 401, vec![id, at, cut]),
        ("an empty signature", 401, vec![id, at, signed(b"v1,")]),
        ("another version", 401, vec![id, at, signed(b"v2,AAAA")]),
        ("no header at all", 400, vec![]),
        ("blank headers", 400, blank.to_vec()),
    ] {
        let said = siege.ask(&request(&lines, &letter.body)).await;
        assert_eq!(statuses(&said), [status], "{what}: {}", lossy(&said));
    }
    // All of them right, for another body.
    let said = siege.ask(&request(&[id, at, by], b"")).await;
    assert_eq!(statuses(&said), [401], "{}", lossy(&said));
    siege.lifted("odd headers", PER_CONNECTION).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timestamp_that_is_not_a_recent_number_is_refused_whatever_it_is() {
    let siege = Siege::lay().await;
    let letter = created("user_1", "a@a.example");
    let at = now();
    for (text, status) in [
        ("0".to_owned(), 401),
        ("1".to_owned(), 401),
        (i64::MAX.to_string(), 401),
        ((i64::MAX - 1).to_string(), 401),
        ("9223372036854775808".to_owned(), 400),
        (u64::MAX.to_string(), 400),
        ("9".repeat(5000), 400),
        (i64::MIN.to_string(), 400),
        ("-1".to_owned(), 400),
        ("-0".to_owned(), 400),
        (format!("+{at}"), 400),
        (format!("-{at}"), 400),
        (format!("0{at}"), 400),
        (format!("{}{at}", "0".repeat(1000)), 400),
        (format!("{at}.0"), 400),
        (format!("{at}e0"), 400),
        (format!("{at}\t0"), 400),
        (format!("{at} {at}"), 400),
        (format!("{at},{at}"), 400),
        (format!("{at:#x}"), 400),
        (format!("{at:x}"), 400),
        (format!("{at}s"), 400),
        (format!("{}", at * 1000), 401),
        ("NaN".to_owned(), 400),
        ("inf".to_owned(), 400),
        ("\u{664}\u{662}".to_owned(), 400),
        (String::new(), 400),
        ((at - 301).to_string(), 401),
        ((at + 310).to_string(), 401),
    ] {
        // Signed over the number that a lax reader would see in it.
        let seen = text
            .trim_matches(|c: char| !c.is_ascii_digit())
            .parse()
            .unwrap_or(at);
        let signature = sign(&letter.id, seen, &letter.body);
        let lines = [
            ("svix-id", letter.id.as_bytes()),
            ("svix-timestamp", text.as_bytes()),
            ("svix-signature", signature.as_bytes()),
        ];
        let said = siege.ask(&request(&lines, &letter.body)).await;
        assert_eq!(statuses(&said), [status], "{text:.40}: {}", lossy(&said));
    }
    siege.lifted("odd timestamps", PER_CONNECTION).await;
}

/// Requests of one kind, one after another; the processor time of each.
async fn cost(siege: &Siege, count: u32, request: &[u8], status: u16) -> Duration {
    let before = siege.processor_time();
    for _ in 0..count {
        let said = siege.ask(request).await;
        assert_eq!(statuses(&said), [status], "{}", lossy(&said));
    }
    (siege.processor_time() - before) / count
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_by_the_thousand_cost_no_more_than_one() {
    // As many secrets as there may be, each of which is tried.
    let secrets: Vec<String> = (0..9)
        .map(|number| format!("whsec_{}", format!("{number}").repeat(32)))
        .chain([crate::harness::clerk::SECRET.to_owned()])
        .collect();
    let siege = Siege::with(&[("CLERK_WEBHOOK_SIGNING_SECRET", &secrets.join(","))]).await;
    let letter = created("user_1", "a@a.example");
    let stamp = now().to_string();
    let with = |signatures: &str, body: &[u8]| {
        let lines = [
            ("svix-id", letter.id.as_bytes()),
            ("svix-timestamp", stamp.as_bytes()),
            ("svix-signature", signatures.as_bytes()),
        ];
        request(&lines, body)
    };
    let forged = format!("v1,{}=", "A".repeat(43));
    let one = with(&forged, &letter.body);
    let most = with(&vec![&*forged; 32].join(" "), &letter.body);
    let thousands = with(&["v1,AAAA"; 1900].join(" "), &letter.body);
    let large = with(&forged, &vec![b'x'; 512 * 1024]);

    let of_one = cost(&siege, 150, &one, 401).await;
    let of_most = cost(&siege, 150, &most, 401).await;
    let of_thousands = cost(&siege, 150, &thousands, 400).await;
    let of_large = cost(&siege, 10, &large, 401).await;
    println!(
        "processor time per request, 10 secrets: 1 signature {of_one:?}, 32 {of_most:?}, 1,900 \
         {of_thousands:?}, 1 over 512 KiB {of_large:?}"
    );
    // One hash for each secret, whatever the number of signatures; and none when there are too
    // many. Half a millisecond of room for the polite client's share.
    let room = Duration::from_micros(500);
    assert!(of_most <= 2 * of_one + room, "{of_most:?} and {of_one:?}");
    assert!(
        of_thousands <= 2 * of_one + room,
        "{of_thousands:?} and {of_one:?}"
    );
    siege
        .lifted("signatures by the thousand", PER_CONNECTION + 4 * MIB)
        .await;
}
