//! One request, from its head to its answer.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use clerk_sync_clerk::token::TokenError;
use clerk_sync_ingest::{Handler, Neighbour};
use clerk_sync_pipeline::{
    admin::Readiness,
    complaint::Complaint,
    event::Millis,
    telemetry::{ApiEndpoint, ApiOutcome, Label as _, LogSampler, Metrics},
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use crate::{
    account::{Accounts, Known, json},
    credential::Credentials,
    desk::Desk,
    origin::Asker,
    refusal::Refusal,
};

/// The user's row; made first, if it is not there.
const ME: &str = "/api/users/me";
/// The user's row, as Clerk has it now.
const SYNC: &str = "/api/users/sync";

/// An answer leaves within this time of the head's last byte, whatever happens.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// When whatever is being waited for is given up.
const DEADLINE: Duration = Duration::from_millis(9_500);
const _: () = assert!(DEADLINE.as_millis() < ANSWER_WITHIN.as_millis());
/// How long a body may take that nobody needs, and how long it may be.
const BODY_WITHIN: Duration = Duration::from_secs(4);
const MAX_BODY_BYTES: usize = 16 * 1024;
/// Most requests at a time. Each holds a few kilobytes, and waits for at most 10 s.
const MAX_IN_FLIGHT: usize = 2048;

/// Answers applications; one for all connections. Cloning shares it.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    credentials: Credentials,
    accounts: Accounts,
    desk: Desk,
    places: Semaphore,
    metrics: Arc<Metrics>,
    clerk_complaint: Complaint,
    database_complaint: Complaint,
    other_complaint: Complaint,
    refusals_logged: LogSampler,
}

impl Api {
    pub(crate) fn new(
        credentials: Credentials,
        accounts: Accounts,
        desk: Desk,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self(Arc::new(Inner {
            credentials,
            accounts,
            desk,
            places: Semaphore::new(MAX_IN_FLIGHT),
            metrics,
            clerk_complaint: Complaint::default(),
            database_complaint: Complaint::default(),
            other_complaint: Complaint::default(),
            refusals_logged: LogSampler::default(),
        }))
    }

    /// Whether the database would answer: the tables are there, and may be read.
    ///
    /// # Errors
    /// Why not.
    pub async fn is_fit(&self) -> Result<(), String> {
        // Nobody has this id.
        let known = self.0.accounts.find("").await;
        known.map(drop).map_err(|unavailable| unavailable.0)
    }

    /// Makes [`Api::is_fit`] a part of readiness, asked for each `/readyz`.
    pub fn watch(&self, readiness: &Readiness) {
        let api = self.clone();
        readiness.asked("api", move || {
            let api = api.clone();
            async move { api.is_fit().await }
        });
    }

    /// Waits for what was begun and nobody waits for any more. Call it when the port is closed.
    pub async fn close(&self) {
        self.0.desk.close().await;
    }
}

impl Neighbour for Api {
    fn serves(&self, path: &str) -> bool {
        endpoint(path) != ApiEndpoint::Other
    }
}

impl Handler for Api {
    type Body = Full<Bytes>;

    async fn answer(
        &self,
        request: Request<Incoming>,
        started: Instant,
        draining: bool,
    ) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let endpoint = endpoint(head.uri.path());
        let asker = Asker::of(&head.headers, &self.0.credentials.allowed);
        let answered = timeout_at(
            started + DEADLINE,
            self.0
                .respond(endpoint, &head.method, &head.headers, body, asker, draining),
        );
        let answered = answered.await.unwrap_or(Err(Refusal::TooSlow));
        let outcome = match &answered {
            Ok(_) => ApiOutcome::Answered,
            Err(refusal) => refusal.code().1,
        };
        let mut response = answered.unwrap_or_else(|refusal| {
            self.0.complain(endpoint, &refusal);
            refusal.response()
        });
        let no_store = HeaderValue::from_static("no-store");
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, no_store);
        if head.method != Method::OPTIONS {
            asker.mark(response.headers_mut());
        }
        self.0.metrics.api_requests.get(endpoint, outcome).inc();
        self.0
            .metrics
            .api_duration
            .observe(started.elapsed().as_secs_f64());
        response
    }

    fn count_slow_head(&self) {
        let requests = &self.0.metrics.api_requests;
        requests
            .get(ApiEndpoint::Other, ApiOutcome::BadRequest)
            .inc();
    }
}

