//! Every query of ours, against a pipeline that lives through what they are there for.

use std::{collections::BTreeSet, time::Duration};

use lapin::{BasicProperties, options::BasicPublishOptions};
use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use tokio::time::{Instant, sleep};

use super::{
    dashboards,
    prometheus::Prometheus,
    rules, runbooks,
    site::{NEXT_SECRET, Site, rabbitmqctl},
};
use crate::harness::{SOON, clerk::SECRET, eventually, wire::Wire};

/// Grafana's `$__rate_interval`, for a Prometheus that looks each second.
const WINDOW: &str = "10s";
/// Longer than a lane's patience (30 s): it pauses.
const TABLE_HELD: Duration = Duration::from_secs(36);
/// RabbitMQ counts every five seconds.
const COUNTED: Duration = Duration::from_secs(7);

/// What must have fired in all that: the conditions were there, and their alerts wait for nothing.
const FIRED: [&str; 3] = [
    "ClerkSyncDeadLetters",
    "ClerkSyncDrift",
    "ClerkSyncBrokerAlarm",
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the broker and the Prometheus of scripts/test-watch, which runs it"]
async fn every_query_of_rules_dashboards_and_runbooks_has_an_answer() {
    let rabbitmq = std::env::var("RABBITMQ_METRICS").expect("scripts/test-watch sets it");
    let mut site = Site::start().await;
    let targets = site.targets(rabbitmq.parse().unwrap()).await;
    let prometheus = Prometheus::start(&targets).await;
    let began = Instant::now();
    // A rate needs two looks before something happens.
    sleep(Duration::from_secs(3)).await;

    everyday(&mut site).await;
    tokio::join!(a_table_is_held(&site), hard_times(&site));
    an_unrouted_message(&site).await;
    worker_dies(&mut site).await;
    everyday(&mut site).await;
    sleep(COUNTED).await;

    let lasted = began.elapsed() + Duration::from_secs(1);
    let mut problems = panels(&prometheus, lasted).await;
    problems.extend(queries(&prometheus, lasted).await);
    for rule in prometheus.broken_rules().await {
        problems.push(format!("rule: {rule}"));
    }
    for alert in FIRED {
        if !prometheus.has_fired(alert).await {
            problems.push(format!("{alert} has not fired"));
        }
    }
    let log = prometheus.log();
    assert!(problems.is_empty(), "{}\n{log}", problems.join("\n"));
    site.stop().await;
}

/// What a pipeline sees on any day: everything that can become of an event.
async fn everyday(site: &mut Site) {
    // A row of the application's own has the address of somebody who signs up: retried, then dead.
    let taken = format!("taken{}@a.example", rand::random::<u32>());
    site.db
        .execute(&format!(
            r#"INSERT INTO users (id, "clerkId", email, "updatedAt")
               VALUES ('{taken}', '{taken}', '{taken}', '2026-01-01 00:00:00')"#
        ))
        .await;
    let refused = site.letter("user.created", &taken);
    assert_eq!(site.post(&refused).await, 204);
    // An address moves; one event comes twice.
    let moved = format!("moved{}@a.example", rand::random::<u32>());
    for _ in 0..2 {
        let claim = site.letter("user.created", &moved);
        for _ in 0..2 {
            assert_eq!(site.post(&claim).await, 204);
        }
    }
    // Samples: of all types, without an address, and of long ago.
    let samples = [
        "--all",
        "--count",
        "200",
        "--shuffle",
        "--duplicate",
        "20",
        "--rate",
        "50",
    ];
    site.send(SECRET, &samples).await;
    site.send(NEXT_SECRET, &["--all", "--count", "20"]).await;
    for spoil in ["--tamper", "--stale"] {
        site.send(SECRET, &["--all", "--count", "20", spoil]).await;
    }
    for _ in 0..50 {
        let created = site.letter(
            "user.created",
            &format!("{}@a.example", rand::random::<u64>()),
        );
        assert_eq!(site.post(&created).await, 204);
        sleep(Duration::from_millis(40)).await;
    }
    for _ in 0..3 {
        site.visit().await;
        sleep(Duration::from_millis(500)).await;
    }
    for (outcome, at_least) in [
        ("created", 50.0),
        ("updated", 1.0),
        ("deleted", 1.0),
        ("stale", 1.0),
        ("duplicate", 1.0),
        ("ignored", 1.0),
        ("retried", 1.0),
        ("dead_lettered", 1.0),
    ] {
        site.outcomes(&format!("outcome=\"{outcome}\""), at_least)
            .await;
    }
}

/// Somebody holds the table, as a careless migration does: batches wait, then lanes pause.
async fn a_table_is_held(site: &Site) {
    let holding = site.db.db.begin().await.unwrap();
    holding
        .execute_unprepared("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    sleep(TABLE_HELD).await;
    holding.rollback().await.unwrap();
}

/// Meanwhile: slow senders, webhooks that pile up, and a broker that holds an alarm.
async fn hard_times(site: &Site) {
    let piling = async {
        for number in 0..300 {
            let id = format!("user_wait_{number}");
            let letter = site.letter_of("user.updated", &id, &format!("{id}@a.example"));
            // 503 while the broker holds its alarm.
            assert!(matches!(site.post(&letter).await, 204 | 503));
            sleep(Duration::from_millis(80)).await;
        }
    };
    let alarm = async {
        sleep(Duration::from_secs(10)).await;
        rabbitmqctl(&["set_vm_memory_high_watermark", "absolute", "1MB"]).await;
        sleep(COUNTED).await;
        rabbitmqctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    };
    tokio::join!(piling, alarm, slow_senders(site));
}

/// Requests whose body does not come.
async fn slow_senders(site: &Site) {
    let address = site.ingest.address("LISTEN").await;
    let letter = site.letter_of("user.created", "user_slow", "slow@a.example");
    let at = crate::harness::clerk::now();
    let signature = crate::harness::clerk::sign(&letter.id, at, &letter.body);
    let head = format!(
        "POST /api/webhooks/clerk HTTP/1.1\r\nhost: a\r\nsvix-id: {}\r\nsvix-timestamp: {at}\r\n\
         svix-signature: {signature}\r\ncontent-length: {}\r\n\r\n",
        letter.id,
        letter.body.len()
    );
    let mut wires = Vec::new();
    for _ in 0..5 {
        let mut wire = Wire::connect(address).await;
        assert!(wire.send(head.as_bytes()).await);
        wires.push(wire);
    }
    for mut wire in wires {
        wire.until_closed().await;
    }
}

/// A message that names a queue nobody has, by another client of the broker.
async fn an_unrouted_message(site: &Site) {
    let (_connection, channel) = site.queue.channel().await;
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    let published = channel.basic_publish("".into(), "nobody".into(), options, b"{}", properties);
    published.await.unwrap();
}

/// A worker is killed with deliveries in hand, and is gone.
async fn worker_dies(site: &mut Site) {
    eventually("all is applied", SOON, async || {
        site.queue.depth("clerk.apply").await == 0
    })
    .await;
    let holding = site.db.db.begin().await.unwrap();
    let lock = "LOCK TABLE users IN ACCESS EXCLUSIVE MODE";
    holding.execute_unprepared(lock).await.unwrap();
    for _ in 0..20 {
        let letter = site.letter(
            "user.created",
            &format!("{}@a.example", rand::random::<u64>()),
        );
        assert_eq!(site.post(&letter).await, 204);
    }
    sleep(Duration::from_secs(1)).await;
    site.workers.remove(0).kill().await;
    sleep(Duration::from_secs(2)).await;
    holding.rollback().await.unwrap();
}

/// Panels without a number, or without any but 0: nobody would see whether they are right.
async fn panels(prometheus: &Prometheus, lasted: Duration) -> Vec<String> {
    let mut problems = Vec::new();
    let mut asked = 0;
    for panel in dashboards::panels() {
        let mut largest = f64::NEG_INFINITY;
        for query in panel.queries(WINDOW) {
            asked += 1;
            match prometheus.draw(&query, lasted).await {
                Ok(answer) if answer.values.is_empty() => {
                    problems.push(format!("{}: empty: {query}", panel.name));
                }
                Ok(answer) => largest = largest.max(answer.largest()),
                Err(error) => problems.push(format!("{}: {error}: {query}", panel.name)),
            }
        }
        if largest <= 0.0 {
            problems.push(format!("{}: never above 0", panel.name));
        }
    }
    println!("{asked} queries of panels");
    problems
}

/// Everything else that is asked: rules, annotations, runbooks.
async fn queries(prometheus: &Prometheus, lasted: Duration) -> Vec<String> {
    let mut problems = Vec::new();
    let mut needed: Vec<(String, String)> = Vec::new();
    for record in rules::records() {
        needed.push((record.name.clone(), record.name));
    }
    let mut selectors = BTreeSet::new();
    for alert in rules::alerts() {
        // An alert may be silent, but it must be a query, of series that are there.
        if let Err(error) = prometheus.ask(&alert.expr).await {
            problems.push(format!("{}: {error}", alert.name));
        }
        for selector in selectors_of(&alert.expr) {
            selectors.insert((alert.name.clone(), selector));
        }
    }
    for record in rules::records() {
        for selector in selectors_of(&record.expr) {
            selectors.insert((record.name.clone(), selector));
        }
    }
    needed.extend(selectors);
    for query in runbooks::queries() {
        needed.push(("a runbook".to_owned(), query));
    }
    for query in dashboards::annotations() {
        if let Err(error) = prometheus.ask(&query).await {
            problems.push(format!("an annotation: {error}: {query}"));
        }
    }
    println!("{} queries of rules and runbooks", needed.len());
    for (who, query) in needed {
        match prometheus.draw(&query, lasted).await {
            Ok(answer) if answer.values.is_empty() => {
                problems.push(format!("{who}: empty: {query}"));
            }
            Ok(_) => {}
            Err(error) => problems.push(format!("{who}: {error}: {query}")),
        }
    }
    problems
}

/// The series that an expression is made of: `name`, `name{…}` and `{…}`, without windows and
/// offsets.
fn selectors_of(expr: &str) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = expr;
    while let Some(start) = rest.find(|c| is_name(c) || c == '{') {
        let after = &rest[start..];
        let end = after.find(|c| !is_name(c)).unwrap_or(after.len());
        let (name, mut tail) = after.split_at(end);
        let mut labels = "";
        if tail.starts_with('{') {
            // No label of ours has a brace in its value.
            (labels, tail) = tail.split_at(tail.find('}').unwrap() + 1);
        }
        let ours = ["clerk_sync", "rabbitmq_", "process_"];
        if name == "up" || name.is_empty() || ours.iter().any(|prefix| name.starts_with(prefix)) {
            found.push(format!("{name}{labels}"));
        }
        rest = tail;
    }
    found
}

#[test]
fn the_series_of_an_expression_are_found() {
    let expr = r#"sum by (job) (rate(process_x{a="b(c)",d=~"e"}[5m] offset 1d)) > clerk_sync:y"#;
    let series = [r#"process_x{a="b(c)",d=~"e"}"#, "clerk_sync:y"];
    assert_eq!(selectors_of(expr), series);
    assert_eq!(selectors_of("absent(up == 1) and on (namespace) 3"), ["up"]);
    let named = r#"max({__name__=~"rabbitmq_a|b"}) > 0"#;
    assert_eq!(selectors_of(named), [r#"{__name__=~"rabbitmq_a|b"}"#]);
}
