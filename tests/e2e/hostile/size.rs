//! Clients that send too much.

use futures_util::future::join_all;

use super::siege::{KIB, MIB, PATH, PER_CONNECTION, Siege, unsigned_head};
use crate::harness::wire::{lossy, statuses};

/// The largest body by default.
const LIMIT: usize = 512 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_head_without_end_is_cut_off_at_16_kib() {
    let siege = Siege::lay().await;
    let endless = "x-padding: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(20_000);
    let long_line = format!("x-padding: {}", "a".repeat(1_000_000));
    let many = "a: b\r\n".repeat(100_000);
    let long_target = format!("POST /{} HTTP/1.1\r\n", "a".repeat(1_000_000));
    let long_method = "P".repeat(1_000_000);
    let start = format!("POST {PATH} HTTP/1.1\r\n");
    let mut attacks = Vec::new();
    for _ in 0..40 {
        for head in [
            format!("{start}{endless}"),
            format!("{start}{long_line}"),
            format!("{start}{many}"),
            long_target.clone(),
            long_method.clone(),
        ] {
            let mut wire = siege.connect().await;
            attacks.push(async move {
                wire.send(head.as_bytes()).await;
                wire.until_closed().await
            });
        }
    }
    for said in join_all(attacks).await {
        // The answer may be lost with what was still on its way.
        assert!(
            matches!(statuses(&said)[..], [] | [431 | 414 | 400]),
            "{}",
            lossy(&said)
        );
    }
    siege
        .lifted("200 heads without end", 200 * PER_CONNECTION)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_body_is_refused_by_its_announcement() {
    let siege = Siege::lay().await;
    for length in [
        "524289",
        "1099511627776",
        "9223372036854775807",
        "18446744073709551613",
    ] {
        let head = unsigned_head(&format!("content-length: {length}\r\n"));
        let said = siege.ask(head.as_bytes()).await;
        assert_eq!(statuses(&said), [413], "{length}: {}", lossy(&said));
    }
    // Beyond what a length may be: no request at all.
    for length in [
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999999999",
        "-1",
        "+5",
        "0x5",
        "5.0",
        "5 5",
        "",
    ] {
        let head = unsigned_head(&format!("content-length: {length}\r\n"));
        let said = siege.ask(head.as_bytes()).await;
        assert!(
            matches!(statuses(&said)[..], [400 | 431]),
            "{length:?}: {}",
            lossy(&said)
        );
    }
    siege.lifted("announced sizes", PER_CONNECTION).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_body_in_chunks_is_refused_when_it_is_over_the_limit() {
    let siege = Siege::lay().await;
    let head = unsigned_head("transfer-encoding: chunked\r\n");
    let large = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
    let small = b"1\r\nx\r\n".repeat(4096);
    let mut attacks = Vec::new();
    for number in 0..100 {
        let mut wire = siege.connect().await;
        wire.send(head.as_bytes()).await;
        let chunks = if number % 4 == 0 {
            small.clone()
        } else {
            large.clone()
        };
        attacks.push(tokio::spawn(async move {
            // 50 MiB, if it were let.
            for _ in 0..800 {
                if !wire.send(&chunks).await {
                    break;
                }
            }
            wire.until_closed().await
        }));
    }
    let mut refused = 0;
    for said in join_all(attacks).await {
        let said = said.unwrap();
        refused += usize::from(statuses(&said) == [413]);
        assert!(
            matches!(statuses(&said)[..], [] | [413 | 408]),
            "{}",
            lossy(&said)
        );
    }
    assert!(refused > 0, "some could read why");
    // A body of unknown length is kept in a buffer that doubles: twice the limit, and for a
    // moment the half before it too.
    let bound = 100 * (PER_CONNECTION + 3 * LIMIT as u64);
    siege.lifted("100 bodies of 50 MiB in chunks", bound).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_between_chunks_is_bounded_too() {
    let siege = Siege::lay().await;
    let head = unsigned_head("transfer-encoding: chunked\r\n");
    let extension = format!("1;{}\r\nx\r\n", "e".repeat(100_000));
    let extensions = "1;e=e\r\nx\r\n".repeat(20_000);
    let trailer = format!("0\r\nx-t: {}", "t".repeat(1_000_000));
    let trailers = format!("0\r\n{}", "x-t: t\r\n".repeat(100_000));
    let zeros = format!("{}1\r\nx\r\n", "0".repeat(1_000_000));
    let mut attacks = Vec::new();
    for _ in 0..20 {
        for rest in [&extension, &extensions, &trailer, &trailers, &zeros] {
            let mut wire = siege.connect().await;
            let bytes = format!("{head}{rest}");
            attacks.push(async move {
                wire.send(bytes.as_bytes()).await;
                wire.until_closed().await
            });
        }
    }
    for said in join_all(attacks).await {
        assert!(
            matches!(statuses(&said)[..], [] | [400 | 401 | 408 | 413]),
            "{}",
            lossy(&said)
        );
    }
    let bound = 100 * (PER_CONNECTION + 64 * KIB) + 4 * MIB;
    siege.lifted("100 floods between chunks", bound).await;
}
