//! Stopping: nobody who was heard is left without an answer.

use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    encodings::{http2, http2_request},
    rig::{BODY, Behaviour, Rig, Wire, signed, within},
};

#[tokio::test]
async fn requests_in_flight_are_finished_and_their_connections_closed() {
    let mut rig = Rig::start().await;
    rig.behaviour.send_replace(Behaviour::Hold);
    let mut wire = rig.connect().await;
    wire.send(&signed("msg_1", BODY)).await;
    rig.publishing(1).await;
    rig.shutdown.request();
    // Longer than the linger: it waits all the same.
    sleep(Duration::from_millis(800)).await;
    rig.behaviour.send_replace(Behaviour::Confirm);
    let answer = wire.answer().await;
    answer.is_accepted();
    assert!(answer.closes());
    wire.closed().await;
    assert_eq!(rig.event().await.id.as_str(), "msg_1");
    drop(wire);
    rig.stop().await;
}

#[tokio::test]
async fn the_port_is_closed_at_once_and_what_waited_behind_it_is_served() {
    let mut rig = Rig::with(|args| args.port.max_connections = 1).await;
    rig.behaviour.send_replace(Behaviour::Hold);
    let mut first = rig.connect().await;
    first.send(&signed("msg_1", BODY)).await;
    rig.publishing(1).await;
    // Behind the cap, so not accepted yet.
    let mut waiting = rig.connect().await;
    waiting.send(&signed("msg_2", BODY)).await;
    rig.shutdown.request();
    rig.publishing(2).await;
    assert!(
        Wire::connect(rig.address).await.is_err(),
        "the port is closed"
    );
    rig.behaviour.send_replace(Behaviour::Confirm);
    for wire in [&mut first, &mut waiting] {
        let answer = wire.answer().await;
        answer.is_accepted();
        assert!(answer.closes());
    }
    assert_eq!(rig.events().len(), 2);
}

#[tokio::test]
async fn a_request_during_the_linger_is_served_and_one_after_it_refused() {
    let mut rig = Rig::start().await;
    let late = signed("msg_late", BODY);
    let (begun, rest) = late.split_at(30);
    let mut early = rig.connect().await;
    let mut slow = rig.connect().await;
    let mut idle = rig.connect().await;
    for wire in [&mut early, &mut slow, &mut idle] {
        wire.send(&signed("msg_0", BODY)).await;
        wire.answer().await.is_accepted();
    }
    rig.events();
    slow.send(begun).await;
    sleep(Duration::from_millis(50)).await;
    rig.shutdown.request();
    sleep(Duration::from_millis(100)).await;
    early.send(&signed("msg_early", BODY)).await;
    let answer = early.answer().await;
    answer.is_accepted();
    assert!(answer.closes());
    early.closed().await;
    // The linger ends: what is idle is closed, a head that has begun may be completed.
    idle.closed().await;
    sleep(Duration::from_millis(100)).await;
    slow.send(rest).await;
    let answer = slow.answer().await;
    answer.is_problem(503, "draining");
    assert!(answer.closes());
    slow.closed().await;
    assert_eq!(rig.event().await.id.as_str(), "msg_early");
    rig.no_event();
    drop((early, slow, idle));
    rig.stop().await;
}

#[tokio::test]
async fn pipelined_requests_that_arrived_are_all_answered() {
    let mut rig = Rig::start().await;
    rig.behaviour.send_replace(Behaviour::Hold);
    let mut wire = rig.connect().await;
    let five: Vec<u8> = (0..5)
        .flat_map(|n| signed(&format!("msg_{n}"), BODY))
        .collect();
    wire.send(&five).await;
    rig.publishing(1).await;
    rig.shutdown.request();
    sleep(Duration::from_millis(100)).await;
    rig.behaviour.send_replace(Behaviour::Confirm);
    for n in 0..5 {
        let answer = wire.answer().await;
        answer.is_accepted();
        assert_eq!(answer.closes(), n == 4, "the last one says goodbye");
    }
    wire.closed().await;
    assert_eq!(rig.events().len(), 5);
}

