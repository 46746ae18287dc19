//! Everything at once.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    harness::servers::TestDb,
    load::Load,
    site::{Plan, Shape, Site, alone, services},
    watch::Outage,
};

pub(crate) async fn both_servers_gone_and_back_in_either_order_cost_no_event() {
    let _servers = alone().await;
    let site = Site::open(Plan::new(Shape::Apart { workers: 2 }).await.direct()).await;
    let load = Load::start(&site.url(), 40);
    let mut outages = Vec::new();
    for order in [["postgres", "rabbitmq"], ["rabbitmq", "postgres"]] {
        sleep(Duration::from_secs(2)).await;
        let queue = Outage::begins(&["queue_publish", "queue_consume", "queue_retry"], &[]);
        let database = Outage::begins(&["database", "apply"], &["refused"]);
        tokio::join!(
            services(&["stop", "rabbitmq"]),
            services(&["kill", "postgres"])
        );
        site.shows(503).await;
        let mut both = [queue, database];
        for back in order {
            // Over as soon as it is being mended: it answers before who started it has seen so.
            let of = usize::from(back == "postgres");
            both[of] = both[of].clone().over();
            services(&["start", back]).await;
            sleep(Duration::from_secs(2)).await;
        }
        site.shows(200).await;
        outages.extend(both);
    }
    let delivered = load.delivered().await;
    site.told(&outages).await;
    site.audit(&delivered).await;
}

pub(crate) async fn kill_9_of_everything_at_the_same_moment_costs_no_event() {
    let _servers = alone().await;
    let mut site = Site::open(Plan::new(Shape::Apart { workers: 2 }).await.direct()).await;
    let load = Load::start(&site.url(), 80);
    for _ in 0..2 {
        sleep(Duration::from_secs(3)).await;
        tokio::join!(
            site.kill(),
            services(&["kill", "rabbitmq"]),
            services(&["kill", "postgres"])
        );
        tokio::join!(
            services(&["start", "rabbitmq"]),
            services(&["start", "postgres"])
        );
        site.restart().await;
    }
    sleep(Duration::from_secs(2)).await;
    let delivered = load.delivered().await;
    assert!(delivered.repeated > 0);
    site.told(&[]).await;
    site.audit(&delivered).await;
}

pub(crate) async fn kill_9_of_the_embedded_process_under_load_costs_no_event() {
    let db = TestDb::sqlite().await;
    let mut site = Site::open(Plan::on(db, Shape::Embedded)).await;
    let load = Load::start(&site.url(), 60);
    for round in 0..6 {
        sleep(Duration::from_millis(700 + 150 * round)).await;
        site.kill().await;
        site.restart().await;
    }
    let delivered = load.delivered().await;
    site.told(&[]).await;
    site.audit(&delivered).await;
}
