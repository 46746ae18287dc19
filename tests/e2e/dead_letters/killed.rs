//! Killed in the middle, again and again until it is done: no letter is lost.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    OTHER_INSTANCE, on_both_queues,
    site::{On, Site, codes},
};
use crate::harness::{
    SOON,
    clerk::{Letter, created},
    eventually,
    process::Process,
};

on_both_queues! {
    a_replay_killed_again_and_again_loses_no_letter
    a_discard_killed_again_and_again_takes_no_other_letter
}

const LETTERS: usize = 3000;
/// Longest time for all rounds together.
const DEADLINE: Duration = Duration::from_secs(300);

/// Letters in the dead queue that nobody has in hand.
async fn dead(site: &Site) -> u64 {
    match &site.queue {
        Some(queue) => queue.depth(&queue.server.topology.dead()).await.into(),
        None => {
            let file = site.folder.path().join("queue.db");
            let url = format!("sqlite:{}", file.display()).parse().unwrap();
            let db = clerk_sync_projection::database::connect(&url, 1).await;
            let db = db.unwrap();
            let count = "SELECT count(*) FROM events WHERE state = 'dead'";
            let statement = sea_orm::Statement::from_string(sea_orm::DbBackend::Sqlite, count);
            let row = sea_orm::ConnectionTrait::query_one_raw(&db, statement).await;
            let count: i64 = row.unwrap().unwrap().try_get_by_index(0).unwrap();
            db.close().await.unwrap();
            count.try_into().unwrap()
        }
    }
}

fn letters() -> Vec<Letter> {
    (0..LETTERS)
        .map(|n| created(&format!("user_{n}"), &format!("u{n}@a.example")))
        .collect()
}

async fn a_replay_killed_again_and_again_loses_no_letter(on: On) {
    let site = Site::open(on, &[OTHER_INSTANCE]).await;
    site.park(&letters(), LETTERS).await;
    let site = site.reopen_without(OTHER_INSTANCE.0).await;
    let deadline = Instant::now() + DEADLINE;
    let mut killed = 0;
    while killed < 5 {
        assert!(Instant::now() < deadline, "killed {killed} times");
        let before = dead(&site).await;
        let replay = Process::start(
            "clerk-sync",
            &["dead-letters", "replay", "--all"],
            &site.env,
        );
        // Some have gone, and far from all.
        while dead(&site).await + 200 > before {
            assert!(Instant::now() < deadline, "{}", replay.output());
            sleep(Duration::from_millis(1)).await;
        }
        assert!(!replay.output().contains("replayed"), "it has ended");
        replay.kill().await;
        killed += 1;
    }
    let left = site.list(&[]).await["total"].as_u64().unwrap();
    assert!(left > 0, "the last one was killed in the middle too");
    let said = site.operator(&["replay", "--all"]).await.succeeded();
    assert!(said.contains("letters replayed"), "{said}");
    assert_eq!(site.list(&[]).await["total"], 0);
    eventually("every letter is applied", SOON * 2, async || {
        site.outcomes("created").await == LETTERS as i64
    })
    .await;
    assert_eq!(site.db.users().await.len(), LETTERS);
    site.close().await;
}

async fn a_discard_killed_again_and_again_takes_no_other_letter(on: On) {
    let site = Site::open(on, &[OTHER_INSTANCE]).await;
    let mut all = letters();
    for letter in all.iter_mut().step_by(2) {
        letter.body = b"no JSON".to_vec();
    }
    let half = LETTERS as u64 / 2;
    site.park(&all, LETTERS).await;
    let deadline = Instant::now() + DEADLINE;
    let discard = ["dead-letters", "discard", "--code", "malformed", "--yes"];
    for round in 0..6 {
        let discard = Process::start("clerk-sync", &discard, &site.env);
        // It tells what it will discard at the moment when it begins to.
        while !discard.output().contains("malformed") {
            assert!(Instant::now() < deadline, "{}", discard.output());
            sleep(Duration::from_millis(1)).await;
        }
        sleep(Duration::from_millis(round)).await;
        discard.kill().await;
        // What it had in hand is back when the broker has noticed.
        eventually("every other letter is there", SOON, async || {
            let list = site.list(&["--limit", "0"]).await;
            let count = |code| {
                let codes = codes(&list);
                let found = codes.iter().find(|(found, _)| *found == code);
                found.map_or(0, |(_, count)| *count)
            };
            assert!(count("malformed") <= half);
            count("wrong_instance") == half
        })
        .await;
    }
    site.operator(&discard[1..]).await.succeeded();
    let list = site.list(&["--limit", "0"]).await;
    assert_eq!(codes(&list), [("wrong_instance", half)]);
    // They are whole, too.
    let site = site.reopen_without(OTHER_INSTANCE.0).await;
    site.operator(&["replay", "--all"]).await.succeeded();
    eventually("the others are applied", SOON * 2, async || {
        site.outcomes("created").await == half as i64
    })
    .await;
    site.close().await;
}
