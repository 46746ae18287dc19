//! Browsers: cookies, and pages of other sites.

use clerk_sync_pipeline::telemetry::{ApiEndpoint, ApiOutcome};
use reqwest::{Method, RequestBuilder};

use crate::{
    database::Home,
    rig::{Answer, ORIGIN, Rig},
};

const ATTACKER: &str = "https://attacker.example";

struct Browser {
    rig: Rig,
    token: String,
}

impl Browser {
    async fn start() -> Self {
        let rig = Rig::start(Home::sqlite().await).await;
        let id = rig.clerk.sign_up("maren@harbour-labs.example");
        let token = rig.clerk.session_token(&id);
        Self { rig, token }
    }

    fn ask(&self, method: Method, path: &str, origin: Option<&str>) -> RequestBuilder {
        let request = self.rig.client.request(method, self.rig.url(path));
        match origin {
            Some(origin) => request.header("origin", origin),
            None => request,
        }
    }

    fn with_cookie(&self, method: Method, path: &str, origin: Option<&str>) -> RequestBuilder {
        let cookies = format!("theme=dark; __session={}", self.token);
        self.ask(method, path, origin).header("cookie", cookies)
    }
}

#[tokio::test]
async fn a_cookie_says_who_asks() {
    let browser = Browser::start().await;
    let request = browser.with_cookie(Method::GET, "/api/users/me", None);
    let answer = Answer::to(request).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
}

#[tokio::test]
async fn a_page_of_another_site_cannot_sync_with_a_cookie() {
    let browser = Browser::start().await;
    let lookalike = format!("{ORIGIN}.attacker.example");
    for origin in [None, Some(ATTACKER), Some("null"), Some(&*lookalike)] {
        let request = browser.with_cookie(Method::POST, "/api/users/sync", origin);
        let answer = Answer::to(request).await;
        answer.refused(403, "origin_not_allowed");
        assert_eq!(answer.header("access-control-allow-origin"), "");
    }
    let refused = browser
        .rig
        .count(ApiEndpoint::Sync, ApiOutcome::ForeignOrigin);
    assert_eq!(refused, 4);
    let users = browser.rig.home.number("SELECT COUNT(*) FROM users").await;
    assert_eq!(users, 0, "nothing was done");

    let request = browser.with_cookie(Method::POST, "/api/users/sync", Some(ORIGIN));
    assert_eq!(Answer::to(request).await.status, 200);
}

#[tokio::test]
async fn only_pages_of_allowed_origins_may_read_the_answer() {
    let browser = Browser::start().await;
    for (origin, allowed) in [(ORIGIN, true), (ATTACKER, false)] {
        // Errors too: the page should see why.
        for token in [&browser.token, "whatever"] {
            let request = browser.ask(Method::GET, "/api/users/me", Some(origin));
            let answer = Answer::to(request.bearer_auth(token)).await;
            let expected = if allowed { origin } else { "" };
            assert_eq!(answer.header("access-control-allow-origin"), expected);
            let credentials = answer.header("access-control-allow-credentials");
            assert_eq!(credentials, if allowed { "true" } else { "" });
            assert_eq!(answer.header("vary"), "Origin");
        }
    }
}

#[tokio::test]
async fn a_preflight_is_allowed_for_allowed_origins() {
    let browser = Browser::start().await;
    for (path, method) in [("/api/users/me", "GET"), ("/api/users/sync", "POST")] {
        let ask = |origin| {
            let request = browser.ask(Method::OPTIONS, path, Some(origin));
            let request = request.header("access-control-request-method", method);
            Answer::to(request.header("access-control-request-headers", "authorization"))
        };
        let answer = ask(ORIGIN).await;
        assert_eq!(answer.status, 204);
        assert_eq!(answer.header("access-control-allow-origin"), ORIGIN);
        assert_eq!(answer.header("access-control-allow-methods"), method);
        let headers = answer.header("access-control-allow-headers");
        assert_eq!(headers, "Authorization, Content-Type");
        assert_eq!(answer.header("vary"), "Origin");
        let answer = ask(ATTACKER).await;
        assert_eq!(answer.header("access-control-allow-origin"), "");
        assert_eq!(answer.header("access-control-allow-methods"), "");
    }
}
