//! `clerk-sync backfill`: the real binary, a stand-in for Clerk over the wire, and both databases.

use std::{collections::BTreeSet, time::Duration};

use clerk_sync_entity::users;
use clerk_sync_simulator::{Addressless, History, Plan};
use clerk_sync_stand_in::{Endpoint, Failure, LostCursor, Settings, StandIn};
use futures_util::{StreamExt as _, stream};
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use sea_orm::EntityTrait as _;
use serde_json::json;

use crate::harness::{
    SOON,
    clerk::{self, Letter, SECRET},
    eventually,
    process::{Env, Process, base_env, run},
    servers::{TestDb, TestQueue},
};

mod complete;
mod instance;
mod interrupted;

/// Runs each test on both databases.
macro_rules! on_both_databases {
    ($($test:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() {
                super::$test(crate::harness::servers::TestDb::sqlite().await).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() {
                super::$test(crate::harness::servers::TestDb::postgres().await).await;
            })+
        }
    };
}
pub(crate) use on_both_databases;

on_both_databases! {
    every_user_is_brought_and_the_summary_adds_up,
    what_cannot_be_brought_is_told_and_brought_when_it_can_be,
    an_address_that_its_row_gives_up_later_is_no_failure,
    a_backfill_that_was_killed_goes_on_where_it_was,
    a_key_of_another_instance_is_refused,
    a_database_that_is_not_migrated_is_refused,
}

/// Settings of a command between this instance and this database.
pub(crate) fn between(clerk: &StandIn, db: &TestDb) -> Env {
    let mut env = base_env();
    env.insert("CLERK_API_URL", clerk.url());
    env.insert("CLERK_SECRET_KEY", clerk.settings().secret_key.clone());
    env.insert("DATABASE_URL", db.url.expose().to_string());
    env
}

/// An instance in production, for which more is allowed.
pub(crate) async fn production() -> StandIn {
    StandIn::start_as(Settings::production()).await
}

/// A development instance: other people, and so other ids, with the same addresses as these.
pub(crate) async fn another_instance(clerk: &StandIn, who: &[String]) -> StandIn {
    let other = StandIn::start().await;
    for (number, id) in who.iter().enumerate() {
        let user = clerk.user(id).unwrap();
        other.put(&user.replace(id, &format!("user_other{number}")));
    }
    other
}

/// Where the commands remember things.
fn bookmarks(db: &TestDb) -> &'static str {
    match db.url.expose().scheme() {
        "sqlite" => "clerk_sync_bookmarks",
        _ => "clerk_sync.bookmarks",
    }
}

/// Runs a backfill to its end: exit code, and what it said on both of its outputs.
pub(crate) async fn backfill(env: &Env, args: &[&str]) -> (i32, String) {
    let args = [&["backfill"], args].concat();
    let (status, out, err) = run("clerk-sync", &args, env).await;
    (status.code().unwrap(), format!("{out}{err}"))
}

/// What the summary says: created, updated, current, missing, failed; it must add up.
fn summary(said: &str) -> [u64; 5] {
    let [created, updated, current, missing, failed, total] = [
        "created",
        "updated",
        "already current",
        "missing address",
        "failed",
        "total",
    ]
    .map(|what| {
        let mut lines = said.lines().map(str::trim);
        let line = lines.find_map(|line| line.strip_prefix(what));
        let number = line.unwrap_or_else(|| panic!("no `{what}` in:\n{said}"));
        number.trim().replace(',', "").parse().unwrap()
    });
    let all = [created, updated, current, missing, failed];
    assert_eq!(all.iter().sum::<u64>(), total, "{said}");
    all
}

/// The rows must be the instance's users: who, and of which change.
pub(crate) async fn equals(db: &TestDb, clerk: &StandIn, who: &[String]) {
    let rows = users::Entity::find().all(&db.db).await.unwrap();
    let rows: BTreeSet<(String, i64)> = rows
        .into_iter()
        .map(|row| (row.clerk_id, row.updated_at.and_utc().timestamp_millis()))
        .collect();
    let expected: BTreeSet<(String, i64)> = who
        .iter()
        .filter_map(|id| {
            let user: serde_json::Value = serde_json::from_str(&clerk.user(id)?).unwrap();
            Some((id.clone(), user["updated_at"].as_i64().unwrap()))
        })
        .collect();
    assert_eq!(rows, expected);
}

