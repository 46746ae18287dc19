//! A stand-in for Clerk: its Backend API, with the limits and the errors that are documented, as a
//! real server, so that the client of ours is tested over the wire.
//!
//! Enters: users, by library calls or by `/_control`. Leaves: what Clerk would answer. Guaranteed:
//! users stay the bytes that they came as; what a request asks for and this does not know is an
//! error, never ignored. Never here: code of the client; both are written from the documents.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use clerk_sync_stand_in::{Endpoint, StandIn};
//!
//! let clerk = StandIn::start().await;
//! let id = clerk.sign_up("maren@harbour-labs.example");
//! let token = clerk.session_token(&id);
//! // … point CLERK_API_URL to clerk.url(), do something with the token, and then:
//! assert_eq!(clerk.requests(Endpoint::User), 0);
//! # });
//! ```

// A user has more fields than a macro may count by itself.
#![recursion_limit = "256"]

mod answer;
mod api;
mod control;
mod listing;
mod people;
mod sample;
mod server;
mod signer;
mod traffic;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use clerk_sync_simulator::Event;
use serde_json::{Map, Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

pub use traffic::{Endpoint, Failure};

use people::People;
use signer::Signer;
use traffic::Traffic;

/// What kind of instance to be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen; port 0 takes any.
    pub listen: SocketAddr,
    /// The key that requests must bring. `sk_live_…` makes it a production instance.
    pub secret_key: String,
    /// `ins_…`, in the signing key's `kid`.
    pub instance_id: String,
    /// Host of the frontend API, in the publishable key and in the tokens' `iss`.
    pub frontend_api: String,
    /// Requests allowed in any 10 s. By default as Clerk: 1000 in production, 100 in development.
    pub requests_per_10s: Option<usize>,
    /// What becomes of a page whose cursor stands on a user that is gone.
    pub lost_cursor: LostCursor,
}

/// What becomes of a page whose cursor stands on a user that is gone: Clerk documents nothing, so a
/// client must bear any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostCursor {
    /// 422, as for any value that cannot be.
    Unprocessable,
    /// 404
    NotFound,
    /// A page with nobody on it.
    EmptyPage,
}

impl Default for Settings {
    /// A development instance on any free port of this machine.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            secret_key: "sk_test_3EZfR0000000000000000000000000standin0".into(),
            instance_id: "ins_3EZfR00000000000000standin0".into(),
            frontend_api: "stand-in-0.clerk.accounts.dev".into(),
            requests_per_10s: None,
            lost_cursor: LostCursor::Unprocessable,
        }
    }
}

impl Settings {
    /// A production instance.
    #[must_use]
    pub fn production() -> Self {
        Self {
            secret_key: "sk_live_3EZfR0000000000000000000000000standin1".into(),
            instance_id: "ins_3EZfR00000000000000standin1".into(),
            frontend_api: "clerk.stand-in.example".into(),
            ..Self::default()
        }
    }

    fn is_production(&self) -> bool {
        self.secret_key.starts_with("sk_live_")
    }

    /// The key that browsers know: the frontend API's host, and a `$`.
    #[must_use]
    pub fn publishable_key(&self) -> String {
        let kind = if self.is_production() { "live" } else { "test" };
        let host = BASE64_STANDARD.encode(format!("{}$", self.frontend_api));
        format!("pk_{kind}_{host}")
    }
}

/// A running stand-in. It stops when it is dropped.
pub struct StandIn {
    instance: Arc<Instance>,
    address: SocketAddr,
    server: JoinHandle<()>,
}

/// What the server and the library calls share.
pub(crate) struct Instance {
    pub(crate) settings: Settings,
    pub(crate) signer: Signer,
    pub(crate) traffic: Traffic,
    people: Mutex<People>,
    /// How many users were made up.
    made_up: AtomicU64,
}

impl StandIn {
    /// Starts a development instance without users.
    ///
    /// # Panics
    /// As [`StandIn::start_as`].
    pub async fn start() -> Self {
        Self::start_as(Settings::default()).await
    }

    /// Starts an instance without users.
    ///
    /// # Panics
    /// The address cannot be bound.
    pub async fn start_as(settings: Settings) -> Self {
        let listener = TcpListener::bind(settings.listen).await;
        let listener = listener.expect("the address of the settings can be bound");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let limit = match settings.requests_per_10s {
            Some(requests) => requests,
            None if settings.is_production() => 1_000,
            None => 100,
        };
        let instance = Arc::new(Instance {
            signer: Signer::new(&settings),
            traffic: Traffic::new(limit),
            people: Mutex::default(),
            made_up: AtomicU64::new(0),
            settings,
        });
        let server = tokio::spawn(server::serve(listener, instance.clone()));
        Self {
            instance,
            address,
            server,
        }
    }

