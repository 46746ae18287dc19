//! What is not answered, and why.

use clerk_sync_pipeline::telemetry::{ApiEndpoint, ApiOutcome, ClerkFetch};
use clerk_sync_projection::{ProjectionConfig, database};
use clerk_sync_stand_in::{Endpoint, Failure, Settings, StandIn};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    database::Home,
    rig::{Answer, Rig},
};

async fn rig() -> Rig {
    Rig::start(Home::sqlite().await).await
}

#[tokio::test]
async fn who_is_not_signed_in_is_told_why_with_clerks_code() {
    let rig = rig().await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    let other = StandIn::start().await;
    let claims = |claims| rig.clerk.token(&json!({}), &claims);
    let header = |header| rig.clerk.token(&header, &json!({ "sub": id }));
    for (token, code) in [
        ("whatever".to_owned(), "token-invalid"),
        (
            claims(json!({ "sub": id, "exp": 1_700_000_000 })),
            "token-expired",
        ),
        (
            claims(json!({ "sub": id, "nbf": 4_000_000_000_u64 })),
            "token-not-active-yet",
        ),
        (
            claims(json!({ "sub": id, "iat": 4_000_000_000_u64 })),
            "token-iat-in-the-future",
        ),
        (
            claims(json!({ "sub": id, "iss": "https://clerk.other.example" })),
            "token-verification-failed",
        ),
        (
            claims(json!({ "sub": id, "sts": "pending" })),
            "session-pending",
        ),
        (claims(json!({})), "token-verification-failed"),
        (claims(json!({ "sub": "mch_a" })), "token-type-mismatch"),
        (header(json!({ "alg": "none" })), "token-invalid-algorithm"),
        (
            header(json!({ "cat": "cl_B7d4PD222AAA" })),
            "token-type-mismatch",
        ),
        (header(json!({ "typ": "at+jwt" })), "token-type-mismatch"),
        (other.session_token(&id), "token-invalid-signature"),
    ] {
        for request in [rig.get_me(&token), rig.post_sync(&token)] {
            let answer = Answer::to(request).await;
            answer.refused(401, code);
            assert_eq!(answer.header("www-authenticate"), "Bearer");
            assert!(!answer.body.to_string().contains(&token));
        }
    }
    let nobody = Answer::to(rig.client.get(rig.url("/api/users/me"))).await;
    nobody.refused(401, "session-token-missing");
    assert_eq!(rig.clerk.requests(Endpoint::User), 0, "Clerk is not asked");
    assert_eq!(rig.count(ApiEndpoint::Me, ApiOutcome::Unauthenticated), 13);
}

#[tokio::test]
async fn a_token_made_for_another_application_is_refused() {
    let home = Home::sqlite().await;
    let more = [
        "--authorized-parties",
        "https://a.example.com,https://b.example.com",
    ];
    let rig = Rig::with(home, &more, ProjectionConfig::default()).await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    for (azp, status) in [
        (json!("https://b.example.com"), 200),
        (json!("https://c.example.com"), 401),
        (json!(null), 401),
    ] {
        let token = rig
            .clerk
            .token(&json!({}), &json!({ "sub": id, "azp": azp }));
        let answer = Answer::to(rig.get_me(&token)).await;
        assert_eq!(answer.status, status, "{azp}");
        if status == 401 {
            answer.refused(401, "token-invalid-authorized-parties");
        }
    }
}

#[tokio::test]
async fn a_request_that_is_none_of_this_api_is_refused() {
    let rig = rig().await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    let token = rig.clerk.session_token(&id);
    let post_me = rig.client.post(rig.url("/api/users/me"));
    let answer = Answer::to(post_me).await;
    answer.refused(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), "GET, OPTIONS");
    let get_sync = rig.client.get(rig.url("/api/users/sync"));
    let answer = Answer::to(get_sync).await;
    answer.refused(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), "POST, OPTIONS");
    for path in [
        "/",
        "/api/users",
        "/api/users/me/",
        "/api/users/ME",
        "/api//users/me",
    ] {
        let answer = Answer::to(rig.client.get(rig.url(path)).bearer_auth(&token)).await;
        answer.refused(404, "not_found");
    }
    let long = rig.post_sync(&token).body(vec![b'a'; 100_000]);
    Answer::to(long).await.refused(413, "body_too_large");
    let short = rig.post_sync(&token).body("{}");
    assert_eq!(Answer::to(short).await.status, 200, "a body does no harm");
}

#[tokio::test]
async fn an_address_that_a_row_of_the_application_holds_is_a_conflict() {
    let rig = rig().await;
    rig.home.has_stranger("maren@harbour-labs.example").await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    let answer = rig.me(&id).await;
    answer.refused(409, "email_taken");
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(
        detail.contains("was not made from Clerk's users"),
        "{detail}"
    );
    assert!(!detail.contains("maren"), "{detail}");
    // It is theirs again to decide.
    rig.home
        .run("UPDATE users SET email = 'old@example.com'")
        .await;
    assert_eq!(rig.me(&id).await.status, 200);
}

