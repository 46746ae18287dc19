//! The instance's limit, which the application's own requests share.

use std::{num::NonZeroU32, time::Duration};

use clerk_sync_clerk::backend::{ApiError, Backend, BackendConfig};
use clerk_sync_stand_in::{Endpoint, Failure, Settings, StandIn};
use tokio::{task::JoinSet, time::Instant};

use crate::{clerk, clerk_as, config};

#[tokio::test]
async fn one_429_pauses_everybody_and_everybody_is_answered() {
    const CALLS: usize = 8;
    // Somebody else has used most of the limit: of the client's budget 5 requests are left.
    let (clerk, backend) = clerk_as(Settings {
        requests_per_10s: Some(5),
        ..Settings::production()
    })
    .await;
    clerk.fill(3);
    let start = Instant::now();
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        let backend = backend.clone();
        calls.spawn(async move { backend.count().await.unwrap() });
    }
    assert_eq!(calls.join_all().await, [3; CALLS]);
    assert!(
        start.elapsed() >= Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
    // Refused are only those that were on their way when the limit was reached.
    let (calls, refused) = (CALLS as u64, clerk.rate_limited());
    assert!((1..=calls - 5).contains(&refused), "{refused} refused");
    assert_eq!(clerk.requests(Endpoint::Count), calls + refused);
}

#[tokio::test]
async fn who_has_no_time_for_the_pause_hears_how_long_it_is_and_asks_nothing() {
    let (clerk, backend) = clerk().await;
    let id = clerk.sign_up("maren@people.example");
    clerk.fail_next(1, Failure::Status(429, Some(30)));
    let hasty = backend.with_patience(Duration::from_secs(5));
    for _ in 0..3 {
        let start = Instant::now();
        let error = hasty.user(&id).await.unwrap_err();
        assert!(matches!(error, ApiError::RateLimited { .. }), "{error:?}");
        assert!(error.to_string().contains("rate limit"), "{error}");
        let retry_after = error.retry_after().unwrap();
        let about = Duration::from_secs(20)..=Duration::from_secs(30);
        assert!(about.contains(&retry_after), "{retry_after:?}");
        assert!(
            start.elapsed() < Duration::from_secs(4),
            "{:?}",
            start.elapsed()
        );
    }
    assert_eq!(clerk.requests(Endpoint::User), 1);
}

#[tokio::test]
async fn the_budget_is_below_the_limit_so_that_clerk_never_has_to_refuse() {
    const LIMIT: u32 = 40;
    let clerk = StandIn::start_as(Settings {
        requests_per_10s: Some(LIMIT as usize),
        ..Settings::production()
    })
    .await;
    let backend = Backend::new(BackendConfig {
        requests_per_10s: NonZeroU32::new(LIMIT * 9 / 10).unwrap(),
        ..config(&clerk)
    });
    let backend = backend.unwrap();
    let mut calls = JoinSet::new();
    for _ in 0..LIMIT + 5 {
        let backend = backend.clone();
        calls.spawn(async move { backend.count().await.unwrap() });
    }
    calls.join_all().await;
    assert_eq!(clerk.rate_limited(), 0);
}
