//! One call: its turn, its attempts, its answer.

use std::time::{Duration, SystemTime};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use bytes::{Bytes, BytesMut};
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{AUTHORIZATION, DATE, HeaderMap, HeaderValue, RETRY_AFTER},
    redirect,
};
use tokio::time::{Instant, sleep, timeout_at};

use super::{API_VERSION, ApiError, ApiUrl, BackendConfig, InstanceKind, limit::Limit};

/// Longest time to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer: a page of 500 users with all the metadata that Clerk allows is some 20 MB.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Delays between attempts, each with as much again by chance at most.
const MIN_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(5);
/// The pause when a 429 does not say for how long.
const DEFAULT_PAUSE: Duration = Duration::from_secs(1);

/// Sends requests, all with the same key and within one limit.
pub(super) struct Caller {
    client: Client,
    url: ApiUrl,
    kind: InstanceKind,
    timeout: Duration,
    limit: Limit,
}

/// How long an answer is waited for, and whether it is asked for again meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) time: Duration,
    pub(super) repeats: bool,
}

/// A success.
pub(super) struct Answer {
    pub(super) body: Bytes,
    /// When the attempt began that this is the answer to.
    pub(super) asked_at: i64,
    /// The server's `Date`.
    pub(super) time: Option<SystemTime>,
}

impl Caller {
    pub(super) fn new(config: BackendConfig) -> Result<Self, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, config.secret_key.header());
        headers.insert("clerk-api-version", HeaderValue::from_static(API_VERSION));
        let client = Client::builder()
            .default_headers(headers)
            .user_agent(concat!("clerk-sync/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            // The API has none, and the key must not follow one.
            .redirect(redirect::Policy::none())
            .build()
            .map_err(ApiError::Client)?;
        Ok(Self {
            client,
            kind: config.secret_key.kind(),
            url: config.api_url,
            timeout: config.timeout,
            limit: Limit::new(config.requests_per_10s),
        })
    }

    pub(super) fn url(&self) -> &ApiUrl {
        &self.url
    }

    pub(super) fn kind(&self) -> InstanceKind {
        self.kind
    }

    /// Asks until there is an answer, an error that stays, or the end of the caller's patience.
    ///
    /// Every call reads, so repeating one does no harm.
    pub(super) async fn get(&self, url: Url, patience: Patience) -> Result<Answer, ApiError> {
        let deadline = Instant::now() + patience.time;
        let mut delays = ExponentialBuilder::new()
            .with_min_delay(MIN_DELAY)
            .with_max_delay(MAX_DELAY)
            .with_jitter()
            .without_max_times()
            .build();
        loop {
            self.limit.turn(deadline).await?;
            let error = match self.attempt(url.clone(), deadline).await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_transient() && patience.repeats => error,
                Err(error) => return Err(error),
            };
            let delay = match error.retry_after() {
                // The next turn waits, and so does everybody else's.
                Some(retry_after) => {
                    tracing::warn!(
                        retry_after_s = retry_after.as_secs(),
                        "Clerk's rate limit is reached: all requests pause"
                    );
                    self.limit.pause(retry_after);
                    Duration::ZERO
                }
                None => delays.next().unwrap_or(MAX_DELAY),
            };
            if Instant::now() + delay >= deadline {
                return Err(error);
            }
            sleep(delay).await;
        }
    }

    async fn attempt(&self, url: Url, deadline: Instant) -> Result<Answer, ApiError> {
        let deadline = deadline.min(Instant::now() + self.timeout);
        match timeout_at(deadline, self.exchange(url)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ApiError::Unavailable {
                what: "no answer in time".into(),
                source: None,
            }),
        }
    }

    async fn exchange(&self, url: Url) -> Result<Answer, ApiError> {
        let asked_at = now();
        let response = self.client.get(url).send().await;
        let response = response.map_err(ApiError::transport)?;
        let status = response.status();
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Err(ApiError::RateLimited {
                retry_after: retry_after(response.headers()),
            });
        }
        let time = date(response.headers());
        let body = read(response).await?;
        if status == StatusCode::OK {
            Ok(Answer {
                body,
                asked_at,
                time,
            })
        } else {
            Err(ApiError::from_answer(status, &body))
        }
    }
}

/// Our clock, in milliseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

/// The whole body, unless it is too large.
async fn read(mut response: Response) -> Result<Bytes, ApiError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(ApiError::transport)? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            let limit = MAX_ANSWER_BYTES >> 20;
            return Err(ApiError::unreadable(format!(
                "it is larger than {limit} MiB"
            )));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.trim().parse().ok());
    seconds.map_or(DEFAULT_PAUSE, Duration::from_secs)
}

fn date(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()
}
