//! The status table, row by row.

use clerk_sync_pipeline::telemetry::WebhookOutcome;

use crate::rig::{
    BODY, Behaviour, OTHER_SECRET, PATH, Rig, now_s, request, sign, signed, signed_headers,
};

#[tokio::test]
async fn a_verified_and_confirmed_event_is_204() {
    let mut rig = Rig::start().await;
    let before = clerk_sync_pipeline::event::Millis::now();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = format!("traceparent: {trace}\r\n{}", signed_headers("msg_1", BODY));
    let answer = rig.ask(&request(&headers, BODY)).await;
    answer.is_accepted();
    assert!(!answer.closes());
    let event = rig.event().await;
    assert_eq!(event.id.as_str(), "msg_1");
    assert_eq!(event.event_type.as_str(), "user.created");
    assert_eq!(event.body, BODY);
    assert!((event.attempted_at - now_s()).abs() <= 5);
    assert!(event.received_at >= before);
    assert_eq!(event.traceparent.as_deref(), Some(trace));
    assert!(
        rig.metrics.last_verified_event.get()
            >= before.seconds_since(clerk_sync_pipeline::event::Millis(0))
    );
}

#[tokio::test]
async fn the_skew_of_the_clocks_is_that_of_what_was_verified() {
    let rig = Rig::start().await;
    let skew = || rig.metrics.clock_skew.get();
    let signed_at = |id: &str, at: i64, secret: &str| {
        let signature = sign(secret, id, at, BODY);
        let headers =
            format!("svix-id: {id}\r\nsvix-timestamp: {at}\r\nsvix-signature: {signature}\r\n");
        request(&headers, BODY)
    };
    // Ours is ahead of Svix's by two minutes; then behind by as much.
    rig.ask(&signed_at("msg_1", now_s() - 120, crate::rig::SECRET))
        .await
        .is_accepted();
    assert!((119.0..135.0).contains(&skew()), "{}", skew());
    rig.ask(&signed_at("msg_2", now_s() + 120, crate::rig::SECRET))
        .await
        .is_accepted();
    assert!((-121.0..-105.0).contains(&skew()), "{}", skew());
    // Anybody can write a timestamp.
    let before = skew();
    rig.ask(&signed_at("msg_3", now_s() - 200, OTHER_SECRET))
        .await
        .is_problem(401, "signature_mismatch");
    assert!((skew() - before).abs() < f64::EPSILON);
}

#[tokio::test]
async fn the_requests_in_flight_are_counted_against_their_limit() {
    let mut rig = Rig::with(|args| args.max_in_flight = 7).await;
    let in_flight = |metrics: &clerk_sync_pipeline::telemetry::Metrics| {
        let _measured = metrics.render();
        (
            metrics.webhooks_in_flight.get(),
            metrics.webhooks_in_flight_limit.get(),
        )
    };
    rig.ask(&signed("msg_0", BODY)).await.is_accepted();
    assert_eq!(in_flight(&rig.metrics), (0, 7));
    rig.behaviour.send_replace(Behaviour::Hold);
    let mut wire = rig.connect().await;
    wire.send(&signed("msg_1", BODY)).await;
    rig.publishing(1).await;
    assert_eq!(in_flight(&rig.metrics), (1, 7));
    rig.behaviour.send_replace(Behaviour::Confirm);
    wire.answer().await.is_accepted();
    assert_eq!(in_flight(&rig.metrics), (0, 7));
}

#[tokio::test]
async fn the_204_waits_for_the_confirm() {
    let mut rig = Rig::start().await;
    rig.behaviour.send_replace(Behaviour::Hold);
    let mut wire = rig.connect().await;
    wire.send(&signed("msg_1", BODY)).await;
    rig.publishing(1).await;
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), wire.try_answer());
    assert!(early.await.is_err(), "no answer before the confirm");
    rig.behaviour.send_replace(Behaviour::Confirm);
    wire.answer().await.is_accepted();
}

#[tokio::test]
async fn a_missing_or_blank_header_is_400() {
    let mut rig = Rig::start().await;
    for missing in ["svix-id", "svix-timestamp", "svix-signature"] {
        let headers = signed_headers("msg_1", BODY);
        let without: String = headers
            .split_inclusive("\r\n")
            .filter(|line| !line.starts_with(missing))
            .collect();
        let blank = format!("{without}{missing}: \t \r\n");
        for headers in [without, blank] {
            let answer = rig.ask(&request(&headers, BODY)).await;
            answer.is_problem(400, "missing_header");
            assert!(String::from_utf8_lossy(&answer.body).contains(missing));
        }
    }
    rig.ask(&request("", BODY))
        .await
        .is_problem(400, "missing_header");
    rig.no_event();
}

