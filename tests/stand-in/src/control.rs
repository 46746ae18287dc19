//! `/_control`: what tests in other languages, and people, do to the instance. Clerk has nothing of
//! the kind.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{Endpoint, Failure, Instance, answer::Answer};

const PREFIX: &str = "/_control/";
/// Largest body.
const MAX_BODY_BYTES: usize = 4 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fill {
    count: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    user_id: String,
    /// In place of the usual ones; `null` leaves one out.
    #[serde(default)]
    claims: Value,
    #[serde(default)]
    header: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Failures {
    count: usize,
    status: u16,
    retry_after: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delay {
    ms: u64,
}

pub(crate) fn is_control(request: &Request<Incoming>) -> bool {
    request.uri().path().starts_with(PREFIX)
}

pub(crate) async fn answer(instance: &Arc<Instance>, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return refused(&error.to_string()),
    };
    let path = parts.uri.path().trim_start_matches(PREFIX);
    let path: Vec<&str> = path.split('/').collect();
    let done = match (&parts.method, path.as_slice()) {
        (&Method::PUT, ["users", id]) => put(instance, id, &body),
        (&Method::DELETE, ["users", id]) => {
            let was = instance.people().remove(id);
            Ok(json!({ "removed": was }))
        }
        (&Method::POST, ["users"]) => sign_up(instance, &body),
        (&Method::POST, ["fill"]) => read(&body).map(|Fill { count }| {
            instance.fill(count);
            json!({ "users": instance.people().len() })
        }),
        (&Method::POST, ["session-tokens"]) => read(&body).map(|token| mint(instance, token)),
        (&Method::POST, ["failures"]) => read(&body).map(|failures: Failures| {
            let failure = Failure::Status(failures.status, failures.retry_after);
            // In place of what is left of the last ones, so that 0 ends them.
            instance.traffic.fail_no_more();
            instance.traffic.fail_next(failures.count, failure);
            json!({})
        }),
        (&Method::PUT, ["delay"]) => read(&body).map(|Delay { ms }| {
            instance.traffic.set_delay(Duration::from_millis(ms));
            json!({})
        }),
        (&Method::GET, ["requests"]) => Ok(requests(instance)),
        _ => return Answer::not_found("There is no such control."),
    };
    match done {
        Ok(body) => Answer::json(&body),
        Err(problem) => refused(&problem),
    }
}

/// A whole user is kept to the byte; anything less changes the user there is, or makes one.
fn put(instance: &Instance, id: &str, body: &Bytes) -> Result<Value, String> {
    let fields: Value = read(body)?;
    if fields["object"] == "user" {
        if fields["id"] != id {
            return Err("the id of the body is not that of the path".into());
        }
        let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
        instance.put(text)?;
    } else if instance.people().json(id).is_some() {
        instance.change(id, |user| {
            let mut changed = Value::Object(std::mem::take(user));
            crate::sample::describe(&mut changed, &fields);
            if let Value::Object(changed) = changed {
                *user = changed;
            }
        })?;
    } else {
        let mut user = crate::sample::user(0, crate::now());
        crate::sample::describe(&mut user, &fields);
        user["id"] = id.into();
        instance.put(&user.to_string())?;
    }
    Ok(json!({ "id": id }))
}

fn sign_up(instance: &Instance, body: &Bytes) -> Result<Value, String> {
    let fields: Value = read(body)?;
    if !fields.is_object() {
        return Err("the body is not an object of a user's fields".into());
    }
    Ok(json!({ "id": instance.sign_up(&fields) }))
}

fn mint(instance: &Instance, token: Token) -> Value {
    let mut claims = token.claims;
    if !claims.is_object() {
        claims = json!({});
    }
    if claims.get("sub").is_none() {
        claims["sub"] = token.user_id.into();
    }
    json!({ "token": instance.signer.token(&token.header, &claims) })
}

fn requests(instance: &Instance) -> Value {
    let count = |endpoint| instance.traffic.count(endpoint);
    json!({
        "user": count(Endpoint::User),
        "users": count(Endpoint::Users),
        "count": count(Endpoint::Count),
        "jwks": count(Endpoint::Jwks),
        "public_jwks": count(Endpoint::PublicJwks),
        "other": count(Endpoint::Other),
        "rate_limited": instance.traffic.rate_limited(),
    })
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

fn refused(problem: &str) -> Answer {
    Answer::error(400, "control_refused", "refused", problem)
}
