//! The first page load after sign-up: the webhook is still on its way.

use clerk_sync_pipeline::telemetry::{ApiEndpoint, ApiOutcome, ClerkFetch};
use clerk_sync_projection::ProjectionConfig;
use clerk_sync_stand_in::Endpoint;
use futures_util::future::join_all;

use crate::{database::Home, on_both, rig::Rig};

const CALLS: usize = 200;
const CREDITS: i32 = 5;

async fn two_hundred_first_page_loads_make_one_fetch_and_one_row(home: Home) {
    let config = ProjectionConfig {
        initial_credits: CREDITS,
        ..ProjectionConfig::default()
    };
    let rig = Rig::with(home, &[], config).await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    // All are on their way before the first is answered.
    rig.clerk.set_delay(std::time::Duration::from_millis(300));

    let answers = join_all((0..CALLS).map(|_| rig.me(&id))).await;
    let first = &answers[0].body;
    for answer in &answers {
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        assert_eq!(answer.body, *first);
    }
    assert_eq!(first["clerkId"], id);
    assert_eq!(first["email"], "maren@harbour-labs.example");
    assert_eq!(first["credits"], CREDITS);
    assert_eq!(rig.clerk.requests(Endpoint::User), 1);
    let count = |sql| rig.home.number(sql);
    assert_eq!(count("SELECT COUNT(*) FROM users").await, 1);
    let answered = rig.count(ApiEndpoint::Me, ApiOutcome::Answered);
    assert_eq!(answered, CALLS as u64);
    assert_eq!(rig.metrics.clerk_fetches.get(ClerkFetch::Found).get(), 1);

    // The webhook arrives.
    let user = rig.clerk.user(&id).unwrap();
    let verdict = rig.webhook("user.created", &user).await;
    assert!(verdict.starts_with("Applied"), "{verdict}");
    assert_eq!(rig.me(&id).await.body, *first, "it changes nothing");
    assert_eq!(count("SELECT COUNT(*) FROM users").await, 1);
    assert_eq!(count("SELECT COUNT(*) FROM credits").await, 1);
    assert_eq!(rig.clerk.requests(Endpoint::User), 1);
}

async fn a_webhook_that_comes_meanwhile_does_no_harm(home: Home) {
    let rig = Rig::start(home).await;
    for number in 0..20 {
        let email = format!("person{number}@harbour-labs.example");
        let id = rig.clerk.sign_up(&email);
        let user = rig.clerk.user(&id).unwrap();
        let (answer, verdict) = tokio::join!(rig.me(&id), rig.webhook("user.created", &user));
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        assert_eq!(answer.body["email"], email);
        assert!(verdict.starts_with("Applied"), "{verdict}");
    }
    assert_eq!(rig.home.number("SELECT COUNT(*) FROM users").await, 20);
}

on_both! {
    two_hundred_first_page_loads_make_one_fetch_and_one_row
    a_webhook_that_comes_meanwhile_does_no_harm
}
