//! Clients that are slow, large, many, or gone.

use std::time::Duration;

use clerk_sync_pipeline::telemetry::WebhookOutcome;
use futures_util::future::{join_all, select_all};
use tokio::{io::AsyncWriteExt as _, net::TcpSocket, time::Instant};

use crate::{
    encodings::{http2, http2_request},
    rig::{BODY, Behaviour, PATH, Rig, Wire, eventually, request, signed, signed_headers, within},
};

#[tokio::test]
async fn a_slow_head_is_408_and_the_end_of_the_connection() {
    let rig = Rig::with(|args| args.port.head_timeout = Duration::from_millis(300)).await;
    for begun in [
        "P",
        "POST /api/webhooks/clerk HTTP/1.1\r\nhost: test\r\nsvix-id: m",
    ] {
        let mut wire = rig.connect().await;
        let started = Instant::now();
        wire.send(begun.as_bytes()).await;
        let answer = wire.answer().await;
        assert!(
            started.elapsed() >= Duration::from_millis(295),
            "{:?}",
            started.elapsed()
        );
        answer.is_problem(408, "request_timeout");
        assert!(answer.closes());
        wire.closed().await;
    }
    // A second head on the same connection is not given more time than the first.
    let mut wire = rig.connect().await;
    wire.send(&signed("msg_1", BODY)).await;
    wire.answer().await.is_accepted();
    tokio::time::sleep(Duration::from_millis(400)).await;
    let whole = signed("msg_2", BODY);
    for byte in &whole[..20] {
        if wire.stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    wire.answer().await.is_problem(408, "request_timeout");
    wire.closed().await;
    assert_eq!(rig.all_counted(), [("accepted", 1), ("request_timeout", 3)]);
}

#[tokio::test]
async fn a_slow_body_is_408_and_the_end_of_the_connection() {
    let mut rig = Rig::with(|args| args.body_timeout = Duration::from_millis(300)).await;
    let whole = signed("msg_1", BODY);
    let mut wire = rig.connect().await;
    wire.send(&whole[..whole.len() - 1]).await;
    let answer = wire.answer().await;
    answer.is_problem(408, "request_timeout");
    assert!(answer.closes());
    wire.closed().await;
    rig.no_event();
    assert_eq!(rig.counted(WebhookOutcome::RequestTimeout), 1);
}

#[tokio::test]
async fn an_oversized_head_is_431() {
    let rig = Rig::start().await;
    let mut wire = rig.connect().await;
    let padding = "a".repeat(20_000);
    wire.send(&request(&format!("x-padding: {padding}\r\n"), BODY))
        .await;
    assert_eq!(wire.answer().await.status, 431);
    wire.closed().await;
    let mut wire = rig.connect().await;
    let many: String = (0..101).map(|n| format!("x-{n}: y\r\n")).collect();
    wire.send(&request(&many, BODY)).await;
    assert_eq!(wire.answer().await.status, 431);
    wire.closed().await;
    // A head of 15 KB is not oversized.
    let headers = format!(
        "x-padding: {}\r\n{}",
        &padding[..15_000],
        signed_headers("msg_1", BODY)
    );
    rig.ask(&request(&headers, BODY)).await.is_accepted();
}

#[tokio::test]
async fn an_announced_body_over_the_limit_is_413_before_it_is_sent() {
    let mut rig = Rig::start().await;
    let largest = vec![b'x'; 524_288];
    rig.ask(&signed("msg_1", &largest)).await.is_accepted();
    assert_eq!(rig.event().await.body.len(), 524_288);
    let headers = signed_headers("msg_1", BODY);
    let mut wire = rig.connect().await;
    let head = format!("POST {PATH} HTTP/1.1\r\n{headers}content-length: 524289\r\n\r\n");
    wire.send(head.as_bytes()).await;
    let answer = wire.answer().await;
    answer.is_problem(413, "body_too_large");
    assert!(answer.closes());
    rig.no_event();
}

#[tokio::test]
async fn a_refused_client_that_is_still_sending_can_read_why() {
    let rig = Rig::start().await;
    let body = vec![b'x'; 4 << 20];
    for (headers, status, error) in [
        (signed_headers("msg_1", &body), 413, "body_too_large"),
        (String::new(), 400, "missing_header"),
    ] {
        let mut wire = rig.connect().await;
        // The whole body first, as many clients do; only then is an answer looked for.
        wire.send(&request(&headers, &body)).await;
        let answer = wire.answer().await;
        answer.is_problem(status, error);
        assert!(answer.closes());
        wire.closed().await;
    }
}

#[tokio::test]
async fn a_chunked_body_is_413_when_it_has_grown_over_the_limit() {
    let mut rig = Rig::with(|args| args.max_body_bytes = 100).await;
    let headers = signed_headers("msg_1", BODY);
    let mut wire = rig.connect().await;
    let head = format!("POST {PATH} HTTP/1.1\r\n{headers}transfer-encoding: chunked\r\n\r\n");
    wire.send(head.as_bytes()).await;
    for _ in 0..11 {
        wire.send(b"A\r\n0123456789\r\n").await;
    }
    let answer = wire.answer().await;
    answer.is_problem(413, "body_too_large");
    assert!(answer.closes());
    wire.closed().await;
    rig.no_event();
}

#[tokio::test]
async fn broken_framing_is_400() {
    let mut rig = Rig::start().await;
    let headers = signed_headers("msg_1", BODY);
    let mut wire = rig.connect().await;
    let head = format!("POST {PATH} HTTP/1.1\r\n{headers}transfer-encoding: chunked\r\n\r\n");
    wire.send(head.as_bytes()).await;
    wire.send(b"5\r\nhello\r\nnot a size\r\n").await;
    let answer = wire.answer().await;
    answer.is_problem(400, "malformed_body");
    assert!(answer.closes());
    wire.closed().await;
    rig.no_event();
}

#[tokio::test]
async fn a_content_length_that_lies_queues_nothing() {
    let mut rig = Rig::with(|args| args.body_timeout = Duration::from_millis(300)).await;
    let headers = signed_headers("msg_1", BODY);
    let claimed = |length: usize| {
        let head = format!("POST {PATH} HTTP/1.1\r\n{headers}content-length: {length}\r\n\r\n");
        [head.as_bytes(), BODY].concat()
    };
    // Too long, and the client waits: slow.
    rig.ask(&claimed(BODY.len() + 1))
        .await
        .is_problem(408, "request_timeout");
    // Too long, and the client ends its side: broken off.
    let mut wire = rig.connect().await;
    wire.send(&claimed(BODY.len() + 1)).await;
    wire.stream.shutdown().await.unwrap();
    wire.answer().await.is_problem(400, "malformed_body");
    // Too short: other bytes than were signed, and no request after it.
    let mut wire = rig.connect().await;
    wire.send(&claimed(BODY.len() - 1)).await;
    wire.answer().await.is_problem(401, "signature_mismatch");
    // Two of them that differ: no request at all.
    let twice = format!("content-length: 5\r\n{headers}");
    assert_eq!(rig.ask(&request(&twice, BODY)).await.status, 400);
    rig.no_event();
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_body_harms_nobody() {
    let mut rig = Rig::with(|args| args.max_in_flight = 1).await;
    let whole = signed("msg_1", BODY);
    for _ in 0..5 {
        let mut wire = rig.connect().await;
        wire.send(&whole[..whole.len() - 5]).await;
        drop(wire);
    }
    // Its place in flight is free again.
    eventually("all have been noticed", || {
        rig.counted(WebhookOutcome::MalformedBody) + rig.counted(WebhookOutcome::Overloaded) >= 1
    })
    .await;
    within(accepted_at_last(&rig, &whole)).await;
    assert_eq!(rig.event().await.body, BODY);
    rig.no_event();
}

#[tokio::test]
async fn a_client_that_leaves_before_the_confirm_gives_its_place_back() {
    let mut rig = Rig::with(|args| args.max_in_flight = 1).await;
    rig.behaviour.send_replace(Behaviour::Hold);
    let mut wire = rig.connect().await;
    wire.send(&signed("msg_1", BODY)).await;
    rig.publishing(1).await;
    drop(wire);
    rig.behaviour.send_replace(Behaviour::Confirm);
    within(accepted_at_last(&rig, &signed("msg_2", BODY))).await;
}

/// Asks until there is a place.
async fn accepted_at_last(rig: &Rig, request: &[u8]) {
    loop {
        let answer = rig.ask(request).await;
        if answer.status != 503 {
            return answer.is_accepted();
        }
    }
}

#[tokio::test]
async fn more_requests_than_allowed_are_503_and_come_through_later() {
    let mut rig = Rig::with(|args| args.max_in_flight = 2).await;
    rig.behaviour.send_replace(Behaviour::Hold);
    let mut held = Vec::new();
    for n in 0..2 {
        let mut wire = rig.connect().await;
        wire.send(&signed(&format!("msg_{n}"), BODY)).await;
        held.push(wire);
    }
    rig.publishing(2).await;
    // As often as it is asked for: a refusal frees no place.
    for _ in 0..3 {
        rig.ask(&signed("msg_2", BODY))
            .await
            .is_problem(503, "overloaded");
    }
    // What is refused for another reason needs no place.
    rig.ask(&request("", BODY))
        .await
        .is_problem(400, "missing_header");
    rig.behaviour.send_replace(Behaviour::Confirm);
    for wire in &mut held {
        wire.answer().await.is_accepted();
    }
    rig.ask(&signed("msg_2", BODY)).await.is_accepted();
}

#[tokio::test]
async fn a_slow_body_gives_its_place_to_a_request_that_is_there() {
    let mut rig = Rig::with(|args| args.max_in_flight = 1).await;
    let whole = signed("msg_slow", BODY);
    let mut slow = rig.connect().await;
    slow.send(&whole[..whole.len() - 1]).await;
    // Until the slow one is seen to have the place, the others come through in any case.
    for n in 0..5 {
        rig.ask(&signed(&format!("msg_{n}"), BODY))
            .await
            .is_accepted();
    }
    let answer = slow.answer().await;
    answer.is_problem(503, "overloaded");
    assert!(answer.closes());
    slow.closed().await;
    assert_eq!(rig.events().len(), 5);
}

#[tokio::test]
async fn slow_bodies_give_way_when_their_bytes_are_too_many() {
    let mut rig = Rig::with(|args| {
        args.max_body_bytes = 100_000;
        args.max_buffered_bytes = 150_000;
    })
    .await;
    let whole = signed("msg_slow", &[b' '; 90_000]);
    let mut slow = Vec::new();
    for _ in 0..3 {
        let mut wire = rig.connect().await;
        wire.send(&whole[..whole.len() - 1]).await;
        slow.push(wire);
    }
    // There is room for one of the three.
    for _ in 0..2 {
        let answers = slow.iter_mut().map(|wire| Box::pin(wire.answer()));
        let (answer, who, _) = within(select_all(answers)).await;
        answer.is_problem(503, "overloaded");
        slow.remove(who);
    }
    // What fits one read with its head needs none.
    rig.ask(&signed("msg_1", BODY)).await.is_accepted();
    slow[0].send(&whole[whole.len() - 1..]).await;
    slow[0].answer().await.is_accepted();
    assert_eq!(rig.events().len(), 2);
}

#[tokio::test]
async fn who_rests_gives_way_to_who_waits_for_a_connection() {
    let rig = Rig::with(|args| args.port.max_connections = 2).await;
    let mut new = rig.connect().await;
    let mut served = rig.connect().await;
    served.send(&signed("msg_1", BODY)).await;
    served.answer().await.is_accepted();
    // Long before the 5 s of the one and the 75 s of the other.
    let started = Instant::now();
    rig.ask(&signed("msg_2", BODY)).await.is_accepted();
    rig.ask(&signed("msg_3", BODY)).await.is_accepted();
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
    new.closed().await;
    served.closed().await;
}

#[tokio::test]
async fn connections_over_the_cap_wait_and_are_served() {
    let mut rig = Rig::with(|args| args.port.max_connections = 2).await;
    let idle = [rig.connect().await, rig.connect().await];
    let mut late = Vec::new();
    for n in 0..10 {
        let mut wire = rig.connect().await;
        let headers = format!(
            "connection: close\r\n{}",
            signed_headers(&format!("msg_{n}"), BODY)
        );
        wire.send(&request(&headers, BODY)).await;
        late.push(wire);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    rig.no_event();
    drop(idle);
    let answers = late
        .into_iter()
        .map(|mut wire| async move { wire.answer().await });
    for answer in join_all(answers).await {
        answer.is_accepted();
    }
    assert_eq!(rig.events().len(), 10);
}

#[tokio::test]
async fn idle_connections_are_closed_without_a_word() {
    let rig = Rig::with(|args| {
        args.port.head_timeout = Duration::from_millis(200);
        args.port.idle_timeout = Duration::from_millis(700);
    })
    .await;
    // One that never sends anything has as long as for a head.
    let started = Instant::now();
    rig.connect().await.closed().await;
    assert!(started.elapsed() >= Duration::from_millis(195));
    // One between requests may rest, and is closed after that.
    let mut wire = rig.connect().await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(if wire_is_new(&rig) {
            0
        } else {
            450
        }))
        .await;
        wire.send(&signed("msg_1", BODY)).await;
        wire.answer().await.is_accepted();
    }
    let rested = Instant::now();
    wire.closed().await;
    assert!(
        rested.elapsed() >= Duration::from_millis(690),
        "{:?}",
        rested.elapsed()
    );
    assert_eq!(rig.all_counted(), [("accepted", 3)]);
}

fn wire_is_new(rig: &Rig) -> bool {
    rig.counted(WebhookOutcome::Accepted) == 0
}

#[tokio::test]
async fn an_idle_http_2_connection_is_closed() {
    let rig = Rig::with(|args| args.port.idle_timeout = Duration::from_millis(300)).await;
    let mut client = http2(&rig).await;
    let answer = within(client.send_request(http2_request(&rig, "msg_1", BODY)))
        .await
        .unwrap();
    assert_eq!(answer.status(), 204);
    within(async {
        while !client.is_closed() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_that_is_served_is_never_idle() {
    let mut rig = Rig::with(|args| {
        args.port.head_timeout = Duration::from_millis(100);
        args.port.idle_timeout = Duration::from_millis(100);
    })
    .await;
    rig.behaviour.send_replace(Behaviour::Hold);
    let mut wire = rig.connect().await;
    wire.send(&signed("msg_1", BODY)).await;
    rig.publishing(1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    rig.behaviour.send_replace(Behaviour::Confirm);
    wire.answer().await.is_accepted();
}

#[tokio::test]
async fn a_client_that_never_reads_its_answers_is_given_up() {
    let rig = Rig::start().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(rig.address).await.unwrap();
    let flood = request("", b"").repeat(1000);
    // Answers fill the kernel's buffers, the server stops reading, then our writes stop too, until
    // the server lets go.
    let flooded = within(async {
        loop {
            if let Err(error) = stream.write_all(&flood).await {
                return error;
            }
        }
    })
    .await;
    assert!(
        matches!(
            flooded.kind(),
            std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
        ),
        "{flooded}"
    );
    // Others do not notice.
    rig.ask(&signed("msg_1", BODY)).await.is_accepted();
    let mut other = Wire::connect(rig.address).await.unwrap();
    other.send(&signed("msg_2", BODY)).await;
    other.answer().await.is_accepted();
}

#[tokio::test]
async fn a_queue_that_never_answers_is_503_within_10_s() {
    let rig = Rig::start().await;
    rig.behaviour.send_replace(Behaviour::Hold);
    let started = Instant::now();
    let answer = rig.ask(&signed("msg_1", BODY)).await;
    answer.is_problem(503, "queue_unavailable");
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
}
