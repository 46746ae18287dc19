//! How often Clerk is asked.

use std::time::Duration;

use clerk_sync_projection::ProjectionConfig;
use clerk_sync_stand_in::{Endpoint, Failure};
use futures_util::future::join_all;

use crate::{PATIENCE, database::Home, rig::Rig};

async fn rig(floor: &str) -> Rig {
    let home = Home::sqlite().await;
    Rig::with(home, &["--sync-floor", floor], ProjectionConfig::default()).await
}

async fn clerk_is_asked(rig: &Rig) {
    let asked = async {
        while rig.clerk.requests(Endpoint::User) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap();
}

#[tokio::test]
async fn whoever_syncs_without_end_makes_us_ask_no_more_often_than_the_floor() {
    let rig = rig("1h").await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    for _ in 0..20 {
        assert_eq!(rig.sync(&id).await.status, 200);
    }
    assert_eq!(rig.clerk.requests(Endpoint::User), 1);
    // Another user is another matter.
    let other = rig.clerk.sign_up("jonas@harbour-labs.example");
    assert_eq!(rig.sync(&other).await.status, 200);
    assert_eq!(rig.clerk.requests(Endpoint::User), 2);
}

#[tokio::test]
async fn a_refusal_is_remembered_as_long_as_an_answer() {
    let rig = rig("1h").await;
    rig.home.has_stranger("maren@harbour-labs.example").await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    for _ in 0..5 {
        rig.me(&id).await.refused(409, "email_taken");
    }
    assert_eq!(rig.clerk.requests(Endpoint::User), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_first_may_go_away() {
    let rig = rig("0s").await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    rig.clerk.set_delay(Duration::from_millis(500));
    let token = rig.clerk.session_token(&id);
    let first = tokio::spawn(rig.get_me(&token).send());
    clerk_is_asked(&rig).await;
    let others = join_all((0..10).map(|_| rig.me(&id)));
    let leave = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        first.abort();
    };
    let (answers, ()) = tokio::join!(others, leave);
    for answer in answers {
        assert_eq!(answer.status, 200, "{:?}", answer.body);
    }
    assert_eq!(rig.clerk.requests(Endpoint::User), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_that_nobody_waits_for_any_more_is_over_when_it_ends() {
    let rig = rig("0s").await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    rig.clerk.set_delay(Duration::from_millis(300));
    let token = rig.clerk.session_token(&id);
    let only = tokio::spawn(rig.post_sync(&token).send());
    clerk_is_asked(&rig).await;
    only.abort();
    let applied = async {
        while rig.home.number("SELECT COUNT(*) FROM users").await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, applied).await.unwrap();
    rig.clerk.change(&id, |user| {
        user.insert("first_name".into(), "Somebody".into());
        user.insert("last_name".into(), "Else".into());
    });
    // The row was there a moment before the fetch was over.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(rig.sync(&id).await.body["name"], "Somebody Else");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_is_everybodys_who_waited_and_not_of_those_who_come_later() {
    let rig = rig("0s").await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    // Long enough for all to ask meanwhile, also on a busy machine.
    rig.clerk.set_delay(Duration::from_secs(2));
    rig.clerk.fail_next(1, Failure::Foreign(404));
    for answer in join_all((0..10).map(|_| rig.me(&id))).await {
        answer.refused(502, "clerk_answer");
    }
    assert_eq!(rig.clerk.requests(Endpoint::User), 1);
    assert_eq!(rig.me(&id).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_that_was_begun_is_ended_before_the_process_is() {
    let mut rig = rig("0s").await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    rig.clerk.set_delay(Duration::from_millis(500));
    let token = rig.clerk.session_token(&id);
    let request = tokio::spawn(rig.get_me(&token).send());
    clerk_is_asked(&rig).await;
    rig.shutdown.request();
    let answer = request.await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    tokio::time::timeout(PATIENCE, &mut rig.server)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(rig.home.number("SELECT COUNT(*) FROM users").await, 1);
}
