//! The keys that Clerk publishes: fetched when needed, kept for a while, by one request for all who
//! wait.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use jsonwebtoken::DecodingKey;
use reqwest::{Client, StatusCode, Url, header::HeaderValue, redirect};
use serde::Deserialize;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

use super::{FrontendApi, TokenError};
use crate::backend::{API_VERSION, ApiUrl, SecretKey};

/// Attempts of one fetch, and the delay before the second; it doubles.
const ATTEMPTS: usize = 5;
const FIRST_DELAY: Duration = Duration::from_millis(125);
/// Longest time for one attempt, and for all: a browser is waiting.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
const FETCH_TIMEOUT: Duration = Duration::from_secs(6);
/// Largest answer: a key is some 500 bytes, and an instance has one, or two while it changes.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// How long keys are believed, and how often they are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// After that time they are fetched again.
    pub lifetime: Duration,
    /// Whoever sends tokens of unknown keys makes us ask no more often than this.
    pub floor: Duration,
    /// After a fetch that failed, nobody asks for so long.
    pub rest: Duration,
}

impl Default for Timing {
    /// Five minutes, as Clerk's SDK; 10 s; 1 s.
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(300),
            floor: Duration::from_secs(10),
            rest: Duration::from_secs(1),
        }
    }
}

/// The keys of one instance, by the name that tokens have for them: the instance's id.
pub struct Jwks {
    client: Client,
    url: Url,
    secret: Option<HeaderValue>,
    timing: Timing,
    known: RwLock<Known>,
    /// Held by whoever fetches. If that one goes away, the next takes over.
    turn: Mutex<()>,
}

#[derive(Default)]
struct Known {
    /// The keys of the last fetch that succeeded, and when it ended.
    keys: HashMap<String, Arc<DecodingKey>>,
    fetched: Option<Instant>,
    /// The end of the last fetch, and why it failed, if it did. What was known remains: whoever
    /// sends tokens of unknown keys while Clerk is away takes nothing from the others.
    tried: Option<(Instant, Option<TokenError>)>,
}

impl Jwks {
    /// As published by the instance's Frontend API, for everybody.
    ///
    /// # Errors
    /// No HTTPS client can be made.
    pub fn of_frontend(frontend: &FrontendApi) -> Result<Self, TokenError> {
        Self::new(&frontend.jwks_url(), None)
    }

    /// As told by the Backend API to the holder of a secret key.
    ///
    /// # Errors
    /// No HTTPS client can be made.
    pub fn of_backend(url: &ApiUrl, secret: &SecretKey) -> Result<Self, TokenError> {
        let mut header = HeaderValue::from_str(&format!("Bearer {}", secret.expose()))
            .expect("a key has letters, digits, - and _ alone");
        header.set_sensitive(true);
        Self::new(&format!("{url}/v1/jwks"), Some(header))
    }

