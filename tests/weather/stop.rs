//! SIGTERM at every stage: the process ends by itself within its grace period, cleanly, and what it
//! had in hand is not lost.

use std::time::Duration;

use sea_orm::ConnectionTrait as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::{
    harness::{
        SOON,
        clerk::{Letter, client, created, now, post, sign},
        eventually,
        process::Process,
        proxy::Mode,
        servers::{TestDb, patiently},
    },
    load::{Delivered, deliver_letter, some_events},
    site::{Plan, Shape, Site, shared},
};

/// What orchestrators allow is 30 s; we say 25.
const GRACE: Duration = Duration::from_secs(25);

/// Asks a process to stop; it must end by itself.
pub(crate) async fn stops(process: &mut Process, stage: &str) {
    process.signal("-TERM");
    let since = Instant::now();
    let status = process.wait().await;
    let took = since.elapsed();
    let output = process.output();
    assert_eq!(status.code(), Some(0), "{stage}, after {took:?}: {output}");
    assert!(took < GRACE, "{stage} took {took:?}");
    assert!(!output.contains("panicked"), "{output}");
}

async fn members_stop(site: &mut Site, from: usize, stage: &str) {
    for member in &mut site.members[from..] {
        stops(&mut member.process, stage).await;
    }
}

/// The answer to a request that is sent in parts, with a SIGTERM between them.
async fn half_a_request(
    site: &Site,
    letter: &Letter,
    sent: impl Fn(&str, usize) -> usize,
) -> String {
    let url: reqwest::Url = site.url().borrow().parse().unwrap();
    let address = (url.host_str().unwrap().to_owned(), url.port().unwrap());
    let mut stream = TcpStream::connect(address).await.unwrap();
    let at = now();
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: a\r\nsvix-id: {}\r\nsvix-timestamp: {at}\r\n\
         svix-signature: {}\r\ncontent-length: {}\r\n\r\n",
        url.path(),
        letter.id,
        sign(&letter.id, at, &letter.body),
        letter.body.len(),
    );
    let request = [head.as_bytes(), &letter.body].concat();
    let part = sent(&head, request.len());
    stream.write_all(&request[..part]).await.unwrap();
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    answer
}

pub(crate) async fn an_ingester_stops_in_mid_head_in_mid_body_and_before_a_confirm() {
    let _servers = shared().await;
    let mut site = Site::open(Plan::new(Shape::Apart { workers: 1 }).await).await;
    let delivered = some_events(&site, 10).await;
    let letter = |n: usize| created(&format!("user_half{n}"), &format!("half{n}@a.example"));
    let (head, body, confirm) = (letter(1), letter(2), letter(3));
    site.to_broker.set(Mode::Mute);
    let (client, url) = (client(), site.url().borrow().clone());
    let requests = async {
        tokio::join!(
            half_a_request(&site, &head, |head, _| head.len() / 2),
            half_a_request(&site, &body, |_, all| all - 10),
            post(&client, &url, &confirm),
        )
    };
    let stop = async {
        // All three have begun.
        sleep(Duration::from_secs(1)).await;
        let since = Instant::now();
        site.ingest().process.signal("-TERM");
        since
    };
    let ((head_answer, body_answer, confirm_status), since) = tokio::join!(requests, stop);
    assert!(head_answer.starts_with("HTTP/1.1 408"), "{head_answer}");
    assert!(body_answer.starts_with("HTTP/1.1 408"), "{body_answer}");
    assert_eq!(confirm_status, 503, "nobody said that it is kept");
    let status = site.members[0].process.wait().await;
    assert_eq!(status.code(), Some(0));
    assert!(since.elapsed() < GRACE);
    site.to_broker.set(Mode::Open);
    site.restart_member(0).await;
    goes_on(site, delivered, &[head, body, confirm]).await;
}

/// As if nothing had happened: the letters are delivered again, and all is audited.
async fn goes_on(site: Site, mut delivered: Delivered, letters: &[Letter]) {
    for letter in letters {
        deliver_letter(&site, letter).await;
        let body: serde_json::Value = serde_json::from_slice(&letter.body).unwrap();
        let user = &body["data"];
        let email = user["email_addresses"][0]["email_address"]
            .as_str()
            .unwrap();
        delivered.ids.insert(letter.id.clone());
        delivered.add_row((user["id"].as_str().unwrap(), email, Some("U 0")));
    }
    let after = some_events(&site, 10).await;
    delivered.merge(after);
    site.audit(&delivered).await;
}

