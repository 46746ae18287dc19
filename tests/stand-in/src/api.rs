//! The Backend API: who asks, whether it may, and what it gets.

use std::sync::Arc;

use http::{HeaderValue, Method, Response, header, request::Parts};
use serde_json::json;

use crate::{
    Endpoint, Failure, Instance,
    answer::{Answer, Body, dated},
    listing::Listing,
    server::HangUp,
};

/// Versions that Clerk has published.
const VERSIONS: [&str; 4] = ["2021-02-05", "2025-04-10", "2025-11-10", "2026-05-12"];

pub(crate) async fn answer(
    instance: &Arc<Instance>,
    request: Parts,
) -> Result<Response<Body>, HangUp> {
    let endpoint = endpoint(&request);
    let failure = instance.traffic.arrival(endpoint);
    tokio::time::sleep(instance.traffic.delay()).await;
    match failure {
        Some(Failure::HangUp) => Err(HangUp),
        Some(Failure::BreakOff) => Ok(respond(instance, endpoint, &request).into_broken_response()),
        Some(Failure::Status(status, retry_after)) => {
            let mut answer = Answer::error(status, "internal_clerk_error", "Oops", "As told.");
            answer.retry_after = retry_after;
            Ok(answer.into_response())
        }
        Some(Failure::NotFound) => Ok(Answer::not_found("As told.").into_response()),
        Some(Failure::Foreign(status)) => {
            let mut answer = Answer::error(status, "", "", "");
            answer.body = "<html>no such page</html>".into();
            let mut response = answer.into_response();
            if response.status().is_redirection() {
                let elsewhere = HeaderValue::from_static("/elsewhere");
                response.headers_mut().insert(header::LOCATION, elsewhere);
            }
            Ok(response)
        }
        None => {
            let response = respond(instance, endpoint, &request).into_response();
            Ok(dated(response, instance.traffic.clock_ahead_s()))
        }
    }
}

fn endpoint(request: &Parts) -> Endpoint {
    match request.uri.path() {
        "/v1/users" => Endpoint::Users,
        "/v1/users/count" => Endpoint::Count,
        "/v1/jwks" => Endpoint::Jwks,
        "/.well-known/jwks.json" => Endpoint::PublicJwks,
        path if path.starts_with("/v1/users/") && path.matches('/').count() == 3 => Endpoint::User,
        _ => Endpoint::Other,
    }
}

fn respond(instance: &Instance, endpoint: Endpoint, request: &Parts) -> Answer {
    if request.method != Method::GET {
        return Answer::error(
            405,
            "method_not_allowed",
            "not allowed",
            "Only GET is answered here.",
        );
    }
    // Public, and of another host in truth.
    if endpoint == Endpoint::PublicJwks {
        return Answer::json(&instance.signer.jwks());
    }
    if let Err(answer) = authorize(instance, request).and_then(|()| version(request)) {
        return answer;
    }
    if endpoint == Endpoint::Jwks {
        return Answer::json(&instance.signer.jwks());
    }
    if let Err(seconds) = instance.traffic.admit() {
        let mut answer = Answer::error(
            429,
            "too_many_requests",
            "Too many requests",
            "Too many requests, retry later",
        );
        answer.retry_after = Some(seconds);
        return answer;
    }
    let people = instance.people();
    match endpoint {
        Endpoint::Users | Endpoint::Count => {
            let query = request.uri.query().unwrap_or_default();
            let listing = match Listing::parse(query) {
                Ok(listing) => listing,
                Err(answer) => return answer,
            };
            if endpoint == Endpoint::Count {
                let total_count = listing.count(&people);
                return Answer::json(
                    &json!({ "object": "total_count", "total_count": total_count }),
                );
            }
            let cap = instance.traffic.page_cap();
            match listing.page(&people, instance.settings.lost_cursor, cap) {
                Ok(page) => Answer::ok(format!("[{}]", page.join(","))),
                Err(answer) => answer,
            }
        }
        Endpoint::User => {
            let id = request.uri.path().trim_start_matches("/v1/users/");
            match people.json(id) {
                Some(user) => Answer::ok(user),
                None => Answer::not_found(&format!("No user was found with id {id}")),
            }
        }
        Endpoint::Jwks | Endpoint::PublicJwks | Endpoint::Other => {
            Answer::not_found("There is nothing at this path.")
        }
    }
}

fn authorize(instance: &Instance, request: &Parts) -> Result<(), Answer> {
    let Some(value) = request.headers.get(header::AUTHORIZATION) else {
        return Err(Answer::error(
            401,
            "authentication_invalid",
            "Invalid authentication",
            "Unable to authenticate the request, you need to supply an active session",
        ));
    };
    let key = value.as_bytes().strip_prefix(b"Bearer ");
    if key == Some(instance.settings.secret_key.as_bytes()) {
        return Ok(());
    }
    let message = "The provided Clerk Secret Key is invalid. Make sure that your Clerk Secret Key \
                   is correct.";
    Err(Answer::error(401, "clerk_key_invalid", message, message))
}

/// By header or by query, not by both.
fn version(request: &Parts) -> Result<(), Answer> {
    let query = request.uri.query().unwrap_or_default();
    let mut query = url::form_urlencoded::parse(query.as_bytes());
    let in_query = query.find(|(name, _)| name == "__clerk_api_version");
    let in_header = request.headers.get("clerk-api-version");
    let in_header = in_header.map(|value| String::from_utf8_lossy(value.as_bytes()));
    let version = match (in_header, in_query) {
        (Some(_), Some(_)) => {
            return Err(Answer::error(
                400,
                "api_version_invalid",
                "invalid API version",
                "The version is given in the Clerk-API-Version header and in the query.",
            ));
        }
        (version, None) => version,
        (None, Some((_, version))) => Some(version),
    };
    match version {
        Some(version) if !VERSIONS.contains(&&*version) => Err(Answer::error(
            400,
            "api_version_invalid",
            "invalid API version",
            &format!("There is no version {version}."),
        )),
        _ => Ok(()),
    }
}