    fn new(url: &str, secret: Option<HeaderValue>) -> Result<Self, TokenError> {
        let client = Client::builder()
            .user_agent(concat!("clerk-sync/", env!("CARGO_PKG_VERSION")))
            .timeout(ATTEMPT_TIMEOUT)
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|_| failed("no HTTPS client could be made"))?;
        Ok(Self {
            client,
            url: Url::parse(url).expect("it is made of one that was checked"),
            secret,
            timing: Timing::default(),
            known: RwLock::default(),
            turn: Mutex::new(()),
        })
    }

    /// The same, with other times.
    #[must_use]
    pub fn with_timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    pub(super) async fn get(&self, kid: &str) -> Result<Arc<DecodingKey>, TokenError> {
        let asked = Instant::now();
        if let Some(answer) = self.known(kid, asked) {
            return answer;
        }
        let _turn = self.turn.lock().await;
        // Another one may have fetched while we waited.
        if let Some(answer) = self.known(kid, asked) {
            return answer;
        }
        let fetched = timeout(FETCH_TIMEOUT, self.fetch())
            .await
            .unwrap_or_else(|_| Err(failed("no answer in time")));
        let now = Instant::now();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        match fetched {
            Ok(keys) => {
                known.keys = keys;
                known.fetched = Some(now);
                known.tried = Some((now, None));
                known.keys.get(kid).cloned().ok_or(TokenError::KidMismatch)
            }
            Err(error) => {
                tracing::warn!(%error, "session tokens cannot be checked");
                known.tried = Some((now, Some(error.clone())));
                Err(error)
            }
        }
    }

    /// What is known without asking: the key, that there is none, or that nobody answers.
    fn known(&self, kid: &str, asked: Instant) -> Option<Result<Arc<DecodingKey>, TokenError>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = known.keys.get(kid)
            && (known.fetched).is_some_and(|fetched| fetched.elapsed() < self.timing.lifetime)
        {
            return Some(Ok(key.clone()));
        }
        let (ended, failure) = known.tried.as_ref()?;
        let rest = match failure {
            Some(_) => self.timing.rest,
            None => self.timing.floor.min(self.timing.lifetime),
        };
        // Whoever waited for this very fetch has its answer.
        let holds = *ended >= asked || ended.elapsed() < rest;
        holds.then(|| Err(failure.clone().unwrap_or(TokenError::KidMismatch)))
    }

    async fn fetch(&self) -> Result<HashMap<String, Arc<DecodingKey>>, TokenError> {
        let mut delays = ExponentialBuilder::new()
            .with_min_delay(FIRST_DELAY)
            .with_factor(2.0)
            .with_max_times(ATTEMPTS - 1)
            .build();
        loop {
            match self.attempt().await {
                Ok(keys) => return Ok(keys),
                Err(TokenError::SecretKeyInvalid) => return Err(TokenError::SecretKeyInvalid),
                Err(error) => match delays.next() {
                    Some(delay) => sleep(delay).await,
                    None => return Err(error),
                },
            }
        }
    }

    async fn attempt(&self) -> Result<HashMap<String, Arc<DecodingKey>>, TokenError> {
        let mut request = self.client.get(self.url.clone());
        if let Some(secret) = &self.secret {
            request = request
                .header("authorization", secret.clone())
                .header("clerk-api-version", API_VERSION);
        }
        let mut response = request.send().await.map_err(transport)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(transport)? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(failed("the answer is too large"));
            }
            body.extend_from_slice(&chunk);
        }
        match status {
            StatusCode::OK => keys(&body),
            StatusCode::UNAUTHORIZED if self.secret.is_some() => Err(TokenError::SecretKeyInvalid),
            status => Err(failed(&format!("the answer is {status}"))),
        }
    }
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Rsa {
    kid: String,
    kty: String,
    r#use: Option<String>,
    n: String,
    e: String,
}

/// The keys that can have signed a token. Others, of kinds that Clerk may add, do no harm.
fn keys(body: &[u8]) -> Result<HashMap<String, Arc<DecodingKey>>, TokenError> {
    let set: Set = serde_json::from_slice(body).map_err(|_| failed("the answer is no key set"))?;
    let rsa = set.keys.into_iter().filter_map(|key| {
        let key: Rsa = serde_json::from_value(key).ok()?;
        let signs = key.kty == "RSA" && key.r#use.as_deref().is_none_or(|used| used == "sig");
        let decoding = DecodingKey::from_rsa_components(&key.n, &key.e).ok()?;
        signs.then(|| (key.kid, Arc::new(decoding)))
    });
    let keys: HashMap<_, _> = rsa.collect();
    if keys.is_empty() {
        return Err(failed("the answer has no signing keys"));
    }
    Ok(keys)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn transport(error: reqwest::Error) -> TokenError {
    failed(if error.is_connect() {
        "no connection"
    } else if error.is_timeout() {
        "no answer in time"
    } else {
        "the connection broke"
    })
}

fn failed(what: &str) -> TokenError {
    TokenError::RemoteFailedToLoad(what.into())
}

impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Jwks({})", self.url)
    }
}