impl Inner {
    async fn respond(
        &self,
        endpoint: ApiEndpoint,
        method: &Method,
        headers: &HeaderMap,
        body: Incoming,
        asker: Asker<'_>,
        draining: bool,
    ) -> Result<Response<Full<Bytes>>, Refusal> {
        let served = match endpoint {
            ApiEndpoint::Me => Method::GET,
            ApiEndpoint::Sync => Method::POST,
            ApiEndpoint::Other => return Err(Refusal::NoSuchPath),
        };
        if method == Method::OPTIONS {
            return Ok(preflight(&served, asker));
        }
        if *method != served {
            return Err(Refusal::MethodNotAllowed(served));
        }
        if draining {
            return Err(Refusal::Draining);
        }
        let now = SystemTime::now();
        let session = self.credentials.check(method, headers, asker, now).await?;
        discard(body).await?;
        // Neither who is a stranger nor who is slow takes a place from the others.
        let _place = self.places.try_acquire().map_err(|_| Refusal::Overloaded)?;
        let user_id = session.user_id.clone();
        if endpoint == ApiEndpoint::Me {
            match self.accounts.find(&user_id).await? {
                Known::Row(account) => return Ok(answer(json(&account), None)),
                Known::Deleted => return Err(Refusal::Deleted),
                Known::Nothing => {}
            }
        }
        let done = self.desk.fetch(session).await;
        let unknown = match done.outcome {
            Ok(()) => false,
            // Perhaps remembered as deleted; perhaps here by now.
            Err(Refusal::Unknown) => true,
            Err(refusal) => return Err(refusal),
        };
        match self.accounts.find(&user_id).await? {
            Known::Row(account) => Ok(answer(json(&account), Some(done.age))),
            Known::Deleted => Err(Refusal::Deleted),
            Known::Nothing if unknown => Err(Refusal::Unknown),
            Known::Nothing => Err(Refusal::NotSettled),
        }
    }

    /// Tells the operator what the client need not know, without flooding the log. What only
    /// concerns the client is no news.
    fn complain(&self, endpoint: ApiEndpoint, refusal: &Refusal) {
        let (now, endpoint) = (Millis::now(), endpoint.as_str());
        let (_, _, code) = refusal.code();
        match refusal {
            Refusal::Clerk(error) => self.clerk_complaint.say(now, |held_back| {
                tracing::warn!(endpoint, code, %error, held_back, "no answer from Clerk");
            }),
            Refusal::Database(error) => self.database_complaint.say(now, |held_back| {
                tracing::warn!(endpoint, code, %error, held_back, "no answer from the database");
            }),
            Refusal::OtherInstance
            | Refusal::Unwritable(_)
            | Refusal::TooSlow
            | Refusal::Overloaded
            | Refusal::Bug
            // Signed by Clerk, or said to be: more often a setting or a clock than an attack.
            | Refusal::Token(
                TokenError::SecretKeyInvalid
                | TokenError::InvalidAuthorizedParty
                | TokenError::IssuedInTheFuture
                | TokenError::KidMismatch,
            ) => {
                self.other_complaint.say(now, |held_back| {
                    tracing::warn!(endpoint, code, error = %refusal, held_back, "request refused");
                });
            }
            Refusal::NoSuchPath
            | Refusal::MethodNotAllowed(_)
            | Refusal::BodyTooLarge
            | Refusal::BadBody
            | Refusal::Token(_)
            | Refusal::ForeignOrigin
            | Refusal::Deleted
            | Refusal::Unknown
            | Refusal::NotSettled
            | Refusal::Draining => {
                if tracing::enabled!(tracing::Level::DEBUG) {
                    self.refusals_logged.of_anything(now, |held_back| {
                        tracing::debug!(endpoint, code, error = %refusal, held_back, "request refused");
                    });
                }
            }
        }
    }
}

fn endpoint(path: &str) -> ApiEndpoint {
    match path {
        ME => ApiEndpoint::Me,
        SYNC => ApiEndpoint::Sync,
        _ => ApiEndpoint::Other,
    }
}

/// Reads what was sent along, so that the next request on the connection is found behind it.
async fn discard(body: Incoming) -> Result<(), Refusal> {
    if body.is_end_stream() {
        return Ok(());
    }
    let read = Limited::new(body, MAX_BODY_BYTES).collect();
    match timeout_at(Instant::now() + BODY_WITHIN, read).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Refusal::BodyTooLarge)
        }
        Ok(Err(_)) | Err(_) => Err(Refusal::BadBody),
    }
}

/// `age`: how long ago Clerk was asked, if it was.
fn answer(body: Bytes, age: Option<Duration>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    let headers = response.headers_mut();
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    if let Some(age) = age {
        headers.insert(header::AGE, HeaderValue::from(age.as_secs()));
    }
    response
}

fn preflight(served: &Method, asker: Asker<'_>) -> Response<Full<Bytes>> {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    asker.mark_preflight(served, response.headers_mut());
    response
}
