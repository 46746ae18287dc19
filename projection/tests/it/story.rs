//! The fixtures' story, in any order, any number of times: always the same tables.

use clerk_sync_entity::credits;
use clerk_sync_pipeline::{Event, EventId};
use clerk_sync_projection::{MissingEmail, ProjectionConfig, Verdict, change::Rules};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

use crate::{clerk::fixtures, database::Db, workers::work};

const MAREN: &str = "user_3EWpvnWz8VE5MENqTOz3e2cYDnl";
const MARENS_HEIR: &str = "user_3EfbYUGo9d7CeXo8P6o3pe3hveC";
const TOMEK: &str = "user_3EZfRtlIg6ccLSK12t7h1GeF41R";
const UNICODE: &str = "user_3EfJst4m1EoU9SFkyiLvNGixzHk";
const PHONE_ONLY: &str = "user_3EcUCKFts6ATHpeqVh7PKvG2Ord";
const DASHBOARD_TEST: &str = "user_3Ei8OreOtwO4XMqhs0m48LGzwEB";

/// Who is there at the end, when a user must have an address and when not.
const WITH_AN_ADDRESS: [&str; 2] = [UNICODE, MARENS_HEIR];
const EVERYBODY: [&str; 4] = [PHONE_ONLY, UNICODE, MARENS_HEIR, DASHBOARD_TEST];

#[tokio::test]
async fn the_fixtures_story_in_200_orders_ends_in_the_same_table_on_sqlite() {
    let db = Db::in_memory().await;
    tell(&db, MissingEmail::DeadLetter, &WITH_AN_ADDRESS, 200, 1).await;
    tell(&db, MissingEmail::Placeholder, &EVERYBODY, 200, 1).await;
}

#[tokio::test]
async fn the_fixtures_story_in_200_orders_ends_in_the_same_table_on_postgres() {
    let db = Db::postgres().await;
    tell(&db, MissingEmail::DeadLetter, &WITH_AN_ADDRESS, 200, 1).await;
    tell(&db, MissingEmail::Placeholder, &EVERYBODY, 50, 1).await;
}

#[tokio::test]
async fn the_fixtures_story_told_to_four_workers_ends_in_the_same_table() {
    let db = Db::postgres().await;
    tell(&db, MissingEmail::DeadLetter, &WITH_AN_ADDRESS, 30, 4).await;
    tell(&db, MissingEmail::Placeholder, &EVERYBODY, 30, 4).await;
}

/// Tells the story once in its own order, then in random ones.
async fn tell(db: &Db, missing_email: MissingEmail, end: &[&str], orders: u64, workers: usize) {
    let config = ProjectionConfig {
        rules: Rules {
            missing_email,
            ..Rules::default()
        },
        initial_credits: 3,
    };
    let projection = db.configured(config);
    let mut story = fixtures();
    assert_eq!(story.len(), 15);
    story.sort_by_key(occurred_at);
    for (n, event) in story.iter_mut().rev().enumerate() {
        // Ids that sort the other way round, as a batch is gone through by id.
        event.id = EventId::parse(&format!("msg_{n:02}_{}", event.id)).unwrap();
    }
    db.wipe().await;
    for event in &story {
        work(&projection, vec![vec![event.clone()]], 1).await;
    }
    let (rows, versions) = (db.rows().await, db.versions().await);
    let who: Vec<&str> = rows.iter().map(|row| row.clerk_id.as_str()).collect();
    assert_eq!(who, end);
    let heir = rows.iter().find(|row| row.clerk_id == MARENS_HEIR).unwrap();
    assert_eq!(heir.email, "maren.holt@quayside.example");
    for gone in [MAREN, TOMEK] {
        assert_eq!(versions[gone], crate::database::Held::Tombstone);
    }

    for seed in 0..orders {
        db.wipe().await;
        let mut random = StdRng::seed_from_u64(seed);
        let largest = [1, 6, 25][random.random_range(0..3)];
        let batches = deliveries(&story, &mut random, largest);
        let told = work(&projection, batches, workers).await;
        for (id, verdict) in told {
            let put_off = matches!(verdict, Verdict::Retry(_));
            assert!(!put_off, "order {seed}: {id}: {verdict:?}");
        }
        assert_eq!(db.rows().await, rows, "order {seed}");
        assert_eq!(db.versions().await, versions, "order {seed}");
        assert_eq!(db.count(credits::Entity).await, rows.len() as u64);
    }
}

/// The events in a random order, each once or more often, cut into batches of a random size.
pub(crate) fn deliveries(events: &[Event], random: &mut StdRng, largest: usize) -> Vec<Vec<Event>> {
    let mut deliveries = events.to_vec();
    for event in events {
        while random.random_bool(0.3) {
            deliveries.push(event.clone());
        }
    }
    deliveries.shuffle(random);
    let mut batches = Vec::new();
    while !deliveries.is_empty() {
        let size = random.random_range(1..=largest).min(deliveries.len());
        batches.push(deliveries.split_off(deliveries.len() - size));
    }
    batches
}

/// The envelope's time, in milliseconds.
fn occurred_at(event: &Event) -> i64 {
    let body: serde_json::Value = serde_json::from_slice(&event.body).unwrap();
    match body["timestamp"].as_i64().unwrap() {
        seconds if seconds < 100_000_000_000 => seconds * 1000,
        millis => millis,
    }
}
