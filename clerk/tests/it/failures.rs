//! What goes wrong on the way, and what does not.

use std::{net::TcpListener, time::Duration};

use clerk_sync_clerk::backend::{ApiError, Backend, BackendConfig, Order};
use clerk_sync_stand_in::{Endpoint, Failure, StandIn};
use tokio::time::Instant;

use crate::{clerk, config};

#[tokio::test]
async fn what_may_be_better_the_next_time_is_asked_again() {
    let (clerk, backend) = clerk().await;
    let id = clerk.sign_up("maren@people.example");
    let failures = [
        Failure::Status(500, None),
        Failure::Status(503, None),
        Failure::Foreign(502),
        Failure::HangUp,
        Failure::BreakOff,
        Failure::Status(429, Some(1)),
    ];
    for (n, failure) in (1..).zip(failures) {
        clerk.fail_next(1, failure);
        let user = backend.user(&id).await;
        assert!(user.unwrap().is_some(), "{failure:?}");
        assert_eq!(clerk.requests(Endpoint::User), 2 * n, "{failure:?}");
    }
}

#[tokio::test]
async fn what_will_not_be_better_is_asked_once() {
    let (clerk, backend) = clerk().await;
    for status in [400, 402, 403, 409, 422] {
        let before = clerk.requests(Endpoint::Users);
        clerk.fail_next(1, Failure::Status(status, None));
        let page = backend.users_page(Order::OldestFirst { after: None }, 500);
        let error = page.await.unwrap_err();
        assert!(!error.is_transient(), "{status}: {error}");
        assert!(error.to_string().contains(&status.to_string()), "{error}");
        assert_eq!(clerk.requests(Endpoint::Users), before + 1, "{status}");
    }
}

#[tokio::test]
async fn a_key_that_clerk_refuses_is_told_with_the_cure_and_without_the_key() {
    let (clerk, _) = clerk().await;
    let mut config = config(&clerk);
    config.secret_key = "sk_live_rotated4f91".parse().unwrap();
    let backend = Backend::new(config.clone()).unwrap();
    let error = backend.count().await.unwrap_err();
    assert!(matches!(error, ApiError::KeyRefused { .. }), "{error:?}");
    assert!(!error.is_transient());
    let text = format!("{error} {error:?} {backend:?} {config:?}");
    for part in [
        "CLERK_SECRET_KEY",
        "clerk_key_invalid",
        "API keys",
        "trace id",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("rotated4f91"), "{text}");
    assert_eq!(clerk.requests(Endpoint::Count), 1);
}

#[tokio::test]
async fn a_clerk_that_does_not_answer_is_unavailable_when_the_caller_has_no_more_time() {
    let (clerk, _) = clerk().await;
    clerk.set_delay(Duration::from_secs(600));
    let backend = Backend::new(BackendConfig {
        timeout: Duration::from_millis(200),
        patience: Duration::from_millis(1_500),
        ..config(&clerk)
    });
    let start = Instant::now();
    let error = backend.unwrap().count().await.unwrap_err();
    assert!(matches!(error, ApiError::Unavailable { .. }), "{error:?}");
    assert!(error.is_transient());
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    assert!(
        clerk.requests(Endpoint::Count) >= 2,
        "a slow attempt is given up and repeated"
    );
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_named_unavailable() {
    let (clerk, _) = clerk().await;
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let backend = Backend::new(BackendConfig {
        api_url: nobody.parse().unwrap(),
        patience: Duration::from_millis(300),
        ..config(&clerk)
    });
    let error = backend.unwrap().count().await.unwrap_err();
    assert!(error.to_string().contains("no connection"), "{error}");
    assert!(error.is_transient());
}

#[tokio::test]
async fn an_answer_of_another_shape_is_an_error_that_repeats_nothing_of_it() {
    let (clerk, backend) = clerk().await;
    let id = clerk.sign_up("maren@people.example");
    clerk.fail_next(1, Failure::Foreign(200));
    let error = backend.user(&id).await.unwrap_err();
    assert!(matches!(error, ApiError::Unreadable { .. }), "{error:?}");
    assert!(!error.to_string().contains("html"), "{error}");
}

#[tokio::test]
async fn a_redirection_is_not_followed_with_the_key() {
    let (clerk, backend) = clerk().await;
    clerk.fail_next(1, Failure::Foreign(302));
    let error = backend.count().await.unwrap_err();
    assert!(matches!(error, ApiError::Unreadable { .. }), "{error:?}");
    assert_eq!(clerk.requests(Endpoint::Count), 1);
    assert_eq!(clerk.requests(Endpoint::Other), 0);
}

#[tokio::test]
async fn an_answer_without_end_is_given_up() {
    let clerk = StandIn::start().await;
    let backend = Backend::new(config(&clerk)).unwrap();
    let endless = "x".repeat(65 << 20);
    clerk.put(&format!(
        r#"{{"id":"user_1","object":"user","created_at":1,"updated_at":2,"x":"{endless}"}}"#
    ));
    let error = backend.user("user_1").await.unwrap_err();
    assert!(error.to_string().contains("larger than 64 MiB"), "{error}");
}
