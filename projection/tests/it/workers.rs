//! Several workers on one database.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use clerk_sync_pipeline::{Event, telemetry::Outcome};
use clerk_sync_projection::{Projection, ProjectionConfig, Verdict, database};
use sea_orm::{ConnectionTrait as _, Statement};
use tokio::task::JoinSet;

use crate::{
    clerk::user,
    database::{Db, metrics},
};

/// How often a worker takes a batch again that lost all its races.
const PATIENCE: usize = 20;

on_both_databases! {
    one_delivery_at_eight_workers_is_applied_once,
    one_address_claimed_by_eight_workers_is_the_newest_claimants,
}

/// Applies the batches by so many workers at once, each taking the next. Returns every event's id
/// with its verdict.
pub(crate) async fn work(
    projection: &Projection,
    batches: Vec<Vec<Event>>,
    workers: usize,
) -> Vec<(String, Verdict)> {
    let batches = Arc::new(Mutex::new(VecDeque::from(batches)));
    let mut running = JoinSet::new();
    for _ in 0..workers {
        let (projection, batches) = (projection.clone(), batches.clone());
        running.spawn(async move {
            let mut told = Vec::new();
            loop {
                let Some(events) = batches.lock().unwrap().pop_front() else {
                    return told;
                };
                let verdicts = patiently(&projection, &events).await;
                let ids = events.into_iter().map(|event| event.id.to_string());
                told.extend(ids.zip(verdicts));
            }
        });
    }
    running.join_all().await.concat()
}

async fn patiently(projection: &Projection, events: &[Event]) -> Vec<Verdict> {
    let mut batch = projection.read(events);
    let mut last = None;
    for _ in 0..PATIENCE {
        match projection.apply(&mut batch).await {
            Ok(()) => {
                let verdicts = batch.into_verdicts().into_iter();
                return verdicts.map(|(verdict, _)| verdict).collect();
            }
            Err(weather) => last = Some(weather),
        }
    }
    panic!("no progress in {PATIENCE} tries: {last:?}");
}

/// Every event was applied, and each of them once.
pub(crate) fn each_is_applied_once(told: &[(String, Verdict)]) {
    let mut applied: BTreeMap<&str, usize> = BTreeMap::new();
    for (id, verdict) in told {
        let times = applied.entry(id).or_default();
        match verdict {
            Verdict::Applied(Outcome::Duplicate) => {}
            Verdict::Applied(_) => *times += 1,
            failed => panic!("{id}: {failed:?}"),
        }
    }
    for (id, times) in applied {
        assert_eq!(times, 1, "{id} was applied {times} times");
    }
}

async fn one_delivery_at_eight_workers_is_applied_once(db: &Db) {
    let projection = db.configured(ProjectionConfig {
        initial_credits: 5,
        ..ProjectionConfig::default()
    });
    for round in 0..10 {
        let created = user(&format!("{round}")).created(&format!("m{round}"));
        let told = work(&projection, vec![vec![created]; 8], 8).await;
        each_is_applied_once(&told);
    }
    assert_eq!(db.rows().await.len(), 10);
    assert_eq!(db.credits().await.len(), 10);
}

async fn one_address_claimed_by_eight_workers_is_the_newest_claimants(db: &Db) {
    for round in 0..5 {
        let email = format!("shared{round}@a.example");
        let claimants: Vec<_> = (0..8)
            .map(|n| user(&format!("{round}{n}")).email(&email).at((n + 3) % 8))
            .collect();
        let batches = claimants
            .iter()
            .map(|user| vec![user.created(&format!("m{}", user.id()))]);
        let told = work(&db.projection(), batches.collect(), 8).await;
        each_is_applied_once(&told);
        let mut holders = db.users().await;
        holders.retain(|user| user.email == email);
        assert_eq!(holders.len(), 1);
        assert_eq!(
            holders[0].clerk_id,
            format!("user_{round}4"),
            "the newest of them"
        );
    }
}

#[tokio::test]
async fn overlapping_batches_in_opposite_order_wait_for_each_other_without_deadlocks() {
    let db = Db::postgres().await;
    let metrics = metrics();
    let projection = Projection::new(db.pool.clone(), ProjectionConfig::default(), metrics);
    // 200 batches of the same 24 users, every other one backwards; each address moves on in each
    // round, and each batch is delivered to whoever is free.
    let mut batches = Vec::new();
    for round in 0..100_i64 {
        let mut batch: Vec<Event> = (0..24)
            .map(|n| {
                let email = format!("{}@a.example", (n + round) % 24);
                user(&format!("{n:02}"))
                    .email(&email)
                    .at(round)
                    .updated(&format!("m{round}_{n}"))
            })
            .collect();
        batches.push(batch.clone());
        batch.reverse();
        batches.push(batch);
    }
    let before = deadlocks(&db).await;
    let told = work(&projection, batches, 4).await;
    assert_eq!(told.len(), 4_800);
    each_is_applied_once(&told);
    for (n, row) in db.rows().await.iter().enumerate() {
        assert_eq!(row.email, format!("{}@a.example", (n + 99) % 24));
    }

    // A backend reports its statistics at its end at the latest.
    db.pool.clone().close().await.unwrap();
    let deadlocks = deadlocks(&db).await - before;
    assert!(deadlocks <= 2, "{deadlocks} deadlocks in 200 batches");
}

/// How many there were in the database so far.
async fn deadlocks(db: &Db) -> i64 {
    let outside = database::connect(&db.url, 1).await.unwrap();
    let look = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    let look = Statement::from_string(outside.get_database_backend(), look);
    let row = outside.query_one_raw(look).await.unwrap().unwrap();
    row.try_get_by_index(0).unwrap()
}
