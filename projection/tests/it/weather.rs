//! The weather: whatever is wrong with the database decides nothing about any event, and the same
//! batch goes on when it is over.

use std::time::Duration;

use clerk_sync_pipeline::{Event, secret::ServerUrl, telemetry::Label as _};
use clerk_sync_projection::{
    Batch, Projection, ProjectionConfig, Verdict,
    database::{self, Kind},
};
use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, SqliteTransactionMode, TransactionOptions,
    TransactionTrait as _,
};
use tokio::time::timeout;

use crate::{
    clerk::user,
    database::{Db, metrics},
    proxy::{Mode, Proxy},
    server::administrate,
};

on_both_databases! {
    a_missing_table_is_weather,
    a_missing_column_is_weather,
    a_read_only_database_is_weather,
    an_exhausted_pool_is_weather,
    a_table_that_is_locked_is_waited_for,
    a_rehearsal_decides_nothing,
}

/// Ten users; one of them twice.
fn events() -> Vec<Event> {
    let mut events: Vec<Event> = (0..10)
        .map(|n| user(&format!("{n}")).created(&format!("m{n}")))
        .collect();
    events.push(events[3].clone());
    events
}

/// What becomes of them when nothing was decided before.
async fn goes_on(db: &Db, projection: &Projection, mut batch: Batch<'_>) {
    let versions = db.versions().await;
    assert!(
        db.rows().await.is_empty() && versions.is_empty(),
        "nothing is written"
    );
    assert_eq!(
        db.outcome(&events()[0]).await,
        None,
        "nothing is in the ledger"
    );
    projection.apply(&mut batch).await.unwrap();
    let told: Vec<String> = batch
        .into_verdicts()
        .into_iter()
        .map(|(verdict, _)| format!("{verdict:?}"))
        .collect();
    assert_eq!(told[..10], ["Applied(Created)"; 10]);
    assert_eq!(told[10], "Applied(Duplicate)");
    assert_eq!(db.rows().await.len(), 10);
}

/// Fails, time and again, and leaves the batch as it was.
async fn is_weather(projection: &Projection, batch: &mut Batch<'_>) -> String {
    projection.apply(batch).await.unwrap_err();
    let weather = projection.apply(batch).await.unwrap_err().to_string();
    assert!(!weather.contains("a.example"), "{weather}");
    weather
}

fn by(pool: DatabaseConnection) -> Projection {
    Projection::new(pool, ProjectionConfig::default(), metrics())
}

async fn by_url(url: &ServerUrl, connections: u32) -> Projection {
    by(database::connect(url, connections).await.unwrap())
}

/// Breaks the database by one statement and mends it by another.
async fn broken_by(db: &Db, breaks: &str, mends: &str) {
    db.wipe().await;
    let (events, projection) = (events(), db.projection());
    let mut batch = projection.read(&events);
    db.alter(breaks).await;
    let weather = is_weather(&projection, &mut batch).await;
    assert!(weather.contains("clerk-sync migrate up"), "{weather}");
    db.alter(mends).await;
    goes_on(db, &projection, batch).await;
}

/// The bookkeeping table's name in a statement, and bare.
fn bookkeeping(db: &Db, name: &str) -> (String, String) {
    match db.kind {
        Kind::Postgres => (format!("clerk_sync.{name}"), name.to_owned()),
        Kind::Sqlite => (format!("clerk_sync_{name}"), format!("clerk_sync_{name}")),
    }
}

async fn a_missing_table_is_weather(db: &Db) {
    let users = ("users".to_owned(), "users".to_owned());
    let events = bookkeeping(db, "processed_events");
    let versions = bookkeeping(db, "user_versions");
    for (table, bare) in [users, events, versions] {
        let away = table.replace(&bare, "away");
        let breaks = format!("ALTER TABLE {table} RENAME TO away");
        broken_by(db, &breaks, &format!("ALTER TABLE {away} RENAME TO {bare}")).await;

        db.alter(&breaks).await;
        db.projection().ping().await.unwrap_err();
        db.alter(&format!("ALTER TABLE {away} RENAME TO {bare}"))
            .await;
        db.projection().ping().await.unwrap();
    }
}

