//! HTTP/2 clients that use the protocol against the server.

mod frame;
mod storm;

use futures_util::future::join_all;

use self::frame::{
    CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR,
    HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, frames, goaway,
    streams, text,
};
use self::storm::unsigned_block;
pub(super) use self::{
    frame::{HELLO, is_answered},
    storm::request_to,
};
use super::siege::{KIB, MIB, PATH, PER_CONNECTION, Siege};
use crate::harness::clerk::{created, now, sign};

/// What a stream may take: its state, its request, its answer, its task.
const PER_STREAM: u64 = 8 * KIB;
/// The most streams that the server lets a connection have.
const MAX_STREAMS: u32 = 100;
/// A connection with as many streams as one may have.
const FULL_CONNECTION: u64 = PER_CONNECTION + MAX_STREAMS as u64 * PER_STREAM;

#[tokio::test(flavor = "multi_thread")]
async fn rapid_reset_ends_the_connection_and_costs_nobody_else() {
    let siege = Siege::lay().await;
    let request = unsigned_block();
    let storm: Vec<u8> = streams(5000)
        .flat_map(|stream| {
            let opened = frame(HEADERS, END_HEADERS, stream, &request);
            let reset = frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
            [opened, reset].concat()
        })
        .collect();
    for _ in 0..4 {
        for answer in siege.storm(20, &storm).await {
            if let Some(code) = goaway(&answer) {
                assert_eq!(code, ENHANCE_YOUR_CALM);
            }
            // It was cut off long before it had its 5,000.
            assert!(frames(&answer).count() < 1000);
        }
    }
    siege
        .lifted("80 storms of 5,000 resets", 80 * PER_CONNECTION)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_made_to_have_the_server_reset_streams_end_the_connection() {
    let siege = Siege::lay().await;
    let request = unsigned_block();
    // A window beyond its largest is the stream's error: the server resets it, not the client.
    let storm: Vec<u8> = streams(5000)
        .flat_map(|stream| {
            let opened = frame(HEADERS, END_HEADERS, stream, &request);
            let spoiled = frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes());
            [opened, spoiled].concat()
        })
        .collect();
    for answer in siege.storm(20, &storm).await {
        assert!(frames(&answer).count() < 6000);
        if let Some(code) = goaway(&answer) {
            assert_eq!(code, ENHANCE_YOUR_CALM);
        }
    }
    let bound = 20 * FULL_CONNECTION;
    siege
        .lifted("20 storms of 5,000 stream errors", bound)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_continuations_ends_the_connection() {
    let siege = Siege::lay().await;
    let mut piece = vec![0x00];
    text(&mut piece, "x-flood");
    text(&mut piece, &"f".repeat(1000));
    for pieces in [&piece[..], b"", &piece.repeat(15)] {
        let mut flood = frame(HEADERS, 0, 1, &unsigned_block());
        for _ in 0..5000 {
            flood.extend(frame(CONTINUATION, 0, 1, pieces));
        }
        let storm = siege.storm(20, &flood).await;
        let said: Vec<_> = storm.iter().filter_map(|answer| goaway(answer)).collect();
        assert!(
            said.iter().all(|code| *code == ENHANCE_YOUR_CALM),
            "{said:?}"
        );
    }
    siege
        .lifted("60 floods of continuations", 60 * PER_CONNECTION)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_unfold_to_gigabytes_are_not_kept() {
    let siege = Siege::lay().await;
    // An entry of the dynamic table, and then as many of it as a frame holds: 16 KiB name 64 MB.
    let mut bomb = unsigned_block();
    bomb.push(0x40);
    text(&mut bomb, "x-bomb");
    text(&mut bomb, &"b".repeat(4000));
    bomb.resize(16 * 1024, 0x80 | 62);
    // The same in plain: 15 fields of 4 KB.
    let mut plain = unsigned_block();
    for _ in 0..15 {
        plain.push(0x00);
        text(&mut plain, "x-bomb");
        text(&mut plain, &"b".repeat(4000));
    }
    let mut attack = Vec::new();
    for stream in streams(200) {
        attack.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &bomb));
    }
    let plain: Vec<u8> = streams(200)
        .flat_map(|stream| {
            let mut frames = Vec::new();
            for (number, piece) in plain.chunks(16 * 1024).enumerate() {
                let (kind, flags) = match number {
                    0 => (HEADERS, END_STREAM),
                    3 => (CONTINUATION, END_HEADERS),
                    _ => (CONTINUATION, 0),
                };
                frames.extend(frame(kind, flags, stream, piece));
            }
            frames
        })
        .collect();
    for attack in [attack, plain] {
        siege.storm(20, &attack).await;
    }
    let bound = 40 * FULL_CONNECTION;
    siege.lifted("8,000 bombs in header blocks", bound).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_beyond_the_limit_are_refused_and_the_others_do_not_block_the_door() {
    let siege = Siege::lay().await;
    let request = unsigned_block();
    // None of them ever sends its body.
    let opened: Vec<u8> = streams(1000)
        .flat_map(|stream| frame(HEADERS, END_HEADERS, stream, &request))
        .collect();
    let answers = siege.storm(20, &opened).await;
    for answer in &answers {
        let announced =
            frames(answer)
                .filter(|(kind, ..)| *kind == SETTINGS)
                .any(|(.., settings)| {
                    let most = [&[0, 3][..], &MAX_STREAMS.to_be_bytes()].concat();
                    settings.chunks(6).any(|setting| setting == most)
                });
        assert!(announced, "so that honest clients know");
        let refused = frames(answer)
            .filter(|(kind, ..)| *kind == RST_STREAM)
            .count();
        assert!(refused > 0 || goaway(answer).is_some());
    }
    let bound = 20 * FULL_CONNECTION;
    siege
        .lifted("20,000 streams on 20 connections", bound)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_find_no_window_are_given_up_with_their_connection() {
    let siege = Siege::lay().await;
    let request = unsigned_block();
    // No window for answers at all: each waits.
    let mut opened = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    for stream in streams(MAX_STREAMS) {
        opened.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &request));
    }
    siege.storm(60, &opened).await;
    let bound = 60 * FULL_CONNECTION;
    siege.lifted("6,000 answers without a window", bound).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_beyond_their_window_end_the_connection() {
    let buffered = 4 * MIB;
    let siege = Siege::with(&[("MAX_BUFFERED_BYTES", &buffered.to_string())]).await;
    let mut flood = Vec::new();
    let data = vec![b'x'; 16 * 1024];
    // One request for each of many streams; all send at once, nobody waits for a window.
    for stream in streams(200) {
        flood.extend(frame(HEADERS, END_HEADERS, stream, &unsigned_block()));
    }
    for _ in 0..20 {
        for stream in streams(200) {
            flood.extend(frame(DATA, 0, stream, &data));
        }
    }
    for answer in siege.storm(10, &flood).await {
        if let Some(code) = goaway(&answer) {
            assert!(
                [FLOW_CONTROL_ERROR, ENHANCE_YOUR_CALM, 0].contains(&code),
                "{code}"
            );
        }
    }
    // A connection's window is 1 MiB, and opens again as bodies are read, until the flood overtakes
    // it: how much is read by then is luck, how much is kept is not.
    let bound = 10 * (FULL_CONNECTION + MIB) + 2 * buffered;
    siege
        .lifted("650 MB of bodies without a window", bound)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_frames_that_mean_nothing_are_borne() {
    let siege = Siege::lay().await;
    let open = frame(HEADERS, END_HEADERS, 1, &unsigned_block());
    let floods = [
        frame(PING, 0, 0, &[0; 8]),
        frame(SETTINGS, 0, 0, &[]),
        // Settings that change, each time.
        frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 16, 0]),
        frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 16]),
        frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()),
        // Data of nothing, of single bytes, of padding.
        frame(DATA, 0, 1, &[]),
        frame(DATA, 0, 1, b"x"),
        frame(DATA, 8, 1, &[&[255][..], &[0; 255]].concat()),
        // Of a kind that nobody knows.
        frame(0xbe, 0, 0, &[0; 100]),
        frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes()),
    ];
    let storms = floods.iter().map(|flood| {
        let storm = [&*open, &flood.repeat(2 * 1024 * 1024 / flood.len())].concat();
        let siege = &siege;
        async move { siege.storm(2, &storm).await }
    });
    join_all(storms).await;
    siege
        .lifted("20 floods of 2 MiB", 20 * (PER_CONNECTION + MIB))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_http_2_ends_the_connection() {
    let siege = Siege::lay().await;
    let request = unsigned_block();
    let oversized = frame(HEADERS, END_HEADERS, 1, &vec![0; 17 * 1024]);
    for spoiled in [
        oversized,
        frame(HEADERS, END_HEADERS | END_STREAM, 2, &request),
        frame(HEADERS, END_HEADERS | END_STREAM, 0, &request),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 64]),
        frame(DATA, END_STREAM, 5, b"for nobody"),
        frame(CONTINUATION, END_HEADERS, 1, &request),
        frame(SETTINGS, 0, 0, &[0; 5]),
        frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
        frame(PING, 0, 0, &[0; 7]),
        frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()),
        frame(5, END_HEADERS, 1, &[0; 4]),
    ] {
        let answer = siege.storm(1, &spoiled).await.remove(0);
        let code = goaway(&answer);
        assert!(
            code.is_none_or(|code| code != 0),
            "ended for a reason: {code:?}"
        );
    }
    siege
        .lifted("frames that break the protocol", PER_CONNECTION)
        .await;
}

