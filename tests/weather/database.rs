//! The database, and the way to it.

use std::time::Duration;

use clerk_sync_projection::database;
use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use tokio::time::sleep;

use crate::{
    harness::{
        SOON,
        clerk::{created, updated},
        eventually,
        proxy::Mode,
        servers::{TestDb, patiently},
    },
    load::{Load, deliver_letter, some_events},
    site::{Plan, Shape, Site, database_alone, services, shared},
    watch::{Outage, Shown},
};

/// What a process says of the database.
const DATABASE: &[&str] = &["database", "apply"];

fn outage(causes: &'static [&'static str]) -> Outage {
    Outage::begins(DATABASE, causes)
}

/// How often consumption paused: each time, all that was prefetched has one hand-out less left.
fn pauses(site: &Site) -> usize {
    let workers = site.workers().iter();
    workers
        .map(|worker| worker.said("consumption pauses"))
        .sum()
}

pub(crate) async fn a_database_restarted_and_killed_under_load_costs_no_event() {
    // The queue is a file, so that who breaks the broker can do so meanwhile.
    let _database = database_alone().await;
    let site = Site::open(Plan::new(Shape::Embedded).await.direct()).await;
    let load = Load::start(&site.url(), 40);
    let mut outages = Vec::new();
    for end in ["stop", "kill"] {
        sleep(Duration::from_secs(2)).await;
        let outage = outage(&["refused"]);
        services(&[end, "postgres"]).await;
        site.shows(503).await;
        sleep(Duration::from_secs(3)).await;
        outages.push(outage.over());
        services(&["start", "postgres"]).await;
        site.shows(200).await;
    }
    let delivered = load.delivered().await;
    assert_eq!(delivered.repeated, 0, "ingest does not feel it");
    site.told(&outages).await;
    site.audit(&delivered).await;
}

/// As when a migration, a dashboard and a deployment meet: the server answers, and has no
/// connection to give.
pub(crate) async fn a_database_out_of_connections_is_waited_for() {
    let _servers = shared().await;
    // The limit does not hold a superuser, as the test's own role is one.
    let db = TestDb::postgres().await;
    let role = db.ordinary_role().await;
    let url = role.of(&db.url);
    let owner = database::connect(&url, 1).await.unwrap();
    let migrate = async || match clerk_sync_migration::up(&owner).await {
        Err(clerk_sync_migration::MigrateError::Database(error)) => Err(error),
        result => Ok(result.unwrap()),
    };
    patiently(migrate).await;
    owner.close().await.unwrap();
    let plan = Plan::on(db, Shape::Apart { workers: 1 });
    let site = Site::open(plan.with_database(url)).await;
    let load = Load::start(&site.url(), 20);
    sleep(Duration::from_secs(2)).await;
    let outage = outage(&["too many connections"]);
    site.db.limit_connections(Some(0)).await;
    sleep(Duration::from_secs(40)).await;
    // The second lane gets its first delivery when the first lane is full, so its patience may last
    // longer than this.
    let pauses = pauses(&site);
    assert!(
        (1..=2).contains(&pauses),
        "a lane handed back once: {pauses} pauses"
    );
    site.db.limit_connections(None).await;
    let outage = outage.over();
    site.shows(200).await;
    let delivered = load.delivered().await;
    site.told(&[outage]).await;
    site.audit(&delivered).await;
    role.remove().await;
}

/// Each answer takes 30 s, so no transaction ends within its 20.
pub(crate) async fn a_database_that_answers_slowly_burns_no_delivery() {
    let _servers = shared().await;
    let site = Site::open(Plan::new(Shape::Apart { workers: 1 }).await).await;
    let load = Load::start(&site.url(), 20);
    sleep(Duration::from_secs(2)).await;
    let outage = Outage {
        shown: Shown::AtTimes,
        ..outage(&["no answer in"])
    };
    site.to_database.set(Mode::Slow(Duration::from_secs(30)));
    sleep(Duration::from_secs(100)).await;
    assert!(pauses(&site) <= 2, "each lane handed back once at most");
    site.to_database.set(Mode::Open);
    let outage = outage.over();
    site.shows(200).await;
    let delivered = load.delivered().await;
    site.told(&[outage]).await;
    site.audit(&delivered).await;
}

pub(crate) async fn sessions_killed_again_and_again_cost_no_event() {
    let _servers = shared().await;
    let site = Site::open(Plan::new(Shape::Apart { workers: 2 }).await).await;
    let load = Load::start(&site.url(), 40);
    let outage = Outage {
        shown: Shown::AtTimes,
        ..outage(&[])
    };
    for _ in 0..40 {
        sleep(Duration::from_millis(250)).await;
        site.db.end_sessions().await;
    }
    let outage = outage.over();
    let delivered = load.delivered().await;
    site.shows(200).await;
    site.told_at_most(&[outage]).await;
    assert_eq!(pauses(&site), 0, "a transaction fits between two kills");
    site.audit(&delivered).await;
}

/// Somebody's open transaction holds one user's row, for longer than any patience of ours.
pub(crate) async fn a_row_that_somebody_holds_delays_its_user_and_nobody_else() {
    let _servers = shared().await;
    let site = Site::open(Plan::new(Shape::Apart { workers: 1 }).await).await;
    let held = created("user_held", "held@a.example");
    deliver_letter(&site, &held).await;
    let mut delivered = some_events(&site, 10).await;
    delivered.ids.insert(held.id.clone());
    site.applied(&delivered.ids).await;

    let somebody = database::connect(&site.db.url, 1).await.unwrap();
    let transaction = patiently(async || somebody.begin().await).await;
    let hold = "UPDATE users SET name = name WHERE \"clerkId\" = 'user_held'";
    transaction.execute_unprepared(hold).await.unwrap();
    let events: Vec<_> = (1..=10)
        .map(|n| updated("user_held", "held@a.example", n))
        .collect();
    let load = Load::start(&site.url(), 20);
    for event in &events {
        deliver_letter(&site, event).await;
        delivered.ids.insert(event.id.clone());
    }
    sleep(Duration::from_secs(45)).await;
    // Those that came meanwhile are applied while the row is still held.
    let neighbours = load.delivered().await;
    site.applied(&neighbours.ids).await;
    assert_eq!(pauses(&site), 0, "no lane gave up");
    let worker = &site.workers()[0].process;
    let retries = async |reason| worker.metric("clerk_sync_retries_total", reason).await;
    // In this order: it is postponed again between two looks.
    let all = retries("").await;
    let postponed = retries("row_locked").await;
    assert!(postponed > 0.5, "nothing was postponed");
    assert!(all <= postponed, "retried for another reason");

    transaction.rollback().await.unwrap();
    somebody.close().await.unwrap();
    delivered.merge(neighbours);
    delivered.add_row(("user_held", "held@a.example", Some("U 10")));
    eventually("the user is up to date", SOON, async || {
        let now = "SELECT count(*) FROM users WHERE \"clerkId\" = 'user_held' AND name = 'U 10'";
        site.db.count(now).await == 1
    })
    .await;
    site.told(&[]).await;
    site.audit_with_retries(&delivered).await;
}
