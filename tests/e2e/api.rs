//! The API beside the webhooks, in `clerk-sync up`.

use clerk_sync_stand_in::{Settings, StandIn};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    SOON,
    clerk::{Letter, SECRET, client, now, post},
    eventually,
    process::{Process, base_env},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_api_and_the_webhooks_share_a_port_and_a_table() {
    let (clerk, folder) = (
        StandIn::start_as(Settings::production()).await,
        TempDir::new().unwrap(),
    );
    let mut env = base_env();
    let data = folder.path().to_str().unwrap().to_owned();
    env.insert("CLERK_SYNC_DATA", data);
    env.insert("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned());
    env.insert("CLERK_SECRET_KEY", clerk.settings().secret_key.clone());
    env.insert("CLERK_API_URL", clerk.url());
    env.insert("CLERK_JWT_KEY", clerk.jwt_key().to_owned());
    let up = Process::start("clerk-sync", &["up"], &env);
    let webhooks = up.webhook_url().await;
    up.ready().await;
    let me = format!("http://{}/api/users/me", up.address("LISTEN").await);
    let ask = async |user_id: &str| {
        let token = clerk.session_token(user_id);
        let answer = client().get(&me).bearer_auth(token).send().await.unwrap();
        (
            answer.status().as_u16(),
            json_of(&answer.text().await.unwrap()),
        )
    };

    // The page is faster than the webhook.
    let id = clerk.sign_up("maren@harbour-labs.example");
    let (status, first) = ask(&id).await;
    assert_eq!((status, &first["clerkId"]), (200, &json!(id)));
    let user = json_of(&clerk.user(&id).unwrap());
    let created = letter("user.created", &user);
    assert_eq!(post(&client(), &webhooks, &created).await, 204);
    eventually("the webhook is applied", SOON, async || {
        up.metric("clerk_sync_events_total", r#"type="user.created""#)
            .await
            >= 1.0
    })
    .await;
    assert_eq!(ask(&id).await, (200, first));

    // The webhook is faster than the page.
    let gone = json!({ "id": id, "deleted": true, "object": "user" });
    let deleted = letter("user.deleted", &gone);
    assert_eq!(post(&client(), &webhooks, &deleted).await, 204);
    eventually("the user is gone", SOON, async || ask(&id).await.0 == 404).await;
    assert_eq!(ask(&id).await.1["error"], "user_deleted");
    up.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_secret_key_there_is_no_api() {
    let folder = TempDir::new().unwrap();
    let mut env = base_env();
    let data = folder.path().to_str().unwrap().to_owned();
    env.insert("CLERK_SYNC_DATA", data);
    env.insert("CLERK_SECRET_KEY", String::new());
    let up = Process::start("clerk-sync", &["up"], &env);
    let me = format!("http://{}/api/users/me", up.address("LISTEN").await);
    let answer = client().get(&me).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 404);
    up.stop().await;
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn letter(event_type: &str, data: &Value) -> Letter {
    let body = json!({
        "data": data, "object": "event", "type": event_type, "timestamp": now() * 1_000,
    });
    Letter::new(body.to_string())
}
