//! The number of statements in a batch does not grow with its size.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use clerk_sync_pipeline::Event;
use clerk_sync_projection::{Projection, ProjectionConfig, database};
use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbBackend, Statement};

use crate::{
    clerk::user,
    database::{Db, metrics},
};

on_both_databases! {
    the_number_of_statements_does_not_grow_with_the_batch,
}

/// A projection whose statements are counted; the transaction's begin and commit are not.
fn counted(db: &Db) -> (Projection, Arc<AtomicUsize>) {
    let statements = Arc::new(AtomicUsize::new(0));
    let count = statements.clone();
    let mut pool = db.pool.clone();
    pool.set_metric_callback(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let config = ProjectionConfig {
        initial_credits: 5,
        ..ProjectionConfig::default()
    };
    (Projection::new(pool, config, metrics()), statements)
}

async fn the_number_of_statements_does_not_grow_with_the_batch(db: &Db) {
    let (projection, statements) = counted(db);
    // Of the first events that a process applies, the instance is noted.
    db.apply_by(&projection, &[user("first").created("first")])
        .await;
    let mut found = Vec::new();
    for size in [1, 10, 200] {
        let each = |make: &dyn Fn(usize) -> Event| (0..size).map(make).collect::<Vec<Event>>();
        let named = |kind: &str, n: usize| user(&format!("{kind}{n}_{size}"));
        let id = |kind: &str, n: usize| format!("{kind}{n}_{size}");
        let taken = |n: usize| format!("taken{n}_{size}@a.example");
        // One batch of each kind, each upon those before.
        let batches = [
            ("sign-ups", each(&|n| named("a", n).created(&id("a", n)))),
            (
                "the same again",
                each(&|n| named("a", n).created(&id("a", n))),
            ),
            (
                "edits",
                each(&|n| named("a", n).named("New").at(1).updated(&id("b", n))),
            ),
            ("late events", each(&|n| named("a", n).updated(&id("c", n)))),
            (
                "moves",
                each(&|n| named("a", n).email(&taken(n)).at(2).updated(&id("d", n))),
            ),
            (
                "takings",
                each(&|n| named("t", n).email(&taken(n)).at(3).created(&id("e", n))),
            ),
            (
                "late takings",
                each(&|n| named("l", n).email(&taken(n)).at(1).created(&id("f", n))),
            ),
            (
                "deletes",
                each(&|n| named("a", n).at(4).deleted(&id("g", n))),
            ),
            (
                "late deletes",
                each(&|n| named("a", n).at(5).deleted(&id("h", n))),
            ),
        ];
        let mut counts = Vec::new();
        for (kind, batch) in batches {
            let before = statements.load(Ordering::Relaxed);
            db.apply_by(&projection, &batch).await;
            counts.push((kind, statements.load(Ordering::Relaxed) - before));
        }
        // Whatever the mix.
        let mix: Vec<Event> = (0..size)
            .map(|n| match n % 3 {
                0 => named("t", n)
                    .email(&taken(n + 1))
                    .at(9)
                    .updated(&id("x", n)),
                1 => named("t", n).at(9).deleted(&id("x", n)),
                _ => named("m", n).created(&id("x", n)),
            })
            .collect();
        let before = statements.load(Ordering::Relaxed);
        db.apply_by(&projection, &mix).await;
        let mixed = statements.load(Ordering::Relaxed) - before;
        assert!(mixed <= 9, "{mixed} statements for a mixed batch of {size}");
        found.push(counts);
    }
    assert_eq!(found[0], found[1], "1 and 10 events");
    assert_eq!(found[1], found[2], "10 and 200 events");
    let expected = [
        ("sign-ups", 5),       // claim, who holds, versions, rows, credits
        ("the same again", 1), // claim
        ("edits", 4),          // claim, who holds, versions, rows
        ("late events", 4),    // claim, who holds, versions, outcomes
        ("moves", 4),          // claim, who holds, versions, rows
        ("takings", 7),        // claim, who holds, versions, who holds, release, rows, credits
        ("late takings", 6),   // claim, who holds, versions, who holds, rows, credits
        ("deletes", 3),        // claim, versions, deletes
        ("late deletes", 3),   // claim, versions, outcomes
    ];
    assert_eq!(found[0], expected);
}

/// A plan is kept for as long as the tables are not analyzed, which takes a minute: one made while
/// they were empty must not scan them when they have a million rows.
#[tokio::test]
async fn a_plan_made_for_empty_tables_does_not_scan_full_ones() {
    const BATCHES: usize = 60;
    let db = Db::postgres().await;
    // One connection, so that it prepares each statement once.
    let pool = database::connect(&db.url, 1).await.unwrap();
    let projection = Projection::new(pool.clone(), ProjectionConfig::default(), metrics());
    let before = scans(&pool).await;
    for round in 0..BATCHES {
        let sign_up = |n: usize| user(&format!("a{n}_{round}")).created(&format!("a{n}_{round}"));
        let events: Vec<Event> = (0..128).map(sign_up).collect();
        let mut batch = projection.read(&events);
        projection.apply(&mut batch).await.unwrap();
    }
    // Those of other connections, before this test, may be told late.
    let scans = scans(&pool).await - before;
    assert!(scans < BATCHES as i64 / 2, "{scans} in {BATCHES} batches");
}

/// How often our tables were read from end to end, as this connection and those before it know.
async fn scans(pool: &DatabaseConnection) -> i64 {
    let flush = "SELECT pg_stat_force_next_flush()";
    pool.execute_unprepared(flush).await.unwrap();
    let scans = "SELECT sum(seq_scan)::bigint FROM pg_stat_user_tables \
                 WHERE relname IN ('users', 'user_versions', 'processed_events')";
    let scans = Statement::from_string(DbBackend::Postgres, scans);
    let row = pool.query_one_raw(scans).await.unwrap().unwrap();
    row.try_get_by_index(0).unwrap()
}