#[tokio::test]
async fn a_user_without_an_address_is_a_conflict() {
    let rig = rig().await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    rig.clerk.change(&id, |user| {
        user.insert("email_addresses".into(), json!([]));
        user.insert("primary_email_address_id".into(), json!(null));
    });
    rig.me(&id).await.refused(409, "missing_email");
}

#[tokio::test]
async fn a_text_that_no_database_takes_is_said_to_be_the_users() {
    let rig = rig().await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    rig.clerk.change(&id, |user| {
        user.insert("first_name".into(), "a\0b".into());
    });
    rig.me(&id).await.refused(422, "invalid_text");
}

#[tokio::test]
async fn while_clerk_is_away_rows_are_answered_and_the_rest_may_come_again() {
    let rig = rig().await;
    let held = rig.clerk.sign_up("maren@harbour-labs.example");
    assert_eq!(rig.me(&held).await.status, 200);
    let new = rig.clerk.sign_up("jonas@harbour-labs.example");
    rig.clerk.fail_next(1_000, Failure::Status(503, None));
    let (row, refused, synced) = tokio::join!(rig.me(&held), rig.me(&new), rig.sync(&held));
    assert_eq!(row.status, 200);
    refused.refused(503, "clerk_unavailable");
    synced.refused(503, "clerk_unavailable");
    assert_eq!(
        rig.metrics.clerk_fetches.get(ClerkFetch::Unavailable).get(),
        2
    );
    assert_eq!(rig.home.number("SELECT COUNT(*) FROM users").await, 1);
}

#[tokio::test]
async fn while_clerks_limit_is_used_up_who_asks_is_told_when_to_come_again() {
    let rig = rig().await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    rig.clerk.fail_next(1_000, Failure::Status(429, Some(30)));
    let answer = rig.me(&id).await;
    answer.refused(503, "clerk_rate_limited");
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert!((25..=30).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn a_secret_key_that_clerk_refuses_is_not_the_clients_fault() {
    let home = Home::sqlite().await;
    let clerk = StandIn::start_as(Settings::production()).await;
    let rig = Rig::of(
        home,
        clerk,
        "sk_live_wrong",
        &[],
        ProjectionConfig::default(),
    )
    .await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    rig.me(&id).await.refused(502, "clerk_key_refused");
}

/// Tokens of one instance, and the secret key of another, which knows none of the users.
#[tokio::test]
async fn the_key_of_another_instance_takes_nobody_away() {
    let (tokens, backend) = (
        StandIn::start_as(Settings::production()).await,
        StandIn::start().await,
    );
    let id = tokens.sign_up("maren@harbour-labs.example");
    let (key, issuer) = (
        format!("--clerk-jwt-key={}", tokens.jwt_key()),
        tokens.issuer(),
    );
    let (secret, home) = (backend.settings().secret_key.clone(), Home::sqlite().await);
    let more = ["--sync-floor", "0s", &key, "--clerk-proxy-url", &issuer];
    let rig = Rig::of(home, backend, &secret, &more, ProjectionConfig::default()).await;
    rig.webhook("user.created", &tokens.user(&id).unwrap())
        .await;
    let token = tokens.session_token(&id);
    assert_eq!(Answer::to(rig.get_me(&token)).await.status, 200);
    let answer = Answer::to(rig.post_sync(&token)).await;
    answer.refused(502, "wrong_instance");
    assert_eq!(
        Answer::to(rig.get_me(&token)).await.status,
        200,
        "the row is there"
    );
}

#[tokio::test]
async fn while_the_database_is_away_who_asks_may_come_again() {
    let mut home = Home::sqlite().await;
    let nowhere = "postgres://nobody@127.0.0.1:1/nothing".parse().unwrap();
    home.db = database::open(&nowhere, 2, true).await.unwrap();
    let rig = Rig::start(home).await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    let (me, sync) = tokio::join!(rig.me(&id), rig.sync(&id));
    me.refused(503, "database_unavailable");
    sync.refused(503, "database_unavailable");
}

/// Whoever cannot sign in is not waited for.
#[tokio::test]
async fn a_stranger_is_refused_before_the_body_has_come() {
    let rig = Rig::start(Home::sqlite().await).await;
    let mut connection = TcpStream::connect(rig.address).await.unwrap();
    let head = "POST /api/users/sync HTTP/1.1\r\nhost: a\r\nauthorization: Bearer not.a.token\r\n\
                content-length: 5\r\n\r\n";
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    connection.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 401");
}