async fn every_user_is_brought_and_the_summary_adds_up(db: TestDb) {
    let (db, clerk) = (db.migrated().await, production().await);
    let who = clerk.fill(1_203);
    let env = between(&clerk, &db);
    let (exit, said) = backfill(&env, &[]).await;
    assert_eq!(exit, 0, "{said}");
    assert_eq!(summary(&said), [1_203, 0, 0, 0, 0]);
    assert!(
        said.lines().all(|line| line.chars().count() <= 80),
        "{said}"
    );
    equals(&db, &clerk, &who).await;

    // Again, after a change, a sign-up and a deletion of which no webhook told.
    clerk.change(&who[7], |user| {
        user.insert("last_name".into(), "Changed".into());
    });
    let new = clerk.sign_up("new@backfill.example");
    let (exit, said) = backfill(&env, &[]).await;
    assert_eq!(exit, 0, "{said}");
    assert_eq!(summary(&said), [1, 1, 1_202, 0, 0]);
    equals(&db, &clerk, &[who, vec![new]].concat()).await;
    // Three pages, once each, and again.
    assert_eq!(clerk.requests(Endpoint::Users), 6);
    db.remove().await;
}

async fn what_cannot_be_brought_is_told_and_brought_when_it_can_be(db: TestDb) {
    let (db, clerk) = (db.migrated().await, production().await);
    let mut who = clerk.fill(20);
    let nobody = clerk.sign_up("nobody@backfill.example");
    clerk.change(&nobody, |user| {
        user.insert("email_addresses".into(), json!([]));
        user.insert("primary_email_address_id".into(), json!(null));
    });
    let taken = clerk.sign_up("taken@backfill.example");
    db.execute(
        r#"INSERT INTO users (id, "clerkId", email, "updatedAt")
           VALUES ('x', 'seed', 'taken@backfill.example', '2026-01-01 00:00:00')"#,
    )
    .await;
    let env = between(&clerk, &db);
    let (exit, said) = backfill(&env, &[]).await;
    assert_eq!(exit, 1, "{said}");
    assert_eq!(summary(&said), [20, 0, 0, 1, 1]);
    assert!(
        said.contains(&taken) && said.contains("email_taken"),
        "{said}"
    );
    assert!(said.contains("MISSING_EMAIL=placeholder"), "{said}");
    assert!(!said.contains("@backfill.example"), "{said}");

    db.execute("DELETE FROM users WHERE id = 'x'").await;
    let (exit, said) = backfill(&env, &["--missing-email", "placeholder"]).await;
    assert_eq!(exit, 0, "{said}");
    assert_eq!(summary(&said), [2, 0, 20, 0, 0]);
    who.extend([nobody, taken]);
    equals(&db, &clerk, &who).await;
    db.remove().await;
}

/// A row of the application's own sits on an address that has moved on at Clerk, and its own user's
/// turn comes later.
async fn an_address_that_its_row_gives_up_later_is_no_failure(db: TestDb) {
    let (db, clerk) = (db.migrated().await, production().await);
    let mut who = clerk.fill(600);
    let (first, last) = (who[0].clone(), clerk.sign_up("later@backfill.example"));
    let user: serde_json::Value = serde_json::from_str(&clerk.user(&first).unwrap()).unwrap();
    let email = user["email_addresses"][0]["email_address"]
        .as_str()
        .unwrap();
    db.execute(&format!(
        r#"INSERT INTO users (id, "clerkId", email, "updatedAt")
           VALUES ('x', '{last}', '{email}', '2026-01-01 00:00:00')"#
    ))
    .await;
    let (exit, said) = backfill(&between(&clerk, &db), &[]).await;
    assert_eq!(exit, 0, "{said}");
    assert_eq!(summary(&said), [600, 1, 0, 0, 0]);
    who.push(last);
    equals(&db, &clerk, &who).await;
    db.remove().await;
}