    /// `CLERK_API_URL`
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The settings that it was started with: keys, ids, hosts.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.instance.settings
    }

    /// `CLERK_JWT_KEY`: the public key that its tokens are signed with, in PEM.
    #[must_use]
    pub fn jwt_key(&self) -> &str {
        self.instance.signer.public_pem()
    }

    /// The tokens' `iss`.
    #[must_use]
    pub fn issuer(&self) -> String {
        format!("https://{}", self.settings().frontend_api)
    }

    // ---- users

    /// Takes a user as it is, to the byte, in place of what there was under its id.
    ///
    /// # Panics
    /// Not the JSON of a user; a user that was removed: Clerk never uses an id again.
    pub fn put(&self, user: &str) {
        self.instance.put(user).expect("a user's JSON");
    }

    /// A new user with this address, who exists from now on. Returns the id.
    pub fn sign_up(&self, email: &str) -> String {
        self.instance.sign_up(&json!({ "email": email }))
    }

    /// So many more users, one a second, the last of them yesterday. Returns their ids.
    pub fn fill(&self, count: usize) -> Vec<String> {
        self.instance.fill(count)
    }

    /// Changes a user, who is as of now then.
    ///
    /// # Panics
    /// There is no such user.
    pub fn change(&self, id: &str, change: impl FnOnce(&mut Map<String, Value>)) {
        self.instance.change(id, change).expect("a user to change");
    }

    /// Removes a user, for good. False if there was none.
    pub fn remove(&self, id: &str) -> bool {
        self.instance.people().remove(id)
    }

    /// Does to the users what a simulated instance tells of in this event. A user that is gone stays
    /// gone, although a session that ends later still carries it.
    pub fn follow(&self, event: &Event) {
        let mut people = self.instance.people();
        if event.deletes() {
            people.remove(event.clerk_id.as_deref().expect("a deletion has a user"));
        } else if let Some(user) = event.user() {
            // Refused is only what comes after the deletion.
            let _ = people.put(&user);
        }
    }

    /// A user's JSON.
    #[must_use]
    pub fn user(&self, id: &str) -> Option<String> {
        self.instance.people().json(id).map(str::to_owned)
    }

    /// How many users there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.instance.people().len()
    }

    // ---- tokens

    /// A session token of this user, good for 60 s.
    #[must_use]
    pub fn session_token(&self, user_id: &str) -> String {
        self.token(&json!({}), &json!({ "sub": user_id }))
    }

    /// A session token with these header fields and claims instead of the usual ones; `null` leaves
    /// one out.
    #[must_use]
    pub fn token(&self, header: &Value, claims: &Value) -> String {
        self.instance.signer.token(header, claims)
    }

    // ---- traffic

    /// How many requests of a kind came, refused ones included.
    #[must_use]
    pub fn requests(&self, endpoint: Endpoint) -> u64 {
        self.instance.traffic.count(endpoint)
    }

    /// How many requests were over the limit.
    #[must_use]
    pub fn rate_limited(&self) -> u64 {
        self.instance.traffic.rate_limited()
    }

    /// Lets the next answers fail, after those that are to fail already.
    pub fn fail_next(&self, count: usize, failure: Failure) {
        self.instance.traffic.fail_next(count, failure);
    }

    /// Lets no answer fail any more.
    pub fn fail_no_more(&self) {
        self.instance.traffic.fail_no_more();
    }

    /// Lets every answer take so long from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.instance.traffic.set_delay(delay);
    }

    /// Lets every page have so many users at most from now on, whatever was asked for and without a
    /// word: a proxy's doing, or a limit that was lowered.
    pub fn cap_pages(&self, users: usize) {
        self.instance.traffic.cap_pages(users);
    }

    /// Sets the clock of its answers so many seconds ahead of this machine's.
    pub fn set_clock(&self, ahead_s: i64) {
        self.instance.traffic.set_clock(ahead_s);
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl StandIn {
    /// Serves until the task is ended.
    ///
    /// # Panics
    /// The server panicked.
    pub async fn serve(mut self) {
        (&mut self.server).await.expect("the server does not panic");
    }
}

impl Instance {
    pub(crate) fn people(&self) -> MutexGuard<'_, People> {
        self.people.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn put(&self, user: &str) -> Result<(), String> {
        self.people().put(user)
    }

    /// A new user who exists from now on, with these fields instead of made up ones.
    pub(crate) fn sign_up(&self, fields: &Value) -> String {
        let now = now();
        let number = self.made_up.fetch_add(1, Ordering::Relaxed);
        let mut user = sample::user(number, now);
        sample::describe(&mut user, fields);
        let id = user["id"].as_str().expect("a sample has an id").to_owned();
        self.put(&user.to_string()).expect("a sample is a user");
        id
    }

    pub(crate) fn fill(&self, count: usize) -> Vec<String> {
        const DAY: i64 = 86_400_000;
        let first = self.made_up.fetch_add(count as u64, Ordering::Relaxed);
        let begin =
            now() - DAY - 1_000 * i64::try_from(count).expect("fewer than there are people");
        let mut people = self.people();
        let sign_up = |(number, at)| {
            let user = sample::user(number, at);
            people.put(&user.to_string()).expect("a sample is a user");
            user["id"].as_str().expect("a sample has an id").to_owned()
        };
        let times = (begin..).step_by(1_000);
        (first..).zip(times).take(count).map(sign_up).collect()
    }

    pub(crate) fn change(
        &self,
        id: &str,
        change: impl FnOnce(&mut Map<String, Value>),
    ) -> Result<(), String> {
        let mut people = self.people();
        let json = people.json(id).ok_or("there is no such user")?;
        let mut user: Map<String, Value> =
            serde_json::from_str(json).map_err(|error| error.to_string())?;
        let before = user["updated_at"].as_i64().unwrap_or(0);
        user.insert("updated_at".into(), now().max(before + 1).into());
        change(&mut user);
        people.put(&Value::Object(user).to_string())
    }
}

/// In milliseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.expect("it is later than 1970").as_millis();
    i64::try_from(since).expect("it is not the end of time")
}
