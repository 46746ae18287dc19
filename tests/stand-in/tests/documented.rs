//! What Clerk documents, and whether the stand-in does it: by a client that knows neither.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use clerk_sync_simulator::Plan;
use clerk_sync_stand_in::{Endpoint, Settings, StandIn};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};

struct Caller {
    clerk: StandIn,
    client: Client,
}

impl Caller {
    async fn new() -> Self {
        Self::of(Settings::default()).await
    }

    async fn of(settings: Settings) -> Self {
        Self {
            clerk: StandIn::start_as(settings).await,
            client: Client::new(),
        }
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let response = self.send(Method::GET, path, None).await;
        (response.status(), response.json().await.unwrap())
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Response {
        let url = format!("{}{path}", self.clerk.url());
        let request = self.client.request(method, url);
        let request = request.bearer_auth(&self.clerk.settings().secret_key);
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        request.body(body).send().await.unwrap()
    }

    async fn control(&self, method: Method, path: &str, body: Value) -> Value {
        let response = self.send(method, path, Some(body)).await;
        assert_eq!(response.status(), 200, "{path}");
        response.json().await.unwrap()
    }
}

fn ids(page: &Value) -> Vec<&str> {
    let users = page.as_array().unwrap().iter();
    users.map(|user| user["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_page_has_10_users_unless_told_and_501_means_10() {
    let caller = Caller::new().await;
    let everybody = caller.clerk.fill(600);
    for (query, length) in [
        ("", 10),
        ("?limit=1", 1),
        ("?limit=500", 500),
        ("?limit=501", 10),
    ] {
        let (status, page) = caller.get(&format!("/v1/users{query}")).await;
        assert_eq!(status, 200);
        assert_eq!(ids(&page).len(), length, "{query}");
        // The newest first.
        assert_eq!(ids(&page)[0], everybody[599]);
    }
}

#[tokio::test]
async fn orders_offsets_cursors_and_filters() {
    let caller = Caller::new().await;
    let everybody = caller.clerk.fill(20);
    caller.clerk.change(&everybody[4], |user| {
        user.insert("username".into(), "zz".into());
        user.insert("external_id".into(), "crm-4".into());
    });
    let at = |n: usize| everybody[n].as_str();
    let created = |n| {
        let user: Value = serde_json::from_str(&caller.clerk.user(at(n)).unwrap()).unwrap();
        user["created_at"].as_i64().unwrap()
    };
    let later = format!(
        "created_at_after={}&created_at_before={}",
        created(3),
        created(6)
    );
    let one_of = format!("user_id={}&user_id=%2B{}&user_id=user_nobody", at(1), at(2));
    let all_but = format!("user_id=-{}&limit=2", at(19));
    for (query, expected) in [
        ("order_by=%2Bcreated_at&limit=2", vec![at(0), at(1)]),
        ("order_by=created_at&offset=18", vec![at(18), at(19)]),
        ("order_by=-created_at&limit=2", vec![at(19), at(18)]),
        ("order_by=-updated_at&limit=2", vec![at(4), at(19)]),
        ("order_by=-username&limit=1", vec![at(4)]),
        (
            "order_by=-updated_at&order_by=%2Bcreated_at&limit=1",
            vec![at(4)],
        ),
        (
            &format!("order_by=%2Bcreated_at&starting_after={}", at(17)),
            vec![at(18), at(19)],
        ),
        (
            &format!("order_by=-created_at&starting_after={}", at(2)),
            vec![at(1), at(0)],
        ),
        (&later, vec![at(5), at(4)]),
        (&one_of, vec![at(2), at(1)]),
        (&all_but, vec![at(18), at(17)]),
        ("external_id=crm-4", vec![at(4)]),
        ("email_address=user7%40people.example", vec![at(7)]),
    ] {
        let (status, page) = caller.get(&format!("/v1/users?{query}")).await;
        assert_eq!(status, 200, "{query}: {page}");
        assert_eq!(ids(&page), expected, "{query}");
    }
    let (_, count) = caller.get(&format!("/v1/users/count?{one_of}")).await;
    assert_eq!(count, json!({ "object": "total_count", "total_count": 2 }));
}

#[tokio::test]
async fn what_cannot_be_asked_is_422_with_the_parameter() {
    let caller = Caller::new().await;
    let id = caller.clerk.sign_up("maren@people.example");
    let many = vec!["user_id=user_1"; 101].join("&");
    for (query, parameter) in [
        (
            format!("starting_after={id}&order_by=-updated_at"),
            "starting_after",
        ),
        (format!("starting_after={id}&offset=1"), "starting_after"),
        ("starting_after=user_nobody".into(), "starting_after"),
        ("order_by=shoe_size".into(), "order_by"),
        ("limit=many".into(), "limit"),
        ("updated_at_after=1".into(), "updated_at_after"),
        (many, "user_id"),
    ] {
        let (status, body) = caller.get(&format!("/v1/users?{query}")).await;
        assert_eq!(status, 422, "{query}");
        assert_eq!(
            body["errors"][0]["meta"]["param_name"], parameter,
            "{query}"
        );
        assert!(body["clerk_trace_id"].is_string());
    }
}

#[tokio::test]
async fn errors_have_clerks_codes() {
    let caller = Caller::new().await;
    let (status, body) = caller.get("/v1/users/user_nobody").await;
    assert_eq!(status, 404);
    assert_eq!(body["errors"][0]["code"], "resource_not_found");

    let url = format!("{}/v1/users/count", caller.clerk.url());
    let request = || caller.client.get(&url);
    let versioned = || {
        caller
            .client
            .get(format!("{url}?__clerk_api_version=2026-05-12"))
    };
    let right = &caller.clerk.settings().secret_key;
    for (request, status, code) in [
        (request(), 401, "authentication_invalid"),
        (
            request().bearer_auth("sk_test_other"),
            401,
            "clerk_key_invalid",
        ),
        (
            request()
                .bearer_auth(right)
                .header("clerk-api-version", "1999-01-01"),
            400,
            "api_version_invalid",
        ),
        (
            versioned()
                .bearer_auth(right)
                .header("clerk-api-version", "2026-05-12"),
            400,
            "api_version_invalid",
        ),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status);
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["errors"][0]["code"], code);
    }
}

#[tokio::test]
async fn the_limit_is_the_instances_and_jwks_is_free_of_it() {
    let caller = Caller::of(Settings {
        requests_per_10s: Some(3),
        ..Settings::default()
    })
    .await;
    for path in ["/v1/users", "/v1/users/count", "/v1/users/user_nobody"] {
        assert_ne!(caller.get(path).await.0, 429);
    }
    let refused = caller.send(Method::GET, "/v1/users", None).await;
    assert_eq!(refused.status(), 429);
    let seconds: u64 = refused.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=10).contains(&seconds), "{seconds}");
    assert_eq!(caller.get("/v1/jwks").await.0, 200);
    // It was true.
    tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
    assert_eq!(caller.get("/v1/users").await.0, 200);
    assert_eq!(caller.clerk.rate_limited(), 1);
}

