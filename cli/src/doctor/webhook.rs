//! The webhook's address: whether ours answers there, and refuses what Clerk has not signed.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use clerk_sync_entity::processed_events::PROBES;
use clerk_sync_pipeline::{Millis, secret::ServerUrl};
use reqwest::{Client, header::CONTENT_TYPE, redirect};
use serde::Deserialize;
use svix::webhooks::Webhook;

use super::{
    network::PATIENCE,
    report::{Group, Line},
};

/// Longest wait for an answer: ours come within 10 s, Svix waits 15 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Largest answer that is read: ours have some 200 bytes.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// A signature that no secret makes.
const FORGED: &str = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// Posts events as Svix does.
pub(super) struct Poster {
    client: Client,
    url: ServerUrl,
}

/// What was answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The code of an answer of ours that is no success.
    pub(super) code: Option<String>,
    pub(super) took: Duration,
}

/// Why there was no answer.
#[derive(Debug)]
pub(super) struct NoAnswer {
    /// What happened, down to its cause; without the URL, which is said beside it.
    pub(super) cause: String,
    /// Whether it is certain that nothing was sent.
    pub(super) unsent: bool,
}

impl From<reqwest::Error> for NoAnswer {
    fn from(error: reqwest::Error) -> Self {
        let unsent = error.is_connect();
        let error = anyhow::Error::from(error.without_url());
        let cause = error.root_cause();
        Self {
            cause: format!("no answer: {cause}"),
            unsent,
        }
    }
}

impl Poster {
    pub(super) fn new(url: &ServerUrl) -> anyhow::Result<Self> {
        let client = Client::builder()
            .connect_timeout(PATIENCE)
            .timeout(ANSWER_WITHIN)
            // Svix follows none.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("clerk-sync-doctor/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("no HTTP client can be made")?;
        Ok(Self {
            client,
            url: url.clone(),
        })
    }

    /// Posts a signed event.
    pub(super) async fn signed(
        &self,
        webhook: &Webhook,
        id: &str,
        body: &str,
    ) -> Result<Answer, NoAnswer> {
        let now = Millis::now().0 / 1000;
        let signature = webhook.sign(id, now, body.as_bytes());
        let signature = signature.expect("a JSON text can be signed");
        self.post(id, now, &signature, body).await
    }

    /// Posts an event that somebody else has signed.
    async fn forged(&self) -> Result<Answer, NoAnswer> {
        let id = format!("{PROBES}{:032x}", rand::random::<u128>());
        self.post(&id, Millis::now().0 / 1000, FORGED, "{}").await
    }

    async fn post(
        &self,
        id: &str,
        at: i64,
        signature: &str,
        body: &str,
    ) -> Result<Answer, NoAnswer> {
        #[derive(Deserialize)]
        struct Problem {
            error: String,
        }
        let started = Instant::now();
        let request = self
            .client
            .post(self.url.expose().clone())
            .header(CONTENT_TYPE, "application/json")
            .header("svix-id", id)
            .header("svix-timestamp", at)
            .header("svix-signature", signature)
            .body(body.to_owned());
        let mut response = request.send().await?;
        let took = started.elapsed();
        let is_problem = response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/problem+json"));
        let mut body = Vec::new();
        // Of somebody else's page nothing is read.
        while is_problem && body.len() < MAX_ANSWER_BYTES {
            match response.chunk().await? {
                Some(chunk) => body.extend_from_slice(&chunk),
                None => break,
            }
        }
        let problem: Option<Problem> = serde_json::from_slice(&body).ok();
        Ok(Answer {
            status: response.status().as_u16(),
            code: problem.map(|problem| problem.error),
            took,
        })
    }
}

pub(super) async fn examine(url: &ServerUrl) -> Group {
    let answer = match Poster::new(url) {
        Ok(poster) => poster.forged().await.map_err(|no_answer| no_answer.cause),
        Err(error) => Err(format!("{error:#}")),
    };
    Group::new("webhook", vec![judge(url, &answer)])
}