async fn a_missing_column_is_weather(db: &Db) {
    let (versions, _) = bookkeeping(db, "user_versions");
    for (table, column) in [("users", r#""imageUrl""#), (&*versions, "occurred_at_ms")] {
        let breaks = format!("ALTER TABLE {table} RENAME COLUMN {column} TO away");
        let mends = format!("ALTER TABLE {table} RENAME COLUMN away TO {column}");
        broken_by(db, &breaks, &mends).await;
    }
}

async fn a_read_only_database_is_weather(db: &Db) {
    let mut url = db.url.expose().clone();
    match db.kind {
        // As after a failover, or when a server's disk is nearly full.
        Kind::Postgres => {
            let read_only = "-c default_transaction_read_only=on";
            url.query_pairs_mut().append_pair("options", read_only);
        }
        Kind::Sqlite => url.set_query(Some("mode=ro")),
    }
    let read_only = by_url(&url.as_str().parse().unwrap(), 2).await;
    let events = events();
    let mut batch = read_only.read(&events);
    is_weather(&read_only, &mut batch).await;
    read_only.record(&[]).await.unwrap();
    let noted = [(&events[0], clerk_sync_pipeline::telemetry::Outcome::Retried)];
    read_only.record(&noted).await.unwrap_err();
    // A question is answered; only a rehearsal finds it out.
    read_only.ping().await.unwrap();
    read_only.would_take(&events[0]).await.unwrap_err();
    goes_on(db, &db.projection(), batch).await;
}

async fn an_exhausted_pool_is_weather(db: &Db) {
    let pool = database::connect(&db.url, 1).await.unwrap();
    let somebody = pool.begin().await.unwrap();
    let (events, projection) = (events(), by(pool));
    let mut batch = projection.read(&events);
    projection.apply(&mut batch).await.unwrap_err();
    somebody.rollback().await.unwrap();
    goes_on(db, &projection, batch).await;
}

async fn a_table_that_is_locked_is_waited_for(db: &Db) {
    let pool = database::connect(&db.url, 1).await.unwrap();
    let somebody = match db.kind {
        Kind::Postgres => {
            let transaction = pool.begin().await.unwrap();
            let lock = "LOCK TABLE users IN ACCESS EXCLUSIVE MODE";
            transaction.execute_unprepared(lock).await.unwrap();
            transaction
        }
        Kind::Sqlite => {
            let immediate = TransactionOptions {
                sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
                ..TransactionOptions::default()
            };
            pool.begin_with_options(immediate).await.unwrap()
        }
    };
    let (events, projection) = (events(), db.projection());
    let mut batch = projection.read(&events);
    {
        let mut applying = Box::pin(projection.apply(&mut batch));
        let early = timeout(Duration::from_millis(300), &mut applying).await;
        assert!(early.is_err(), "it waits: {early:?}");
        somebody.commit().await.unwrap();
        applying.await.unwrap();
    }
    assert_eq!(batch.into_verdicts().len(), 11);
    assert_eq!(db.rows().await.len(), 10);
}

#[tokio::test]
async fn a_table_that_is_locked_against_writers_is_no_reason_to_be_unready() {
    let db = Db::postgres().await;
    let projection = db.projection();
    let pool = database::connect(&db.url, 1).await.unwrap();
    let somebody = pool.begin().await.unwrap();
    // As building an index does: everybody can read.
    let hold = "LOCK TABLE users IN SHARE MODE";
    somebody.execute_unprepared(hold).await.unwrap();
    let asked = timeout(Duration::from_secs(15), projection.is_fit()).await;
    asked.expect("an answer comes soon").unwrap();
    somebody.rollback().await.unwrap();
    projection.is_fit().await.unwrap();
}

async fn a_rehearsal_decides_nothing(db: &Db) {
    let (events, projection) = (events(), db.projection());
    db.application_writes("x", "user_theirs", "1@a.example")
        .await;
    // One that will be created, one that will be put off, one that nobody can read.
    let poison = user("p").named("\0").created("mp");
    for event in [&events[0], &events[1], &poison] {
        projection.would_take(event).await.unwrap();
    }
    db.execute("DELETE FROM users").await;
    goes_on(db, &projection, projection.read(&events)).await;
}

#[tokio::test]
async fn a_full_disk_is_weather() {
    let db = Db::sqlite().await;
    let pool = database::connect(&db.url, 1).await.unwrap();
    let pages = db.number("PRAGMA page_count").await;
    let full = format!("PRAGMA max_page_count = {pages}");
    pool.execute_unprepared(&full).await.unwrap();
    // What fits no free page.
    let large = |n: usize| user(&format!("{n}")).named(&"long ".repeat(2_000));
    let mut events: Vec<Event> = (0..10)
        .map(|n| large(n).created(&format!("m{n}")))
        .collect();
    events.push(events[3].clone());
    let projection = by(pool.clone());
    let mut batch = projection.read(&events);
    is_weather(&projection, &mut batch).await;
    pool.execute_unprepared("PRAGMA max_page_count = 1073741823")
        .await
        .unwrap();
    goes_on(&db, &projection, batch).await;
}

#[tokio::test]
async fn a_missing_grant_is_weather() {
    let db = Db::postgres().await;
    let mut url = db.url.expose().clone();
    url.query_pairs_mut()
        .append_pair("options", "-c role=pg_read_all_data");
    let reader = by_url(&url.as_str().parse().unwrap(), 2).await;
    let events = events();
    let mut batch = reader.read(&events);
    is_weather(&reader, &mut batch).await;
    goes_on(&db, &db.projection(), batch).await;
}

#[tokio::test]
async fn a_database_that_is_gone_is_weather() {
    let db = Db::postgres().await;
    let proxy = Proxy::start(&db.url).await;
    let projection = by_url(&proxy.url, 4).await;
    let events = events();
    let mut batch = projection.read(&events);
    proxy.set(Mode::Down);
    is_weather(&projection, &mut batch).await;
    projection.ping().await.unwrap_err();
    projection.prune(chrono::Utc::now()).await.unwrap_err();
    proxy.set(Mode::Open);
    projection.ping().await.unwrap();
    goes_on(&db, &projection, batch).await;
}

#[tokio::test]
async fn a_connection_cut_before_the_commit_has_decided_nothing() {
    let db = Db::postgres().await;
    let proxy = Proxy::start(&db.url).await;
    let projection = by_url(&proxy.url, 4).await;
    let events = events();
    let mut batch = projection.read(&events);
    proxy.set(Mode::CutsBeforeCommit);
    is_weather(&projection, &mut batch).await;
    proxy.set(Mode::Open);
    goes_on(&db, &projection, batch).await;
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_not_applied_twice() {
    let db = Db::postgres().await;
    let proxy = Proxy::start(&db.url).await;
    let pool = database::connect(&proxy.url, 4).await.unwrap();
    let config = ProjectionConfig {
        initial_credits: 5,
        ..ProjectionConfig::default()
    };
    let projection = Projection::new(pool, config, metrics());
    let events = events();
    let mut batch = projection.read(&events);
    proxy.set(Mode::LosesCommits);
    projection.apply(&mut batch).await.unwrap_err();
    let before = db.users().await;
    assert_eq!(
        before.len(),
        10,
        "it was committed, and nobody could say so"
    );
    proxy.set(Mode::Open);
    projection.apply(&mut batch).await.unwrap();
    for (verdict, _) in batch.into_verdicts() {
        assert_eq!(format!("{verdict:?}"), "Applied(Duplicate)");
    }
    assert_eq!(db.users().await, before);
    assert_eq!(db.credits().await.len(), 10);
    assert_eq!(db.outcome(&events[0]).await.as_deref(), Some("created"));
}

#[tokio::test]
async fn connections_that_a_server_ended_are_replaced() {
    let db = Db::postgres().await;
    let projection = by_url(&db.url, 1).await;
    projection.ping().await.unwrap();
    administrate(format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
        db.name()
    ))
    .unwrap();
    let events = events();
    let mut batch = projection.read(&events);
    // Each connection that is found dead is replaced; those of the test too.
    while db.pool.ping().await.is_err() {}
    while db.application.ping().await.is_err() {}
    let mut lost = 0;
    while projection.apply(&mut batch).await.is_err() {
        lost += 1;
        assert!(lost <= 1, "one connection, lost once");
    }
    for (verdict, _) in batch.into_verdicts().into_iter().take(10) {
        assert_eq!(format!("{verdict:?}"), "Applied(Created)");
    }
    assert_eq!(db.rows().await.len(), 10);
}

#[tokio::test]
async fn a_column_that_the_application_changes_meanwhile_is_no_events_fault() {
    let db = Db::postgres().await;
    let warm = by_url(&db.url, 1).await;
    let one = |n: usize| [user(&format!("{n}")).created(&format!("m{n}"))];
    // Plans of these very statements are kept by now.
    for n in 0..2 {
        warm.apply(&mut warm.read(&one(n))).await.unwrap();
    }
    for (n, column) in [(2, "email"), (3, r#""clerkId""#), (4, "id"), (5, "name")] {
        db.alter(&format!(
            "ALTER TABLE users ALTER {column} TYPE varchar(320)"
        ))
        .await;
        let events = one(n);
        let mut batch = warm.read(&events);
        if warm.apply(&mut batch).await.is_err() {
            by_url(&db.url, 1).await.apply(&mut batch).await.unwrap();
        }
        let (verdict, _) = batch.into_verdicts().remove(0);
        assert_eq!(format!("{verdict:?}"), "Applied(Created)", "after {column}");
    }
}

/// In words, by event id.
fn words(batch: Batch<'_>) -> Vec<String> {
    let verdicts = batch.into_verdicts().into_iter();
    let words = |(verdict, _)| match verdict {
        Verdict::Postpone(failure) => format!("postponed: {}", failure.reason.as_str()),
        verdict => format!("{verdict:?}"),
    };
    verdicts.map(words).collect()
}

#[tokio::test]
async fn a_row_that_somebody_holds_postpones_its_user_and_nobody_else() {
    let db = Db::postgres().await;
    // Of the role, or of the database, and shorter than the wait for a lock.
    let impatient = "SET statement_timeout = '3s'";
    db.execute(&format!("ALTER DATABASE \"{}\" {impatient}", db.name()))
        .await;
    let projection = by_url(&db.url, 2).await;
    projection
        .apply(&mut projection.read(&events()))
        .await
        .unwrap();
    let pool = database::connect(&db.url, 1).await.unwrap();
    let somebody = pool.begin().await.unwrap();
    let hold = r#"UPDATE users SET name = 'held' WHERE "clerkId" = 'user_0'"#;
    somebody.execute_unprepared(hold).await.unwrap();
    let later: Vec<Event> = (0..10)
        .flat_map(|n| (5..7).map(move |at| (n, at)))
        .map(|(n, at)| {
            user(&format!("{n}"))
                .at(at)
                .updated(&format!("later{n}_{at}"))
        })
        .collect();
    for round in 0..2 {
        let since = std::time::Instant::now();
        let mut batch = projection.read(&later);
        projection.apply(&mut batch).await.unwrap();
        let (held, others) = words(batch)
            .into_iter()
            .partition::<Vec<_>, _>(|verdict| verdict == "postponed: row_locked");
        assert_eq!(held.len(), 2, "both of this user's, and {others:?}");
        // Known by now, so nobody waits long for it again.
        assert!(round == 0 || since.elapsed() < Duration::from_secs(8));
    }
    // Not the table's fault, so not the weather.
    projection.would_take(&later[0]).await.unwrap();
    somebody.rollback().await.unwrap();
    let mut batch = projection.read(&later);
    projection.apply(&mut batch).await.unwrap();
    assert!(
        !words(batch)
            .iter()
            .any(|verdict| verdict.contains("postponed"))
    );
}

#[tokio::test]
async fn a_table_that_somebody_holds_against_writers_decides_nothing() {
    let db = Db::postgres().await;
    let (events, projection) = (events(), db.projection());
    let pool = database::connect(&db.url, 1).await.unwrap();
    let somebody = pool.begin().await.unwrap();
    // As building an index does: everybody can read.
    let hold = "LOCK TABLE users IN SHARE MODE";
    somebody.execute_unprepared(hold).await.unwrap();
    let mut batch = projection.read(&events);
    let weather = projection.apply(&mut batch).await.unwrap_err();
    assert!(weather.0.contains("55P03"), "{weather}");
    projection.ping().await.unwrap();
    projection.would_take(&events[0]).await.unwrap_err();
    somebody.rollback().await.unwrap();
    goes_on(&db, &projection, batch).await;
}

#[tokio::test]
async fn a_refused_connection_is_told_with_its_reason() {
    let db = Db::postgres().await;
    let mut url = db.url.expose().clone();
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    url.set_port(Some(unused.local_addr().unwrap().port()))
        .unwrap();
    drop(unused);
    let nobody = by_url(&url.as_str().parse().unwrap(), 1).await;
    let weather = nobody.ping().await.unwrap_err();
    assert!(weather.0.contains("refused"), "{weather}");
    let event = user("1").created("m1");
    let weather = nobody.apply(&mut nobody.read([&event])).await.unwrap_err();
    assert!(weather.0.contains("refused"), "{weather}");
}