#[tokio::test]
async fn a_session_token_is_signed_by_the_key_that_is_published() {
    let caller = Caller::new().await;
    let request =
        json!({ "user_id": "user_1", "claims": { "azp": "http://localhost:3000", "sts": null } });
    let minted = caller
        .control(Method::POST, "/_control/session-tokens", request)
        .await;
    let token = minted["token"].as_str().unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let [header, claims]: [Value; 2] =
        [header, claims].map(|part| serde_json::from_slice(&decode(part)).unwrap());
    assert_eq!(claims["sub"], "user_1");
    assert_eq!(claims["azp"], "http://localhost:3000");
    assert_eq!(claims.get("sts"), None);
    assert_eq!(claims["iss"], caller.clerk.issuer());

    let public = format!("{}/.well-known/jwks.json", caller.clerk.url());
    let public: Value = caller
        .client
        .get(public)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(public, caller.get("/v1/jwks").await.1);
    let key = &public["keys"][0];
    assert_eq!(key["kid"], caller.clerk.settings().instance_id);
    assert_eq!(key["kid"], header["kid"]);
    let components = RsaPublicKeyComponents {
        n: decode(key["n"].as_str().unwrap()),
        e: decode(key["e"].as_str().unwrap()),
    };
    components
        .verify(
            &RSA_PKCS1_2048_8192_SHA256,
            signed.as_bytes(),
            &decode(signature),
        )
        .unwrap();
    assert!(
        caller
            .clerk
            .jwt_key()
            .starts_with("-----BEGIN PUBLIC KEY-----\n")
    );
}