async fn a_backfill_that_was_killed_goes_on_where_it_was(db: TestDb) {
    let (db, clerk) = (db.migrated().await, production().await);
    let who = clerk.fill(4_000);
    let env = between(&clerk, &db);
    clerk.set_delay(Duration::from_millis(300));
    let process = Process::start("clerk-sync", &["backfill"], &env);
    eventually("some are done", SOON, async || {
        db.users_if_any().await >= 1_000
    })
    .await;
    process.kill().await;
    let done = db.users().await.len();
    assert!(done < 4_000, "it was too fast to be killed");

    clerk.set_delay(Duration::ZERO);
    let asked = clerk.requests(Endpoint::Users);
    let (exit, said) = backfill(&env, &[]).await;
    assert_eq!(exit, 0, "{said}");
    assert!(said.contains("going on after"), "{said}");
    let [created, _, current, ..] = summary(&said);
    assert_eq!(created + current, 4_000, "{said}");
    // What was applied and not yet bookmarked: a page at most.
    assert!(current <= 500, "{said}");
    let pages = clerk.requests(Endpoint::Users) - asked;
    assert!(pages < 8, "{pages} pages: it began anew");
    equals(&db, &clerk, &who).await;

    // It came to its end, so the next one begins with the first user.
    let (exit, said) = backfill(&env, &[]).await;
    assert_eq!((exit, summary(&said)), (0, [0, 0, 4_000, 0, 0]), "{said}");
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_whose_last_user_was_deleted_begins_anew() {
    let (db, clerk) = (TestDb::sqlite().await.migrated().await, production().await);
    let who = clerk.fill(2_000);
    let env = between(&clerk, &db);
    clerk.set_delay(Duration::from_millis(300));
    let process = Process::start("clerk-sync", &["backfill"], &env);
    let bookmark = "SELECT count(*) FROM clerk_sync_bookmarks WHERE name = 'backfill'";
    eventually("a page is bookmarked", SOON, async || {
        db.count(bookmark).await == 1
    })
    .await;
    process.kill().await;
    clerk.set_delay(Duration::ZERO);
    for page in who.chunks(500) {
        clerk.remove(page.last().unwrap());
    }
    let (exit, said) = backfill(&env, &[]).await;
    assert_eq!(exit, 0, "{said}");
    assert!(!said.contains("going on after"), "{said}");
    let [created, _, current, ..] = summary(&said);
    assert_eq!(created + current, 1_996, "{said}");
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_who_come_and_go_meanwhile_do_not_break_it() {
    for lost_cursor in [
        LostCursor::Unprocessable,
        LostCursor::NotFound,
        LostCursor::EmptyPage,
    ] {
        let settings = Settings {
            lost_cursor,
            ..Settings::production()
        };
        let clerk = StandIn::start_as(settings).await;
        let db = TestDb::sqlite().await.migrated().await;
        let mut who = clerk.fill(3_000);
        clerk.set_delay(Duration::from_millis(100));
        let mut process = Process::start("clerk-sync", &["backfill"], &between(&clerk, &db));
        let mut turn = 0;
        loop {
            let pages = clerk.requests(Endpoint::Users);
            if pages > turn {
                // On whom the next cursor would stand, and somebody who signs up.
                turn = pages;
                let last = usize::try_from(pages).unwrap() * 500 - 1;
                if let Some(id) = who.get(last).filter(|_| last < 3_000) {
                    clerk.remove(id);
                }
                who.push(clerk.sign_up(&format!("new{pages}@backfill.example")));
            }
            if process.output().contains("total") || pages > 30 {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(process.wait().await.code(), Some(0), "{}", process.output());
        summary(&process.output());
        // Some of the last may have come too late, and some of the first may have been brought
        // before they went: nothing but the newest and the gone differ.
        let rows: BTreeSet<String> = db.users().await.into_iter().map(|row| row.0).collect();
        for id in who.iter().take(3_000).filter(|id| clerk.user(id).is_some()) {
            assert!(
                rows.contains(id),
                "{id} was passed over with {lost_cursor:?}"
            );
        }
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_fails_now_and_then_is_asked_again() {
    let (db, clerk) = (TestDb::sqlite().await.migrated().await, production().await);
    let who = clerk.fill(1_100);
    for failure in [
        Failure::Status(500, None),
        Failure::Status(429, Some(1)),
        Failure::HangUp,
        Failure::BreakOff,
        Failure::Status(503, None),
    ] {
        clerk.fail_next(1, failure);
    }
    let (exit, said) = backfill(&between(&clerk, &db), &[]).await;
    assert_eq!(exit, 0, "{said}");
    equals(&db, &clerk, &who).await;
    db.remove().await;
}

async fn a_key_of_another_instance_is_refused(db: TestDb) {
    let (db, ours) = (db.migrated().await, production().await);
    let who = ours.fill(30);
    let other = another_instance(&ours, &who[..5]).await;
    let refused = async |env: &Env, says: &str| {
        let (exit, said) = backfill(env, &[]).await;
        assert_eq!(exit, 1, "{said}");
        assert!(
            said.contains(says) && said.contains("Nothing was changed"),
            "{said}"
        );
        equals(&db, &ours, &who).await;
    };
    assert_eq!(backfill(&between(&ours, &db), &[]).await.0, 0);
    // Remembered.
    refused(
        &between(&other, &db),
        "the rows came from ins_3EZfR00000000000000standin1",
    )
    .await;
    // Not remembered, but none of the rows is known there.
    let table = bookmarks(&db);
    let forget = format!("DELETE FROM {table}");
    db.execute(&forget).await;
    refused(&between(&other, &db), "knows 0 of 30 users").await;
    // An event of its own proves nothing against the rows, be it for the key or against it.
    let note = |id: &str| {
        format!("INSERT INTO {table} VALUES ('first_instance', '{id}', '2026-01-01 00:00:00+00')")
    };
    db.execute(&note(&other.settings().instance_id)).await;
    refused(&between(&other, &db), "knows 0 of 30 users").await;
    db.execute(&forget).await;
    db.execute(&note("ins_example")).await;
    refused(
        &between(&other, &db),
        "the first event came from ins_example",
    )
    .await;
    assert_eq!(backfill(&between(&ours, &db), &[]).await.0, 0);
    // Said in the settings.
    let mut env = between(&ours, &db);
    env.insert("CLERK_INSTANCE_ID", "ins_else".to_owned());
    let (exit, said) = backfill(&env, &[]).await;
    assert_eq!(exit, 1, "{said}");
    assert!(said.contains("CLERK_INSTANCE_ID says ins_else"), "{said}");
    // Meant so.
    let (exit, said) = backfill(&between(&other, &db), &["--adopt-instance"]).await;
    assert_eq!(exit, 0, "{said}");
    assert_eq!(summary(&said), [5, 0, 0, 0, 0]);
    let (exit, said) = backfill(&between(&ours, &db), &[]).await;
    assert_eq!(exit, 1, "{said}");
    db.remove().await;
}

async fn a_database_that_is_not_migrated_is_refused(db: TestDb) {
    let clerk = StandIn::start().await;
    let (exit, said) = backfill(&between(&clerk, &db), &[]).await;
    assert_eq!(exit, 1, "{said}");
    assert!(said.contains("clerk-sync migrate up"), "{said}");
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_are_wrong_are_told_together() {
    let mut env = base_env();
    env.insert("CLERK_SECRET_KEY", "pk_live_hunter2".to_owned());
    env.insert("CLERK_API_URL", "ftp://hunter2".to_owned());
    env.insert("DATABASE_URL", "mysql://hunter2".to_owned());
    let (exit, said) = backfill(&env, &[]).await;
    assert_eq!(exit, 64, "{said}");
    for setting in env
        .keys()
        .filter(|name| name.contains("CLERK") || name.contains("DATABASE"))
    {
        assert!(said.contains(setting), "{said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
}

// ---- beside webhooks

/// What a worker is told, and what the rows must be then.
fn letters(history: &History) -> Vec<Letter> {
    let letter = |event: &clerk_sync_simulator::Event| Letter {
        id: event.id.clone(),
        body: event.body.clone(),
    };
    history.events.iter().map(letter).collect()
}

/// In windows of three hundred, so that what Clerk answers is as often ahead of the webhooks as
/// behind; one in four of them twice.
fn scattered(letters: &[Letter], random: &mut StdRng) -> Vec<Letter> {
    let mut scattered = Vec::new();
    for window in letters.chunks(300) {
        let mut window: Vec<Letter> = window.to_vec();
        window.extend(window.clone().into_iter().step_by(4));
        window.shuffle(random);
        scattered.extend(window);
    }
    scattered
}

/// Lets these things happen, some at a time: about seven hundred a second.
async fn live(clerk: &StandIn, events: &[clerk_sync_simulator::Event]) {
    for some in events.chunks(40) {
        for event in some {
            clerk.follow(event);
        }
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
}

async fn deliver(url: &str, letters: &[Letter]) {
    let client = clerk::client();
    stream::iter(letters)
        .for_each_concurrent(8, |letter| {
            let client = &client;
            async move {
                clerk::deliver(client, url, letter).await;
            }
        })
        .await;
}

/// The instance lives, and its webhooks arrive late, shuffled and twice, while one backfill after
/// the other sees it as it is at that moment.
async fn a_backfill_in_a_storm_of_webhooks_converges(db: TestDb, queue: Option<TestQueue>) {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let history = Plan {
        seed,
        users: 300,
        rounds: 5,
    }
    .live();
    let settings = Settings {
        instance_id: history.instance_id.clone(),
        ..Settings::production()
    };
    let clerk = StandIn::start_as(settings).await;
    let folder = tempfile::tempdir().unwrap();
    let mut env = between(&clerk, &db);
    env.insert("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned());
    env.insert("CLERK_SYNC_DATA", folder.path().display().to_string());
    env.insert("MISSING_EMAIL", "placeholder".to_owned());
    if let Some(queue) = &queue {
        queue.env(&mut env);
    }
    let up = Process::start("clerk-sync", &["up"], &env);
    let url = up.webhook_url().await;
    up.ready().await;
    // While there is nobody yet: later the webhooks, which are ahead of Clerk's answers here as
    // often as behind, may have brought more rows than it knows, as if they were not its own.
    let (exit, said) = backfill(&env, &[]).await;
    assert_eq!(exit, 0, "{said}");

    // Four fifths happen while backfills go on, the rest when no more begin: it is for the webhooks.
    let all = letters(&history);
    let (during, after) = all.split_at(all.len() * 4 / 5);
    let mut random = StdRng::seed_from_u64(seed);
    let during = scattered(during, &mut random);
    let after = scattered(after, &mut random);
    let (first, rest) = history.events.split_at(history.events.len() * 4 / 5);
    let mut backfills = 0;
    {
        let storm = async { tokio::join!(live(&clerk, first), deliver(&url, &during)) };
        let mut storm = std::pin::pin!(storm);
        let mut over = false;
        while !over {
            let mut one = std::pin::pin!(backfill(&env, &[]));
            let (exit, said) = tokio::select! {
                said = &mut one => said,
                _ = &mut storm => { over = true; one.await }
            };
            // Here a webhook may tell of a deletion before Clerk's answers do.
            let ahead = said.contains("remembered as deleted");
            assert!(exit == 0 || ahead, "{said}");
            summary(&said);
            backfills += 1;
        }
    }
    assert!(backfills >= 2, "the storm was too short");
    tokio::join!(live(&clerk, rest), deliver(&url, &after));
    let sent = (during.len() + after.len()) as f64;
    eventually(
        "every delivery has its last outcome",
        SOON * 2,
        async || {
            let all = up.metric("clerk_sync_events_total", "").await;
            all - up.metric("clerk_sync_events_total", "retried").await >= sent
        },
    )
    .await;
    let dead = up.metric("clerk_sync_events_total", "dead_lettered").await;
    assert!(dead < 0.5, "{dead} dead letters");
    is_as_the_simulator_says(&db, &history).await;
    up.stop().await;
    if let Some(queue) = queue {
        queue.remove().await;
    }
    db.remove().await;
}

/// The rows are, in every column.
pub(crate) async fn is_as_the_simulator_says(db: &TestDb, history: &History) {
    let mut rows = users::Entity::find().all(&db.db).await.unwrap();
    rows.sort_by(|a, b| a.clerk_id.cmp(&b.clerk_id));
    let expected = history.table(Addressless::Placeholder);
    assert_eq!(rows.len(), expected.len());
    for (row, expected) in rows.into_iter().zip(expected) {
        assert!(expected.email.admits(&row.email), "{row:?} {expected:?}");
        let millis = |time: chrono::NaiveDateTime| time.and_utc().timestamp_millis();
        assert_eq!(
            (
                row.clerk_id,
                row.name,
                row.image_url,
                millis(row.created_at),
                millis(row.updated_at)
            ),
            (
                expected.clerk_id,
                expected.name,
                expected.image_url,
                expected.created_at,
                expected.updated_at
            )
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_in_a_storm_of_webhooks_converges_embedded() {
    let db = TestDb::sqlite().await;
    let db = db.migrated().await;
    a_backfill_in_a_storm_of_webhooks_converges(db, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_in_a_storm_of_webhooks_converges_through_rabbitmq() {
    let db = TestDb::postgres().await.migrated().await;
    let queue = TestQueue::bare("5s,30s,2m,10m,1h").await;
    a_backfill_in_a_storm_of_webhooks_converges(db, Some(queue)).await;
}