#[tokio::test]
async fn a_repeated_or_malformed_header_is_400() {
    let mut rig = Rig::start().await;
    let now = now_s();
    let line = |name: &str, value: &str| format!("svix-{name}: {value}\r\n");
    let id = line("id", "msg_1");
    let timestamp = line("timestamp", &now.to_string());
    let signature = line("signature", &sign(crate::rig::SECRET, "msg_1", now, BODY));
    let long = "m".repeat(256);
    let many = vec!["v1,AAAA"; 33].join(" ");
    let large = format!("v1,{}", "A".repeat(4096));
    for (name, headers) in [
        (
            "svix-id",
            [id.clone(), id.clone(), timestamp.clone(), signature.clone()].concat(),
        ),
        (
            "svix-id",
            [line("id", "msg 1"), timestamp.clone(), signature.clone()].concat(),
        ),
        (
            "svix-id",
            [
                line("id", "msg_\u{e9}"),
                timestamp.clone(),
                signature.clone(),
            ]
            .concat(),
        ),
        (
            "svix-id",
            [line("id", &long), timestamp.clone(), signature.clone()].concat(),
        ),
        (
            "svix-id",
            [line("id", "msg.1"), timestamp.clone(), signature.clone()].concat(),
        ),
        (
            "svix-timestamp",
            [
                id.clone(),
                timestamp.clone(),
                timestamp.clone(),
                signature.clone(),
            ]
            .concat(),
        ),
        (
            "svix-timestamp",
            [id.clone(), line("timestamp", "soon"), signature.clone()].concat(),
        ),
        (
            "svix-timestamp",
            [
                id.clone(),
                line("timestamp", &format!("+{now}")),
                signature.clone(),
            ]
            .concat(),
        ),
        (
            "svix-timestamp",
            [
                id.clone(),
                line("timestamp", &format!("0{now}")),
                signature.clone(),
            ]
            .concat(),
        ),
        (
            "svix-timestamp",
            [
                id.clone(),
                line("timestamp", &format!("{now}.5")),
                signature.clone(),
            ]
            .concat(),
        ),
        (
            "svix-timestamp",
            [
                id.clone(),
                line("timestamp", "99999999999999999999"),
                signature.clone(),
            ]
            .concat(),
        ),
        (
            "svix-signature",
            [
                id.clone(),
                timestamp.clone(),
                signature.clone(),
                signature.clone(),
            ]
            .concat(),
        ),
        (
            "svix-signature",
            [id.clone(), timestamp.clone(), line("signature", "signed")].concat(),
        ),
        (
            "svix-signature",
            [id.clone(), timestamp.clone(), line("signature", &many)].concat(),
        ),
        (
            "svix-signature",
            [id.clone(), timestamp.clone(), line("signature", &large)].concat(),
        ),
    ] {
        let answer = rig.ask(&request(&headers, BODY)).await;
        answer.is_problem(400, "malformed_header");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(text.contains(name), "{text} of {headers}");
    }
    rig.no_event();
}

#[tokio::test]
async fn a_signature_of_nobody_we_know_is_401() {
    let mut rig = Rig::start().await;
    let now = now_s();
    let headers = |signature: &str| {
        format!("svix-id: msg_1\r\nsvix-timestamp: {now}\r\nsvix-signature: {signature}\r\n")
    };
    let good = sign(crate::rig::SECRET, "msg_1", now, BODY);
    let unprefixed = good.strip_prefix("v1,").unwrap();
    for signature in [
        sign(OTHER_SECRET, "msg_1", now, BODY),
        sign(crate::rig::SECRET, "msg_2", now, BODY),
        sign(crate::rig::SECRET, "msg_1", now + 1, BODY),
        sign(crate::rig::SECRET, "msg_1", now, b"{}"),
        format!("v1a,{unprefixed}"),
        format!("v2,{unprefixed}"),
        format!("V1,{unprefixed}"),
        format!("v1,{}", &unprefixed[..unprefixed.len() - 1]),
        "v1,".to_owned(),
        ",".to_owned(),
    ] {
        let answer = rig.ask(&request(&headers(&signature), BODY)).await;
        answer.is_problem(401, "signature_mismatch");
    }
    // The same signature does hold, for the bytes it was made of.
    rig.ask(&request(&headers(&good), BODY)).await.is_accepted();
    let mut tampered = BODY.to_vec();
    tampered[9] = b'x';
    rig.ask(&request(&headers(&good), &tampered))
        .await
        .is_problem(401, "signature_mismatch");
    assert_eq!(rig.event().await.body, BODY);
    rig.no_event();
}

#[tokio::test]
async fn a_body_that_is_not_utf8_is_401_as_nobody_signs_one() {
    let rig = Rig::start().await;
    let body = b"{\"type\":\"user.created\",\"x\":\"\xff\"}";
    rig.ask(&signed("msg_1", body))
        .await
        .is_problem(401, "signature_mismatch");
}