#[tokio::test]
async fn a_head_that_never_ends_does_not_keep_the_process() {
    let rig = Rig::with(|args| args.port.head_timeout = Duration::from_millis(900)).await;
    let mut wire = rig.connect().await;
    wire.send(b"POST / HT").await;
    sleep(Duration::from_millis(50)).await;
    let started = Instant::now();
    rig.shutdown.request();
    wire.answer().await.is_problem(408, "request_timeout");
    drop(wire);
    rig.stop().await;
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn an_idle_process_stops_at_once() {
    let rig = Rig::start().await;
    let started = Instant::now();
    rig.stop().await;
    assert!(
        started.elapsed() < Duration::from_millis(400),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn http_2_requests_in_flight_are_finished() {
    // Served for longer than a closing connection is waited for.
    let mut rig = Rig::with(|args| args.port.head_timeout = Duration::from_millis(200)).await;
    rig.behaviour.send_replace(Behaviour::Hold);
    let mut client = http2(&rig).await;
    let answers: Vec<_> = (0..20)
        .map(|n| client.send_request(http2_request(&rig, &format!("msg_{n}"), BODY)))
        .collect();
    rig.publishing(20).await;
    rig.shutdown.request();
    sleep(Duration::from_millis(800)).await;
    rig.behaviour.send_replace(Behaviour::Confirm);
    for answer in answers {
        assert_eq!(
            within(answer).await.unwrap().status(),
            StatusCode::NO_CONTENT
        );
    }
    assert_eq!(rig.events().len(), 20);
    rig.stop().await;
}

/// What became of one client's requests.
#[derive(Debug, Default)]
struct Tally {
    accepted: usize,
    refused: usize,
    cut: usize,
}

/// Asks as fast as it is answered, `pipelined` requests at a time, until told to go elsewhere.
async fn ask_until_told_to_go(
    address: std::net::SocketAddr,
    name: usize,
    pipelined: usize,
) -> Tally {
    let mut tally = Tally::default();
    let mut wire = Wire::connect(address).await.unwrap();
    for round in 0.. {
        let ids = (0..pipelined).map(|n| format!("msg_{name}_{round}_{n}"));
        let batch: Vec<u8> = ids.flat_map(|id| signed(&id, BODY)).collect();
        wire.send(&batch).await;
        for n in 0..pipelined {
            let Some(answer) = within(wire.try_answer()).await else {
                tally.cut += pipelined - n;
                return tally;
            };
            match answer.status {
                204 => tally.accepted += 1,
                503 => tally.refused += 1,
                status => panic!("{status}"),
            }
            if answer.closes() {
                // Whatever stands behind this answer was not received: HTTP says to send it again.
                return tally;
            }
        }
    }
    tally
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_under_load_cuts_no_request_and_loses_no_event() {
    for pipelined in [1, 4] {
        let mut rig = Rig::start().await;
        let clients: Vec<_> = (0..64)
            .map(|name| tokio::spawn(ask_until_told_to_go(rig.address, name, pipelined)))
            .collect();
        sleep(Duration::from_millis(400)).await;
        rig.shutdown.request();
        let tallies: Vec<Tally> = within(join_all(clients))
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let sum = |of: fn(&Tally) -> usize| tallies.iter().map(of).sum::<usize>();
        assert_eq!(sum(|tally| tally.cut), 0, "{tallies:?}");
        let accepted = sum(|tally| tally.accepted);
        assert!(accepted > 64, "there was load: {accepted}");
        // An answer may be read only by a client that was there; so as many events as answers.
        let events = rig.events();
        assert_eq!(events.len(), accepted + sum(|tally| tally.refused));
        timeout(Duration::from_secs(5), rig.stop())
            .await
            .expect("it stops");
    }
}
