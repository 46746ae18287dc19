//! Killed in the middle, again and again until it is done: no letter is lost.

use std::{cell::Cell, time::Duration};

use clerk_sync_projection::database;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
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
            let db = database::connect(&url, 1).await.unwrap();
            let count = "SELECT count(*) FROM events WHERE state = 'dead'";
            let count = Statement::from_string(DbBackend::Sqlite, count);
            let row = db.query_one_raw(count).await.unwrap().unwrap();
            let count: i64 = row.try_get_by_index(0).unwrap();
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

/// As [`dead`], once two looks agree: what was in a dead hand is back when the broker has noticed.
async fn at_rest(site: &Site) -> u64 {
    let found = Cell::new(u64::MAX);
    eventually("two looks agree", SOON, async || {
        sleep(Duration::from_millis(300)).await;
        let now = dead(site).await;
        found.replace(now) == now
    })
    .await;
    found.get()
}

async fn a_replay_killed_again_and_again_loses_no_letter(on: On) {
    let site = Site::open(on, &[OTHER_INSTANCE]).await;
    site.park(&letters(), LETTERS).await;
    let site = site.reopen_without(OTHER_INSTANCE.0).await;
    let deadline = Instant::now() + DEADLINE;
    let mut killed = 0;
    while killed < 5 {
        let before = at_rest(&site).await;
        assert!(before > 400, "enough for a middle");
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
    let others = &letters()[..LETTERS / 2];
    site.park(others, others.len()).await;
    let mut parked = others.len();
    let deadline = Instant::now() + DEADLINE;
    // Killed before the first went, or after the last, a discard shows nothing.
    let mut killed_in_the_middle = 0;
    while killed_in_the_middle < 2 {
        assert!(Instant::now() < deadline, "{killed_in_the_middle}");
        let before = malformed(&site, others.len()).await;
        let missing = LETTERS - before;
        let unreadable: Vec<_> = (0..missing).map(|_| Letter::new("no JSON")).collect();
        parked += missing;
        site.dead_letter(&unreadable, parked).await;
        settled(&site, others.len() + LETTERS).await;

        let discard = ["dead-letters", "discard", "--code", "malformed", "--yes"];
        let discard = Process::start("clerk-sync", &discard, &site.env);
        // It tells what it will discard at the moment when it begins to.
        while !discard.output().contains("malformed") {
            assert!(Instant::now() < deadline, "{}", discard.output());
            sleep(Duration::from_millis(1)).await;
        }
        if on == On::File {
            while dead(&site).await == others.len() as u64 + LETTERS as u64 {
                assert!(Instant::now() < deadline, "{}", discard.output());
            }
        }
        discard.kill().await;
        let left = malformed(&site, others.len()).await;
        if left > 0 && left < LETTERS {
            killed_in_the_middle += 1;
        }
    }
    while malformed(&site, others.len()).await > 0 {
        let discard = ["discard", "--code", "malformed", "--yes"];
        site.operator(&discard).await.succeeded();
    }
    // The others are whole, too.
    let site = site.reopen_without(OTHER_INSTANCE.0).await;
    site.operator(&["replay", "--all"]).await.succeeded();
    eventually("the others are applied", SOON * 2, async || {
        site.outcomes("created").await == others.len() as i64
    })
    .await;
    site.close().await;
}

/// How many malformed letters there are, once every other one is there, and two looks agree: what
/// was in a dead hand is back when the broker has noticed.
async fn malformed(site: &Site, others: usize) -> usize {
    let found = Cell::new(usize::MAX);
    eventually("every other letter is there", SOON, async || {
        let list = site.list(&["--limit", "0"]).await;
        let codes = codes(&list);
        let count = |code| {
            let found = codes.iter().find(|(found, _)| *found == code);
            found.map_or(0, |(_, count)| usize::try_from(*count).unwrap())
        };
        assert!(count("malformed") <= LETTERS && count("wrong_instance") <= others);
        let before = found.replace(count("malformed"));
        count("wrong_instance") == others && before == count("malformed")
    })
    .await;
    found.get()
}

/// So many letters are there.
async fn settled(site: &Site, letters: usize) {
    eventually("all are there", SOON, async || {
        dead(site).await == letters as u64
    })
    .await;
}
