//! The broker, and the way to it.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    harness::proxy::Mode,
    load::Load,
    site::{Plan, Shape, Site, alone, services, shared},
    watch::Outage,
};

/// What a process says of the broker.
const QUEUE: &[&str] = &["queue_publish", "queue_consume", "queue_retry"];

/// How long the broker is away. `WEATHER_BROKER_AWAY=300` for once, by hand.
fn broker_away() -> Duration {
    let seconds = std::env::var("WEATHER_BROKER_AWAY").map_or(90, |text| text.parse().unwrap());
    Duration::from_secs(seconds)
}

pub(crate) async fn a_broker_restarted_and_killed_under_load_costs_no_event() {
    let _servers = alone().await;
    let plan = Plan::new(Shape::Apart { workers: 2 }).await.direct();
    let site = Site::open(plan).await;
    let load = Load::start(&site.url(), 40);
    let mut outages = Vec::new();
    for end in ["stop", "kill"] {
        sleep(Duration::from_secs(2)).await;
        let outage = Outage::begins(QUEUE, &[]);
        services(&[end, "rabbitmq"]).await;
        site.shows(503).await;
        services(&["start", "rabbitmq"]).await;
        outages.push(outage.over());
        site.shows(200).await;
    }
    let delivered = load.delivered().await;
    assert!(delivered.repeated > 0, "nobody felt it");
    site.told(&outages);
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
    site.told(&[outage]);
    site.audit(&delivered).await;
}
