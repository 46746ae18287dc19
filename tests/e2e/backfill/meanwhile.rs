//! What happens at Clerk while a backfill is on its way.

use std::{collections::BTreeSet, time::Duration};

use clerk_sync_stand_in::{Endpoint, Failure, LostCursor, Settings, StandIn};

use super::{backfill, between, equals, production, summary};
use crate::harness::{process::Process, servers::TestDb};

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
