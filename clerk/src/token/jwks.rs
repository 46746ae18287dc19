//! The keys that Clerk publishes: fetched when needed, kept for a while, by one request for all who
//! wait.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use jsonwebtoken::DecodingKey;
use reqwest::{Client, StatusCode, Url, header::HeaderValue, redirect};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

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
    /// While fetches fail, the keys of the last one that did not are believed for so long after
    /// it: rows are answered while Clerk is away.
    pub grace: Duration,
}

impl Default for Timing {
    /// Five minutes, as Clerk's SDK; 10 s; 1 s; an hour.
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(300),
            floor: Duration::from_secs(10),
            rest: Duration::from_secs(1),
            grace: Duration::from_secs(3600),
        }
    }
}

/// The keys of one instance, by the name that tokens have for them: the instance's id.
pub struct Jwks {
    publisher: Arc<Publisher>,
    timing: Timing,
    known: Arc<RwLock<Known>>,
    /// The last fetch that was begun. It is nobody's in particular: who asked first may go away.
    fetching: Mutex<Option<Fetching>>,
}

/// Where the keys are.
struct Publisher {
    client: Client,
    url: Url,
    secret: Option<HeaderValue>,
}

type KeySet = HashMap<String, Arc<DecodingKey>>;
type Fetching = Shared<BoxFuture<'static, Result<Arc<KeySet>, TokenError>>>;

#[derive(Default)]
struct Known {
    /// The keys of the last fetch that succeeded, and when it ended.
    keys: Option<(Instant, Arc<KeySet>)>,
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
        let url = Url::parse(url).expect("it is made of one that was checked");
        Ok(Self {
            publisher: Arc::new(Publisher {
                client,
                url,
                secret,
            }),
            timing: Timing::default(),
            known: Arc::default(),
            fetching: Mutex::default(),
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
        let (known, failure) = self.known(kid);
        if let Some(key) = known {
            return Ok(key);
        }
        let fetched = match failure {
            Some(failure) => Err(failure),
            None => self.fetching(asked).await,
        };
        match fetched {
            Ok(keys) => keys.get(kid).cloned().ok_or(TokenError::KidMismatch),
            Err(error @ TokenError::RemoteFailedToLoad(_)) => {
                self.believed(kid, self.timing.grace).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// What is known without asking: the key; else why nobody is asked now.
    fn known(&self, kid: &str) -> (Option<Arc<DecodingKey>>, Option<TokenError>) {
        if let Some(key) = self.believed(kid, self.timing.lifetime) {
            return (Some(key), None);
        }
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let Some((ended, failure)) = &known.tried else {
            return (None, None);
        };
        let rest = match failure {
            Some(_) => self.timing.rest,
            None => self.timing.floor.min(self.timing.lifetime),
        };
        let rests = ended.elapsed() < rest;
        let why = || failure.clone().unwrap_or(TokenError::KidMismatch);
        (None, rests.then(why))
    }

    /// A key of the last fetch that succeeded, if that was not longer ago.
    fn believed(&self, kid: &str, within: Duration) -> Option<Arc<DecodingKey>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let (fetched, keys) = known.keys.as_ref()?;
        let key = keys.get(kid)?;
        (fetched.elapsed() < within).then(|| key.clone())
    }

    /// The fetch that is under way, or has ended since `asked`; else a new one.
    fn fetching(&self, asked: Instant) -> Fetching {
        let mut last = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        let ended_since = || {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            known
                .tried
                .as_ref()
                .is_some_and(|(ended, _)| *ended >= asked)
        };
        if let Some(fetching) = &*last
            && (fetching.peek().is_none() || ended_since())
        {
            return fetching.clone();
        }
        let (publisher, known) = (self.publisher.clone(), self.known.clone());
        let fetching = async move {
            let fetched = timeout(FETCH_TIMEOUT, publisher.fetch())
                .await
                .unwrap_or_else(|_| Err(failed("no answer in time")))
                .map(Arc::new);
            let now = Instant::now();
            let mut known = known.write().unwrap_or_else(PoisonError::into_inner);
            known.tried = Some((now, fetched.as_ref().err().cloned()));
            match &fetched {
                Ok(keys) => known.keys = Some((now, keys.clone())),
                Err(error) => tracing::warn!(%error, "session tokens cannot be checked"),
            }
            fetched
        };
        let fetching = fetching.boxed().shared();
        tokio::spawn(fetching.clone());
        *last = Some(fetching.clone());
        fetching
    }
}

impl Publisher {
    async fn fetch(&self) -> Result<KeySet, TokenError> {
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

    async fn attempt(&self) -> Result<KeySet, TokenError> {
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
fn keys(body: &[u8]) -> Result<KeySet, TokenError> {
    let set: Set = serde_json::from_slice(body).map_err(|_| failed("the answer is no key set"))?;
    let rsa = set.keys.into_iter().filter_map(|key| {
        let key: Rsa = serde_json::from_value(key).ok()?;
        let signs = key.kty == "RSA" && key.r#use.as_deref().is_none_or(|used| used == "sig");
        let decoding = DecodingKey::from_rsa_components(&key.n, &key.e).ok()?;
        signs.then(|| (key.kid, Arc::new(decoding)))
    });
    let keys: KeySet = rsa.collect();
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
        write!(f, "Jwks({})", self.publisher.url)
    }
}
