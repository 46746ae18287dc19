//! How much comes, how much may, and what is made to go wrong.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// What Clerk's limit counts in.
const WINDOW: Duration = Duration::from_secs(10);

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// `GET /v1/users/{id}`
    User,
    /// `GET /v1/users`
    Users,
    /// `GET /v1/users/count`
    Count,
    /// `GET /v1/jwks`
    Jwks,
    /// `GET /.well-known/jwks.json` of the frontend API
    PublicJwks,
    /// Anything else
    Other,
}

/// How an answer fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// This status, with an error body of Clerk's shape, and perhaps `Retry-After` in seconds.
    Status(u16, Option<u64>),
    /// This status, with a body that is not Clerk's: a proxy's. A redirection leads to `/elsewhere`.
    Foreign(u16),
    /// Clerk's own 404, whatever there is: its reading may be behind its writing.
    NotFound,
    /// No answer: the connection is closed.
    HangUp,
    /// Half an answer, then the connection is closed.
    BreakOff,
}

pub(crate) struct Traffic {
    limit: usize,
    recent: Mutex<VecDeque<Instant>>,
    counts: Mutex<BTreeMap<Endpoint, u64>>,
    rate_limited: AtomicU64,
    failures: Mutex<VecDeque<Failure>>,
    delay: Mutex<Duration>,
    page_cap: AtomicUsize,
    /// How far its clock is ahead of the machine's, in seconds.
    clock_ahead_s: AtomicI64,
}

impl Traffic {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            recent: Mutex::default(),
            counts: Mutex::default(),
            rate_limited: AtomicU64::new(0),
            failures: Mutex::default(),
            delay: Mutex::default(),
            page_cap: AtomicUsize::new(usize::MAX),
            clock_ahead_s: AtomicI64::new(0),
        }
    }

    /// Counts a request, and takes the failure that is meant for it.
    pub(crate) fn arrival(&self, endpoint: Endpoint) -> Option<Failure> {
        *lock(&self.counts).entry(endpoint).or_default() += 1;
        lock(&self.failures).pop_front()
    }

    /// Lets a request in, or says after how many seconds there is room.
    pub(crate) fn admit(&self) -> Result<(), u64> {
        let now = Instant::now();
        let mut recent = lock(&self.recent);
        while recent.front().is_some_and(|at| now - *at >= WINDOW) {
            recent.pop_front();
        }
        if recent.len() < self.limit {
            recent.push_back(now);
            return Ok(());
        }
        self.rate_limited.fetch_add(1, Ordering::Relaxed);
        let room_in = recent.front().map_or(WINDOW, |at| WINDOW - (now - *at));
        Err(room_in.as_secs() + 1)
    }

    pub(crate) fn count(&self, endpoint: Endpoint) -> u64 {
        lock(&self.counts).get(&endpoint).copied().unwrap_or(0)
    }

    pub(crate) fn rate_limited(&self) -> u64 {
        self.rate_limited.load(Ordering::Relaxed)
    }

    pub(crate) fn fail_next(&self, count: usize, failure: Failure) {
        lock(&self.failures).extend(std::iter::repeat_n(failure, count));
    }

    pub(crate) fn fail_no_more(&self) {
        lock(&self.failures).clear();
    }

    pub(crate) fn set_delay(&self, delay: Duration) {
        *lock(&self.delay) = delay;
    }

    pub(crate) fn set_clock(&self, ahead_s: i64) {
        self.clock_ahead_s.store(ahead_s, Ordering::Relaxed);
    }

    pub(crate) fn clock_ahead_s(&self) -> i64 {
        self.clock_ahead_s.load(Ordering::Relaxed)
    }

    pub(crate) fn delay(&self) -> Duration {
        *lock(&self.delay)
    }

    pub(crate) fn cap_pages(&self, users: usize) {
        self.page_cap.store(users, Ordering::Relaxed);
    }

    pub(crate) fn page_cap(&self) -> usize {
        self.page_cap.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
