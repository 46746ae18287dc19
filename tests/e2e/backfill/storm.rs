//! Beside webhooks: none is buried, and in the end every column is what it must be.

use std::time::Duration;

use clerk_sync_simulator::{History, Plan};
use clerk_sync_stand_in::{Settings, StandIn};
use futures_util::{StreamExt as _, stream};
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

use super::{backfill, between, is_as_the_simulator_says, summary};
use crate::harness::{
    SOON,
    clerk::{self, Letter, SECRET},
    eventually,
    process::Process,
    servers::{TestDb, TestQueue},
};

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