#[tokio::test]
async fn users_are_put_changed_and_removed_by_control() {
    let caller = Caller::new().await;
    let made = caller.control(
        Method::POST,
        "/_control/users",
        json!({ "email": "a@people.example" }),
    );
    let id = made.await["id"].as_str().unwrap().to_owned();
    let path = format!("/_control/users/{id}");
    let before = caller.get(&format!("/v1/users/{id}")).await.1;
    caller
        .control(Method::PUT, &path, json!({ "first_name": "Zoë" }))
        .await;
    let after = caller.get(&format!("/v1/users/{id}")).await.1;
    assert_eq!(after["first_name"], "Zoë");
    assert_eq!(
        after["email_addresses"][0]["email_address"],
        "a@people.example"
    );
    assert!(after["updated_at"].as_i64() > before["updated_at"].as_i64());
    caller.control(Method::DELETE, &path, json!(null)).await;
    assert_eq!(caller.get(&format!("/v1/users/{id}")).await.0, 404);
    // Ids are not used again.
    let again = caller.send(
        Method::PUT,
        &path,
        Some(json!({ "email": "a@people.example" })),
    );
    assert_eq!(again.await.status(), 400);
    let requests = caller.send(Method::GET, "/_control/requests", None).await;
    let requests: Value = requests.json().await.unwrap();
    assert_eq!(requests["user"], 3);
    assert_eq!(caller.clerk.requests(Endpoint::User), 3);
}

#[tokio::test]
async fn failures_are_told_by_control_and_ended_by_it() {
    let caller = Caller::new().await;
    let failures = |count| json!({ "count": count, "status": 503 });
    let told = caller.control(Method::POST, "/_control/failures", failures(100));
    assert_eq!(told.await, json!({}));
    assert_eq!(caller.get("/v1/users").await.0, 503);
    assert_eq!(caller.get("/v1/users/count").await.0, 503);
    let ended = caller.control(Method::POST, "/_control/failures", failures(0));
    assert_eq!(ended.await, json!({}));
    assert_eq!(caller.get("/v1/users").await.0, 200);
}

#[tokio::test]
async fn a_simulated_instance_is_followed_event_by_event() {
    let history = Plan {
        seed: 5,
        users: 12,
        rounds: 12,
    }
    .live();
    let clerk = StandIn::start().await;
    for (n, event) in (1..).zip(&history.events) {
        clerk.follow(event);
        let there = history.users_after(n);
        assert_eq!(clerk.count(), there.len(), "after {event:?}");
        for (id, user) in there {
            assert_eq!(clerk.user(id).as_deref(), Some(&*user), "after {event:?}");
        }
    }
    // Whoever is there in the end has a row in the end.
    let rows = history.table(clerk_sync_simulator::Addressless::Placeholder);
    assert_eq!(rows.len(), clerk.count());
    for row in rows {
        let user: Value = serde_json::from_str(&clerk.user(&row.clerk_id).unwrap()).unwrap();
        assert_eq!(user["updated_at"], row.updated_at);
    }
}
