//! The broker, and the way to it.

use std::time::Duration;

use lapin::{BasicProperties, options::BasicPublishOptions};
use tokio::time::{sleep, sleep_until};

use crate::{
    harness::{
        SOON,
        clerk::{Letter, created},
        eventually,
        process::run,
        proxy::Mode,
        servers::{TestDb, rabbitmqctl},
    },
    load::{Load, some_events},
    site::{Plan, Shape, Site, alone, broker_alone, services, shared},
    stop::stops,
    watch::{Outage, Shown},
};

/// What a process says of the broker.
const QUEUE: &[&str] = &["queue_publish", "queue_consume", "queue_retry"];

/// The heartbeat is 10 s, and a link is given up after two without a word; then time to say so.
const TWO_HEARTBEATS: Duration = Duration::from_secs(30);

/// How long the broker is away. `WEATHER_BROKER_AWAY=300` for once, by hand.
fn broker_away() -> Duration {
    let seconds = std::env::var("WEATHER_BROKER_AWAY").map_or(90, |text| text.parse().unwrap());
    Duration::from_secs(seconds)
}

pub(crate) async fn a_broker_restarted_and_killed_under_load_costs_no_event() {
    // The tables are a file, so that who breaks the database server can do so meanwhile.
    let _broker = broker_alone().await;
    let db = TestDb::sqlite().await.migrated().await;
    let plan = Plan::on(db, Shape::Apart { workers: 2 }).direct();
    let site = Site::open(plan.with("WORKER_LANES", "1")).await;
    let load = Load::start(&site.url(), 40);
    let mut outages = Vec::new();
    for end in ["stop", "kill"] {
        sleep(Duration::from_secs(2)).await;
        let outage = Outage::begins(QUEUE, &[]);
        services(&[end, "rabbitmq"]).await;
        site.shows(503).await;
        outages.push(outage.over());
        services(&["start", "rabbitmq"]).await;
        site.shows(200).await;
    }
    let delivered = load.delivered().await;
    assert!(delivered.repeated > 0, "nobody felt it");
    site.told(&outages).await;
    site.audit(&delivered).await;
}

pub(crate) async fn a_broker_away_for_minutes_costs_no_event() {
    let _servers = shared().await;
    let site = Site::open(Plan::new(Shape::Apart { workers: 1 }).await).await;
    let load = Load::start(&site.url(), 20);
    sleep(Duration::from_secs(2)).await;
    let outage = Outage::begins(QUEUE, &["refused"]);
    site.to_broker.set(Mode::Gone);
    site.from_broker.set(Mode::Gone);
    sleep(broker_away()).await;
    site.to_broker.set(Mode::Open);
    site.from_broker.set(Mode::Open);
    let outage = outage.over();
    site.shows(200).await;
    let delivered = load.delivered().await;
    site.told(&[outage]).await;
    site.audit(&delivered).await;
}

/// Nobody publishes meanwhile, so that nothing but the heartbeat can notice.
pub(crate) async fn a_connection_that_goes_silent_is_left_within_two_heartbeats() {
    let _servers = shared().await;
    let site = Site::open(Plan::new(Shape::Apart { workers: 1 }).await).await;
    let before = some_events(&site, 20).await;
    site.applied(&before.ids).await;

    // Forgotten by a firewall: what is connected hears nothing for ever, who connects is served.
    let first = Outage {
        shown: Shown::Perhaps,
        ..Outage::begins(QUEUE, &[])
    };
    site.to_broker.strand();
    site.from_broker.strand();
    // By hand, as the ingester is to stay idle: the consumer must not stay silent.
    let by_hand = created("user_by_hand", "by.hand@a.example");
    publish(&site, &by_hand).await;
    site.applied(&[by_hand.id.clone()].into()).await;
    let first = Outage {
        until: first.from + TWO_HEARTBEATS,
        ..first
    };
    sleep_until(first.until).await;
    site.shows(200).await;
    let afterwards = some_events(&site, 20).await;
    assert_eq!(afterwards.repeated, 0, "the ingester has left it too");

    // Cut: who connects is not heard either.
    let second = Outage {
        noticed: TWO_HEARTBEATS,
        ..Outage::begins(QUEUE, &["heartbeat"])
    };
    site.to_broker.set(Mode::Silent);
    site.from_broker.set(Mode::Silent);
    site.shows(503).await;
    let load = Load::start(&site.url(), 20);
    sleep(Duration::from_secs(10)).await;
    site.to_broker.set(Mode::Open);
    site.from_broker.set(Mode::Open);
    let second = second.over();
    site.shows(200).await;

    let mut delivered = load.delivered().await;
    delivered.merge(before);
    delivered.merge(afterwards);
    delivered.ids.insert(by_hand.id);
    let row = ("user_by_hand", "by.hand@a.example", Some("U 0"));
    delivered.add_row(row);
    site.told(&[first, second]).await;
    site.audit(&delivered).await;
}