#[tokio::test]
async fn a_timestamp_out_of_tolerance_is_401() {
    let mut rig = Rig::start().await;
    // Two seconds of room for the time the test takes; the exact edges have a test of their own.
    for (offset, accepted) in [(-298, true), (298, true), (-303, false), (303, false)] {
        let at = now_s() + offset;
        let signature = sign(crate::rig::SECRET, "msg_1", at, BODY);
        let headers =
            format!("svix-id: msg_1\r\nsvix-timestamp: {at}\r\nsvix-signature: {signature}\r\n");
        let answer = rig.ask(&request(&headers, BODY)).await;
        if accepted {
            answer.is_accepted();
            assert_eq!(rig.event().await.attempted_at, at);
        } else {
            answer.is_problem(401, "timestamp_out_of_tolerance");
        }
    }
    rig.no_event();
}

#[tokio::test]
async fn another_path_is_404_and_another_method_405() {
    let mut rig = Rig::start().await;
    let good = String::from_utf8(signed("msg_1", BODY)).unwrap();
    for path in [
        "/",
        "/api/webhooks/clerk/",
        "/api/webhooks",
        "/API/webhooks/clerk",
        "*",
    ] {
        let answer = rig.ask(good.replace(PATH, path).as_bytes()).await;
        answer.is_problem(404, "not_found");
    }
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"] {
        let answer = rig.ask(good.replace("POST", method).as_bytes()).await;
        answer.is_problem(405, "method_not_allowed");
    }
    rig.no_event();
    // The query is not a part of the path.
    rig.ask(good.replace(PATH, &format!("{PATH}?from=clerk")).as_bytes())
        .await
        .is_accepted();
}

#[tokio::test]
async fn a_queue_that_fails_is_503_and_its_reason_stays_here() {
    let mut rig = Rig::start().await;
    rig.behaviour.send_replace(Behaviour::Unavailable);
    let answer = rig.ask(&signed("msg_1", BODY)).await;
    answer.is_problem(503, "queue_unavailable");
    assert!(!String::from_utf8_lossy(&answer.body).contains("10.0.0.7"));
    rig.behaviour.send_replace(Behaviour::Overloaded);
    rig.ask(&signed("msg_1", BODY))
        .await
        .is_problem(503, "overloaded");
    rig.no_event();
    rig.behaviour.send_replace(Behaviour::Confirm);
    rig.ask(&signed("msg_1", BODY)).await.is_accepted();
}

#[tokio::test]
async fn what_clerk_signed_is_queued_whatever_it_is() {
    let mut rig = Rig::start().await;
    for (body, event_type) in [
        (&b""[..], "unparsable"),
        (b"not json", "unparsable"),
        (b"{\"type\":\"user.created\"", "unparsable"),
        (
            b"{\"type\":\"somethingNew.happened\"}",
            "somethingNew.happened",
        ),
    ] {
        rig.ask(&signed("msg_1", body)).await.is_accepted();
        let event = rig.event().await;
        assert_eq!(event.event_type.as_str(), event_type);
        assert_eq!(event.body, body);
    }
}

#[tokio::test]
async fn a_malformed_traceparent_is_not_carried() {
    let mut rig = Rig::start().await;
    let headers = format!("traceparent: 00-zz\r\n{}", signed_headers("msg_1", BODY));
    rig.ask(&request(&headers, BODY)).await.is_accepted();
    assert_eq!(rig.event().await.traceparent, None);
}

#[tokio::test]
async fn every_answer_is_counted_once() {
    let rig = Rig::with(|args| args.max_body_bytes = 1000).await;
    let good = signed("msg_1", BODY);
    let text = String::from_utf8(good.clone()).unwrap();
    rig.ask(&good).await.is_accepted();
    rig.ask(&good).await.is_accepted();
    rig.ask(text.replace(PATH, "/x").as_bytes())
        .await
        .is_problem(404, "not_found");
    rig.ask(text.replace("POST", "PUT").as_bytes())
        .await
        .is_problem(405, "method_not_allowed");
    rig.ask(text.replace("svix-id", "x-id").as_bytes())
        .await
        .is_problem(400, "missing_header");
    rig.ask(text.replace("msg_1", "msg 1").as_bytes())
        .await
        .is_problem(400, "malformed_header");
    rig.ask(text.replace("msg_1", "msg_2").as_bytes())
        .await
        .is_problem(401, "signature_mismatch");
    rig.ask(&signed("msg_1", &[b'x'; 1001]))
        .await
        .is_problem(413, "body_too_large");
    rig.behaviour.send_replace(Behaviour::Unavailable);
    rig.ask(&good).await.is_problem(503, "queue_unavailable");
    assert_eq!(
        rig.all_counted(),
        [
            ("accepted", 2),
            ("missing_header", 1),
            ("malformed_header", 1),
            ("signature_mismatch", 1),
            ("not_found", 1),
            ("method_not_allowed", 1),
            ("body_too_large", 1),
            ("queue_unavailable", 1),
        ]
    );
    assert_eq!(rig.metrics.webhook_duration.get_sample_count(), 9);
    assert_eq!(rig.metrics.secret_matches(0).get(), 3);
    assert_eq!(rig.counted(WebhookOutcome::Draining), 0);
}