fn judge(url: &ServerUrl, answer: &Result<Answer, String>) -> Line {
    const NAME: &str = "webhook";
    match answer {
        Ok(answer) if is_refused_as_it_should_be(answer) => {
            let text = format!("{url} is ours, and refuses what Clerk has not signed (401)");
            Line::ok(NAME, text).took(answer.took)
        }
        Ok(answer) => {
            let (found, cure) = explain(answer);
            Line::problem(NAME, format!("{url} {found}"), cure)
        }
        Err(cause) => Line::problem(NAME, format!("{url}: {cause}"), UNREACHABLE),
    }
}

fn is_refused_as_it_should_be(answer: &Answer) -> bool {
    answer.status == 401 && answer.code.as_deref() == Some("signature_mismatch")
}

pub(super) const UNREACHABLE: &str = "does it listen (LISTEN is loopback unless told otherwise), and do DNS, proxy and firewall let \
     this machine through?";

/// What an answer that was not hoped for means, and what to do.
pub(super) fn explain(answer: &Answer) -> (String, &'static str) {
    let code = answer.code.as_deref();
    let said = match code {
        Some(code) => format!("answers {} ({code})", answer.status),
        None => format!("answers {}, and not as clerk-sync does", answer.status),
    };
    let cure = match (answer.status, code) {
        (401, Some("signature_mismatch")) => {
            "the process there has another secret: every endpoint of Clerk has its own, copy this \
             one's into CLERK_WEBHOOK_SIGNING_SECRET of both"
        }
        (401, Some("timestamp_out_of_tolerance")) => {
            "the two clocks are more than 300 s apart: let NTP set them"
        }
        (400, Some("missing_header")) => {
            "a proxy takes the svix- headers away: let it hand on all headers"
        }
        (404, Some(_)) => "WEBHOOK_PATH of the process differs from the path of this URL",
        (503, Some("queue_unavailable")) => {
            "the process there cannot publish: its /readyz says why; is there a topology \
             (`clerk-sync setup`)?"
        }
        (503, Some(_)) => "it is starting, stopping or overloaded: try again in a minute",
        (300..400, _) => "Svix follows no redirect: name the address that it leads to",
        (200..300, None) => {
            "something else answers there, and takes whatever is posted: let the proxy pass the \
             path on to clerk-sync"
        }
        (200..300, Some(_)) => "it must not: which process is it?",
        (_, Some(_)) => "its log says more, at RUST_LOG=debug",
        (502 | 504, None) => "the proxy does not reach clerk-sync: does that run, and listen?",
        (_, None) => "something else answers there: let the proxy pass this path on to clerk-sync",
    };
    (said, cure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Status;

    fn judged(status: u16, code: Option<&str>) -> Line {
        let answer = Answer {
            status,
            code: code.map(str::to_owned),
            took: Duration::ZERO,
        };
        let url = "https://me:hunter2@example.com/hook?key=hunter2"
            .parse()
            .unwrap();
        judge(&url, &Ok(answer))
    }

    #[test]
    fn only_our_own_refusal_is_well() {
        assert_eq!(judged(401, Some("signature_mismatch")).status, Status::Ok);
        for (status, code, says) in [
            (204, None, "takes whatever is posted"),
            (401, None, "something else"),
            (400, Some("missing_header"), "proxy takes"),
            (401, Some("timestamp_out_of_tolerance"), "clocks"),
            (404, Some("not_found"), "WEBHOOK_PATH"),
            (503, Some("queue_unavailable"), "setup"),
            (308, None, "redirect"),
            (502, None, "proxy does not reach"),
        ] {
            let line = judged(status, code);
            assert_eq!(line.status, Status::Problem, "{line:?}");
            assert!(line.cure.as_ref().unwrap().contains(says), "{line:?}");
            assert!(line.text.contains(&status.to_string()), "{line:?}");
            assert!(!line.text.contains("hunter2"), "{line:?}");
        }
    }
}
