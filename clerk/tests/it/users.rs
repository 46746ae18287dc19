//! One user, some users, how many, and whose.

use std::time::{Duration, SystemTime};

use clerk_sync_clerk::backend::{ApiError, InstanceKind, MAX_IDS, Order};
use clerk_sync_stand_in::{Endpoint, Failure, StandIn};

use crate::{clerk, config};

#[tokio::test]
async fn a_user_is_the_bytes_that_clerk_sent() {
    let (clerk, backend) = clerk().await;
    // A number that no f64 holds, one of many digits, an escape that need not be one, odd spaces.
    let json = r#"{"id":"user_3EZfRtlIg6ccLSK12t7h1GeF41R", "object":"user","created_at":1780391007450,
        "updated_at":1780391007486 ,"public_metadata":{"n":9007199254740993,"d":0.10,"e":"\u00e9"}}"#;
    clerk.put(json);
    let user = backend.user("user_3EZfRtlIg6ccLSK12t7h1GeF41R").await;
    let user = user.unwrap().unwrap();
    assert_eq!(user.json.get(), json);
    assert_eq!(user.updated_at, Some(1_780_391_007_486));
    let page = backend.users_page(Order::NewestFirst { after: None }, 500);
    assert_eq!(page.await.unwrap()[0].json.get(), json);
    assert_eq!(
        format!("{user:?}"),
        "User(user_3EZfRtlIg6ccLSK12t7h1GeF41R as of 1780391007486)"
    );
}

/// Whoever writes it judges it.
#[tokio::test]
async fn a_user_without_a_time_is_a_user_and_spoils_no_page() {
    let (clerk, backend) = clerk().await;
    clerk.fill(2);
    for json in [
        r#"{"id":"user_null","object":"user","created_at":null,"updated_at":null}"#,
        r#"{"id":"user_none","object":"user"}"#,
    ] {
        clerk.put(json);
    }
    let page = backend.users_page(Order::NewestFirst { after: None }, 500);
    assert_eq!(page.await.unwrap().len(), 4);
    let user = backend.user("user_none").await.unwrap().unwrap();
    assert_eq!((user.updated_at, user.json.get().len()), (None, 34));
    let changed = backend.walk_changed(i64::MAX).next_page().await.unwrap();
    assert_eq!(changed.unwrap().len(), 2, "they may have changed just now");
}

#[tokio::test]
async fn a_user_whom_clerk_does_not_have_is_none() {
    let (clerk, backend) = clerk().await;
    let id = clerk.sign_up("maren@people.example");
    assert!(backend.user(&id).await.unwrap().is_some());
    clerk.remove(&id);
    assert!(backend.user(&id).await.unwrap().is_none());
}

/// A row may be deleted for it, so it must be Clerk's own word.
#[tokio::test]
async fn a_404_of_somebody_else_does_not_mean_that_a_user_is_gone() {
    let (clerk, backend) = clerk().await;
    let id = clerk.sign_up("maren@people.example");
    clerk.fail_next(1, Failure::Foreign(404));
    let error = backend.user(&id).await.unwrap_err();
    assert!(matches!(error, ApiError::Unreadable { .. }), "{error}");
    assert!(error.to_string().contains("CLERK_API_URL"), "{error}");
}

#[tokio::test]
async fn an_id_is_never_another_path() {
    let (clerk, backend) = clerk().await;
    clerk.sign_up("maren@people.example");
    for id in [
        "",
        ".",
        "..",
        "count",
        "../users",
        "a/b",
        "a?limit=1",
        "a#b",
        "%2e%2e",
        "ü",
    ] {
        assert!(backend.user(id).await.unwrap().is_none(), "{id}");
    }
    assert_eq!(clerk.requests(Endpoint::Users), 0);
    assert_eq!(clerk.requests(Endpoint::Count), 0);
    assert_eq!(clerk.requests(Endpoint::Other), 0);
}

#[tokio::test]
async fn a_probe_tells_who_of_100_is_still_there() {
    let (clerk, backend) = clerk().await;
    let ids = clerk.fill(150);
    let (asked, others) = ids.split_at(MAX_IDS);
    clerk.remove(&asked[3]);
    clerk.remove(&asked[99]);
    clerk.remove(&others[0]);
    let there = backend.users_by_id(asked).await.unwrap();
    let mut there: Vec<_> = there.into_iter().map(|user| user.id).collect();
    there.sort();
    let mut expected = asked.to_vec();
    expected.retain(|id| *id != asked[3] && *id != asked[99]);
    expected.sort();
    assert_eq!(there, expected);
    assert_eq!(clerk.requests(Endpoint::Users), 1);
}

/// `-user_…` would be everybody else, and no id at all everybody.
#[tokio::test]
async fn a_probe_of_ids_that_are_none_of_clerks_finds_nobody() {
    let (clerk, backend) = clerk().await;
    let ids = clerk.fill(3);
    let none: [&str; 0] = [];
    assert!(backend.users_by_id(&none).await.unwrap().is_empty());
    let signed = [format!("-{}", ids[0]), format!("+{}", ids[1])];
    assert!(backend.users_by_id(&signed).await.unwrap().is_empty());
    let mixed = [signed[0].as_str(), "seed-1", &ids[2]];
    let there = backend.users_by_id(&mixed).await.unwrap();
    assert_eq!(there.len(), 1);
    assert_eq!(there[0].id, ids[2]);
}

#[tokio::test]
async fn users_are_counted() {
    let (clerk, backend) = clerk().await;
    clerk.fill(1_234);
    assert_eq!(backend.count().await.unwrap(), 1_234);
}

#[tokio::test]
async fn a_key_is_of_the_instance_that_its_signing_keys_name() {
    let (clerk, backend) = clerk().await;
    let instance = backend.instance().await.unwrap();
    assert_eq!(instance.id, clerk.settings().instance_id);
    assert_eq!(instance.kind, InstanceKind::Production);
    let told = instance.time.unwrap();
    let apart = SystemTime::now().duration_since(told).unwrap_or_default();
    assert!(apart < Duration::from_secs(60), "{apart:?}");

    let test = StandIn::start().await;
    let backend = clerk_sync_clerk::backend::Backend::new(config(&test)).unwrap();
    let other = backend.instance().await.unwrap();
    assert_eq!(other.kind, InstanceKind::Development);
    assert_ne!(other.id, instance.id);
}

/// What is known of a moment must not be taken for older than it is.
#[tokio::test]
async fn a_user_says_when_clerk_was_asked_who_answered() {
    let (clerk, backend) = clerk().await;
    let id = clerk.sign_up("maren@people.example");
    clerk.fail_next(1, Failure::Status(429, Some(1)));
    let millis = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        i64::try_from(since.as_millis()).unwrap()
    };
    let began = millis(SystemTime::now());
    let user = backend.user(&id).await.unwrap().unwrap();
    let asked = began + 1_000..=millis(SystemTime::now());
    assert!(
        asked.contains(&user.asked_at),
        "{asked:?} {}",
        user.asked_at
    );
}