pub(crate) async fn a_queue_deleted_and_set_up_again_is_consumed_again() {
    let _servers = shared().await;
    let site = Site::open(Plan::new(Shape::Apart { workers: 1 }).await).await;
    let before = some_events(&site, 30).await;
    site.applied(&before.ids).await;
    let topology = site.topology().clone();
    let queue = site.queue.as_ref().unwrap();
    let (_connection, channel) = queue.channel().await;

    // The ingester has nothing to tell of: it refuses nothing.
    let outage = Outage::begins(&["queue_consume"], &["clerk-sync setup"]);
    channel
        .queue_delete(topology.apply().into(), Default::default())
        .await
        .unwrap();
    site.workers()[0].watch.shows(503).await;
    // No queue, and still nothing is refused or lost: the alternate exchange keeps it.
    let meanwhile = some_events(&site, 30).await;
    assert_eq!(meanwhile.repeated, 0);
    let kept = queue.depth(&topology.unrouted()).await;

    let (status, _, stderr) = run("clerk-sync", &["setup"], &site.queue_env()).await;
    assert!(status.success(), "{stderr}");
    let outage = outage.over();
    site.workers()[0].watch.shows(200).await;
    let after = some_events(&site, 30).await;
    site.applied(&after.ids).await;

    let queue = site.queue.as_ref().unwrap();
    assert_eq!(queue.depth(&topology.unrouted()).await, kept, "still kept");
    let unrouted = queue.drain(&topology.unrouted()).await;
    let ids: std::collections::HashSet<_> =
        unrouted.iter().filter_map(|kept| kept.id.clone()).collect();
    assert_eq!(ids, meanwhile.ids, "each of them");
    // As an operator moves them back.
    for kept in unrouted {
        publish(
            &site,
            &Letter {
                id: kept.id.unwrap(),
                body: kept.body,
            },
        )
        .await;
    }
    site.told(&[outage]).await;
    let mut delivered = before;
    delivered.merge(meanwhile);
    delivered.merge(after);
    site.audit(&delivered).await;
}