/// Signed, and with a body of another length than the head says.
#[tokio::test(flavor = "multi_thread")]
async fn a_length_that_lies_is_refused_over_http_2_too() {
    let siege = Siege::lay().await;
    let letter = created("user_1", "a@a.example");
    let stamp = now().to_string();
    let signature = sign(&letter.id, now(), &letter.body);
    let request = |signature: &str, length: usize| {
        let fields = [
            ("svix-id", &*letter.id),
            ("svix-timestamp", &stamp),
            ("svix-signature", signature),
            ("content-length", &length.to_string()),
        ];
        let head = frame(HEADERS, END_HEADERS, 1, &block(PATH, &fields));
        [head, frame(DATA, END_STREAM, 1, &letter.body)].concat()
    };
    let whole = letter.body.len();
    let mut requests = vec![request("v1,forged", whole)];
    for length in [0, 1, whole - 1, whole + 1, usize::MAX] {
        requests.push(request(&signature, length));
    }
    // An HTTP/2 connection stays until it is idle, so all of them at once.
    for answers in join_all(requests.iter().map(|request| siege.storm(1, request))).await {
        assert!(is_answered(&answers[0]));
    }
    // The first, whose length is right, was read to its end: so the frames are.
    let requests = "clerk_sync_webhook_requests_total";
    let unbelieved = siege.metric(requests, "\"signature_mismatch\"").await;
    assert!((unbelieved - 1.0).abs() < 0.5, "{unbelieved}");
    siege
        .lifted("lengths that lie in HTTP/2", PER_CONNECTION)
        .await;
}
