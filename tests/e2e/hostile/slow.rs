//! Clients that take their time, and clients that only take a place.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpSocket,
    time::{Instant, sleep, timeout},
};

use super::siege::{KIB, MIB, PER_CONNECTION, Siege, unsigned_head};
use crate::harness::{
    SOON, eventually,
    wire::{Wire, lossy, statuses},
};

/// Between two bytes of a slow client.
const DRIP: Duration = Duration::from_secs(1);

/// Sends the bytes one by one, a second each, until the server has had enough; what it said.
async fn drip(mut wire: Wire, bytes: &[u8]) -> Vec<u8> {
    for byte in bytes {
        if !wire.send(&[*byte]).await {
            break;
        }
        let (said, closed) = wire.read_for(DRIP).await;
        if closed || !said.is_empty() {
            return said;
        }
    }
    wire.until_closed().await
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_are_told_so_and_keep_nobody_waiting() {
    let siege = Siege::lay().await;
    let head = unsigned_head("content-length: 5\r\n");
    let (first, rest) = head.as_bytes().split_at(1);
    let started = Instant::now();
    let mut attacks = Vec::new();
    for _ in 0..400 {
        let mut wire = siege.connect().await;
        // At once: whoever has sent nothing by the end of its time is told nothing.
        wire.send(first).await;
        attacks.push(drip(wire, rest));
    }
    for said in join_all(attacks).await {
        assert_eq!(statuses(&said), [408], "{}", lossy(&said));
    }
    let took = started.elapsed();
    assert!(took < Duration::from_secs(30), "the last after {took:?}");
    siege.lifted("400 slow heads", 400 * PER_CONNECTION).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies_are_told_so_and_take_no_more_than_they_sent() {
    let siege = Siege::lay().await;
    let body = 512 * KIB;
    let head = unsigned_head(&format!("content-length: {body}\r\n"));
    // Most send a byte a second, some nearly all at once and then no more.
    let mut attacks = Vec::new();
    for number in 0..400 {
        let mut wire = siege.connect().await;
        wire.send(head.as_bytes()).await;
        attacks.push(async move {
            if number % 4 == 0 {
                wire.send(&vec![b'x'; 512 * 1024 - 8]).await;
            }
            drip(wire, b"xxxxxxxx").await
        });
    }
    for said in join_all(attacks).await {
        // Refused at once for want of a place, or after its time.
        assert!(
            matches!(statuses(&said)[..], [408 | 503]),
            "{}",
            lossy(&said)
        );
    }
    let bound = 400 * PER_CONNECTION + 100 * body;
    siege
        .lifted("400 slow bodies, 100 of them of 512 KiB", bound)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies_in_every_place_do_not_turn_others_away() {
    let siege = Siege::with(&[("MAX_IN_FLIGHT", "64")]).await;
    let kept = waves_of_slow_bodies(&siege).await;
    let bound = 400 * PER_CONNECTION + 64 * kept;
    siege.lifted("400 slow bodies for 64 places", bound).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies_share_the_bytes_there_are() {
    let buffered = 8 * MIB;
    let siege = Siege::with(&[("MAX_BUFFERED_BYTES", &buffered.to_string())]).await;
    waves_of_slow_bodies(&siege).await;
    // The allocator keeps what was freed among what is held: with `MALLOC_MMAP_THRESHOLD_=131072`,
    // which gives each freed body back, it grew by 14 MiB instead of 34.
    let bound = 400 * PER_CONNECTION + 2 * buffered;
    siege.lifted("400 slow bodies for 8 MiB", bound).await;
}

/// 400 bodies of 512 KiB, each but for its end; some of them have given way in the end. The bytes
/// of one.
async fn waves_of_slow_bodies(siege: &Siege) -> u64 {
    let body = 512 * KIB;
    let head = unsigned_head(&format!("content-length: {body}\r\n"));
    let nearly_all = [head.as_bytes(), &vec![b'x'; 512 * 1024 - 8]].concat();
    // Wave after wave, so that there are more than enough all the time.
    let mut attacks = Vec::new();
    for _ in 0..4 {
        for _ in 0..100 {
            let mut wire = siege.connect().await;
            let nearly_all = nearly_all.clone();
            attacks.push(tokio::spawn(async move {
                wire.send(&nearly_all).await;
                wire.until_closed().await
            }));
        }
        sleep(Duration::from_millis(500)).await;
    }
    let mut gave_way = 0;
    for said in join_all(attacks).await {
        let said = said.unwrap();
        // The answer may be lost to one that is still sending.
        assert!(
            matches!(statuses(&said)[..], [] | [408 | 503]),
            "{}",
            lossy(&said)
        );
        gave_way += usize::from(statuses(&said) == [503]);
    }
    assert!(gave_way > 0, "there was not enough for all");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_idle_connections_are_served_around_and_closed() {
    // Time enough to connect them all before the first is closed.
    let siege = Siege::with(&[("HEAD_TIMEOUT", "5s")]).await;
    let mut wires = siege.connections(2000).await;
    eventually("all are accepted", SOON, async || siege.files() >= 2000).await;
    // Whoever never sends anything has as long as for a head; nothing is said to them.
    for wire in &mut wires {
        assert_eq!(wire.until_closed().await, b"");
    }
    drop(wires);
    siege
        .lifted("2,000 idle connections", 2000 * PER_CONNECTION)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_in_every_place_are_closed_early_for_others() {
    // An HTTP/2 connection may rest between requests, so one that has made none may too. With the
    // time to take its leave that is 4 s: two rounds of them are more than the polite client waits.
    let siege = Siege::with(&[("MAX_CONNECTIONS", "200"), ("IDLE_TIMEOUT", "2s")]).await;
    let mut wires = Vec::new();
    for _ in 0..600 {
        let mut wire = siege.connect().await;
        wire.send(super::http2::HELLO).await;
        wires.push(tokio::spawn(async move { wire.until_closed().await }));
    }
    join_all(wires).await;
    siege
        .lifted("600 idle connections for 200 places", 200 * PER_CONNECTION)
        .await;
}

/// The system's default of 1,024 open files would be the limit, not `MAX_CONNECTIONS`.
#[tokio::test(flavor = "multi_thread")]
async fn files_for_every_connection_are_asked_of_the_system() {
    let siege = Siege::after("ulimit -S -n 200", &[]).await;
    let wires = siege.connections(600).await;
    eventually("all are accepted", SOON, async || siege.files() >= 600).await;
    drop(wires);
    siege
        .lifted(
            "600 connections, begun with 200 files",
            600 * PER_CONNECTION,
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_files_are_few_connections_leave_some_to_the_others() {
    let siege = Siege::after("ulimit -n 300", &[]).await;
    let mut wires = Vec::new();
    for _ in 0..600 {
        let mut wire = siege.connect().await;
        wires.push(tokio::spawn(async move { wire.until_closed().await }));
    }
    join_all(wires).await;
    let output = siege.output();
    assert!(output.contains("for want of open files"), "{output}");
    assert!(!output.contains("cannot accept"), "{output}");
    siege
        .lifted("600 connections for 300 files", 300 * PER_CONNECTION)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_no_answers_is_left_alone_with_them() {
    let siege = Siege::lay().await;
    // Small ones, with the largest answers for their size.
    let flood = "GET / HTTP/1.1\r\n\r\n".repeat(1000);
    let mut attacks = Vec::new();
    for _ in 0..5 {
        // A kernel with little room for what is not read, so that little has to be sent.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(siege.address).await.unwrap();
        let flood = flood.clone();
        attacks.push(tokio::spawn(async move {
            while stream.write_all(flood.as_bytes()).await.is_ok() {}
        }));
    }
    // The server cannot write, stops reading, and lets go after 10 s.
    let let_go = timeout(SOON, join_all(attacks)).await;
    assert!(let_go.is_ok(), "still held");
    let bound = 5 * (PER_CONNECTION + MIB);
    siege.lifted("5 clients that never read", bound).await;
}