/// An alarm stops whoever publishes. A worker with failed events to move on is such a publisher;
/// what it applies and acknowledges all the while is what ends the alarm. And it must not keep a
/// worker that is to stop.
pub(crate) async fn under_a_broker_alarm_failed_events_wait_others_are_applied_and_workers_stop() {
    let _servers = alone().await;
    let plan = Plan::new(Shape::Apart { workers: 2 }).await;
    let plan = plan.with("BATCH_EVENTS", "10");
    plan.db
        .execute(
            "INSERT INTO users (id, \"clerkId\", email, \"updatedAt\") \
             SELECT 'theirs' || n, 'by hand ' || n, 'taken' || n || '@a.example', now() \
             FROM generate_series(1, 20) n",
        )
        .await;
    let mut site = Site::open(plan).await;
    let topology = site.topology().clone();
    let alarm = Outage {
        shown: Shown::AtTimes,
        ..Outage::begins(&["queue_retry", "database", "apply"], &["alarm"])
    };
    // A backlog, with events that fail all along it.
    site.to_database.set(Mode::Gone);
    let mut refused = Vec::new();
    let mut fine = some_events(&site, 40).await;
    for n in 1..=20 {
        let claim = created(&format!("user_claim_{n}"), &format!("taken{n}@a.example"));
        publish(&site, &claim).await;
        refused.push(claim);
        fine.merge(some_events(&site, 1).await);
    }
    rabbitmqctl(&["set_vm_memory_high_watermark", "0.00001"]).await;
    site.to_database.set(Mode::Open);
    for worker in site.workers() {
        worker.watch.tells("alarm").await;
    }
    site.applied(&fine.ids).await;
    eventually("all but what failed is acknowledged", SOON, async || {
        site.messages(&topology.apply()).await == refused.len()
    })
    .await;
    let queue = site.queue.as_ref().unwrap();
    assert_eq!(
        queue
            .depth(&topology.rung(clerk_sync_pipeline::queue::Rung(0)))
            .await,
        0
    );

    let mut stopped = site.members.remove(1);
    stops(&mut stopped.process, "under an alarm").await;

    rabbitmqctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    let alarm = alarm.over();
    site.shows(200).await;
    let worker = &site.workers()[0];
    eventually("what failed climbs the ladder", SOON, async || {
        worker
            .process
            .metric("clerk_sync_retries_total", "email_taken")
            .await
            >= 40.0
    })
    .await;
    // Its owners give the addresses up.
    site.db
        .execute("DELETE FROM users WHERE id LIKE 'theirs%'")
        .await;
    for (n, claim) in refused.into_iter().enumerate() {
        let email = format!("taken{}@a.example", n + 1);
        fine.ids.insert(claim.id);
        fine.add_row((&format!("user_claim_{}", n + 1), &email, Some("U 0")));
    }
    site.told(&[alarm]).await;
    site.audit_with_retries(&fine).await;
}

/// RabbitMQ closes the channel of a consumer that owes an acknowledgement for too long.
pub(crate) async fn a_batch_held_beyond_the_consumer_timeout_is_applied_once() {
    // Only this test's channels are to have it: no other is opened meanwhile.
    let servers = alone().await;
    // The first is read by each channel when it is opened, the second whenever it has looked.
    let set = |name: &str, value: &str| {
        let command = format!("application:set_env(rabbit, {name}, {value}).");
        async move { rabbitmqctl(&["eval", &command]).await }
    };
    set("consumer_timeout", "8000").await;
    set("channel_tick_interval", "1000").await;
    let plan = Plan::new(Shape::Apart { workers: 1 }).await;
    let plan = plan.with("RUST_LOG", "info,clerk_sync_pipeline=debug");
    let site = Site::open(plan).await;
    set("consumer_timeout", "1800000").await;
    let _servers = (servers.0.downgrade(), servers.1.downgrade());

    let before = some_events(&site, 10).await;
    site.applied(&before.ids).await;
    let outage = Outage {
        shown: Shown::AtTimes,
        ..Outage::begins(&["database", "apply", "queue_consume", "queue_retry"], &[])
    };
    site.to_database.set(Mode::Mute);
    let held = some_events(&site, 30).await;
    let worker = &site.workers()[0];
    eventually("the broker loses its patience", SOON, async || {
        worker.said("the broker closed a channel") > 0
    })
    .await;
    let pauses = worker.said("consumption pauses");
    assert_eq!(pauses, 0, "handed back before");
    set("channel_tick_interval", "60000").await;
    site.to_database.set(Mode::Open);
    let outage = outage.over();
    site.applied(&held.ids).await;
    let after = some_events(&site, 30).await;
    let mut delivered = before;
    delivered.merge(held);
    delivered.merge(after);
    site.shows(200).await;
    site.told(&[outage]).await;
    site.audit(&delivered).await;
}

/// Into the exchange, past the ingester.
async fn publish(site: &Site, letter: &Letter) {
    let queue = site.queue.as_ref().unwrap();
    let (_connection, channel) = queue.channel().await;
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_message_id(letter.id.as_str().into())
        .with_type("user.created".into());
    channel
        .basic_publish(
            site.topology().events().into(),
            "user.created".into(),
            BasicPublishOptions::default(),
            &letter.body,
            properties,
        )
        .await
        .unwrap();
    channel.close(200, "done".into()).await.unwrap();
}