/// A worker with events in hand, stopped in some weather that lasts.
async fn a_worker_stops(stage: &str, weather: impl Fn(&Site, bool)) {
    let mut site = Site::open(Plan::new(Shape::Apart { workers: 1 }).await).await;
    let mut delivered = some_events(&site, 5).await;
    site.applied(&delivered.ids).await;
    weather(&site, true);
    delivered.merge(some_events(&site, 20).await);
    // It has begun with them, as far as it can.
    sleep(Duration::from_secs(4)).await;
    members_stop(&mut site, 1, stage).await;
    weather(&site, false);
    site.restart_member(1).await;
    goes_on(site, delivered, &[]).await;
}

pub(crate) async fn a_worker_stops_in_mid_batch_and_with_either_server_away() {
    let _servers = shared().await;
    let slow = Mode::Slow(Duration::from_secs(30));
    let either = |on: bool, mode: Mode| if on { mode } else { Mode::Open };
    tokio::join!(
        a_worker_stops("in mid-batch", |site, on| site
            .to_database
            .set(either(on, slow))),
        a_worker_stops("without a database", |site, on| {
            site.to_database.set(either(on, Mode::Gone));
        }),
        a_worker_stops("with a mute database", |site, on| {
            site.to_database.set(either(on, Mode::Mute));
        }),
        a_worker_stops("without a broker", |site, on| {
            site.from_broker.set(either(on, Mode::Gone));
        }),
        a_worker_stops("with a silent broker", |site, on| {
            site.from_broker.set(either(on, Mode::Silent));
        }),
    );
}

/// All in one process, stopped at some stage of its life, and started again in good weather.
async fn up_stops(stage: &str, shape: Shape, weather: impl Fn(&Site, bool), running: bool) {
    let db = TestDb::postgres().await;
    let plan = Plan::on(db, shape);
    let mut site = if running {
        let site = Site::open(plan).await;
        weather(&site, true);
        site
    } else {
        Site::open_in(plan, |site| weather(site, true)).await
    };
    let delivered = if shape == Shape::Embedded {
        some_events(&site, 20).await
    } else {
        Delivered::default()
    };
    sleep(Duration::from_secs(4)).await;
    members_stop(&mut site, 0, stage).await;
    weather(&site, false);
    site.restart_member(0).await;
    goes_on(site, delivered, &[]).await;
}

pub(crate) async fn up_stops_in_any_weather_and_while_it_migrates_or_declares() {
    let _servers = shared().await;
    let database = |mode: Mode| {
        move |site: &Site, on: bool| site.to_database.set(if on { mode } else { Mode::Open })
    };
    let broker = |mode: Mode| {
        move |site: &Site, on: bool| site.to_broker.set(if on { mode } else { Mode::Open })
    };
    let slow = Mode::Slow(Duration::from_secs(30));
    tokio::join!(
        up_stops("in mid-batch", Shape::Embedded, database(slow), true),
        up_stops(
            "without a database",
            Shape::Embedded,
            database(Mode::Gone),
            true
        ),
        up_stops(
            "while migrating on a mute database",
            Shape::Embedded,
            database(Mode::Mute),
            false
        ),
        up_stops(
            "waiting for a database",
            Shape::Embedded,
            database(Mode::Gone),
            false
        ),
        up_stops("without a broker", Shape::Up, broker(Mode::Gone), true),
        up_stops(
            "while declaring on a silent broker",
            Shape::Up,
            broker(Mode::Silent),
            false
        ),
        up_stops_while_another_migrates(),
    );
}

async fn up_stops_while_another_migrates() {
    let db = TestDb::postgres().await;
    let url = db.url.clone();
    let other = clerk_sync_projection::database::connect(&url, 1)
        .await
        .unwrap();
    let lock = i64::from_be_bytes(*b"clrksync");
    let hold = format!("SELECT pg_advisory_lock({lock})");
    patiently(async || other.execute_unprepared(&hold).await).await;
    let mut site = Site::open_in(Plan::on(db, Shape::Embedded), |_| {}).await;
    eventually("it waits for the other", SOON, async || {
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        site.db.count(waiting).await > 0
    })
    .await;
    let delivered = some_events(&site, 10).await;
    members_stop(&mut site, 0, "while another migrates").await;
    other.close().await.unwrap();
    site.restart_member(0).await;
    goes_on(site, delivered, &[]).await;
}
