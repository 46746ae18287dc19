//! What one connection is doing and since when: told by its socket and its requests, asked by its
//! watchdog. One timer per connection then serves all its time limits, not one per request.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::Request;
use hyper::body::Body;
use tokio::time::Instant;

/// Longest time that an answer may wait for its reader.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// The first bytes of every HTTP/2 connection.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The time limits of connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// From the first byte of a head to its last, and from accepting to the first byte.
    pub(crate) head: Duration,
    /// Between requests.
    pub(crate) idle: Duration,
}

/// The most of either while others wait for a place: a head takes a round trip, and who rests can
/// come again. Short enough that a few rounds of places fit into a sender's patience.
pub(crate) const CROWDED: Duration = Duration::from_millis(500);

impl Limits {
    /// The limits while every place is taken and somebody waits for one.
    pub(crate) fn crowded(self) -> Self {
        Self {
            head: self.head.min(CROWDED),
            idle: self.idle.min(CROWDED),
        }
    }
}

/// What the watchdog should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Ask again then; nothing can be overdue before.
    WaitUntil(Instant),
    /// Nothing has been going on since then: close.
    Idle(Instant),
    /// The head of a request is overdue: answer 408, close.
    SlowHead,
    /// The client does not read its answers: give up.
    Stuck,
}

/// One connection's state. The lock is its own, and held for a few instructions.
#[derive(Debug)]
pub(crate) struct Activity(Mutex<State>);

#[derive(Debug)]
struct State {
    protocol: Protocol,
    stage: Stage,
    /// When the stage began.
    since: Instant,
    /// Requests being served; while there are any, the stage does not matter.
    requests: usize,
    /// Since when the socket has been refusing our bytes.
    blocked_since: Option<Instant>,
    /// Bytes that arrived.
    received: u64,
    /// Bytes of them that belong to requests that were served or are.
    accounted: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Protocol {
    /// So many bytes of the HTTP/2 preface have been seen and nothing else.
    Unknown(usize),
    Http1,
    Http2,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing has arrived yet.
    New,
    /// Between requests.
    Idle,
    /// A part of a head has arrived (HTTP/1.1).
    Head,
}

/// A request being served. Dropping it says that its answer is made.
pub(crate) struct InRequest(Arc<Activity>);

impl Activity {
    pub(crate) fn new(now: Instant) -> Self {
        Self(Mutex::new(State {
            protocol: Protocol::Unknown(0),
            stage: Stage::New,
            since: now,
            requests: 0,
            blocked_since: None,
            received: 0,
            accounted: 0,
        }))
    }

    /// The socket gave `bytes`.
    pub(crate) fn received(&self, bytes: &[u8]) {
        let mut state = self.lock();
        let before = state.received;
        state.received += bytes.len() as u64;
        let was_http2 = state.protocol == Protocol::Http2;
        state.recognise(bytes);
        if state.protocol == Protocol::Http2 {
            if !was_http2 {
                state.enter(Stage::Idle);
            }
        } else if state.requests == 0 && state.stage != Stage::Head && !is_blank(bytes) {
            state.accounted = before;
            state.enter(Stage::Head);
        }
    }

    /// The socket refuses our bytes, or takes them again.
    pub(crate) fn blocked(&self, blocked: bool) {
        self.lock().blocked_since = blocked.then(Instant::now);
    }

    /// A head is complete: its request is being served.
    pub(crate) fn begin<B: Body>(self: &Arc<Self>, request: &Request<B>) -> InRequest {
        let mut state = self.lock();
        state.requests += 1;
        if state.protocol == Protocol::Http1 {
            state.stage = Stage::Idle;
            // Of a chunked body the length is unknown: assume that nothing came after it.
            let received = state.received;
            state.accounted = length_on_the_wire(request).map_or(received, |length| {
                // Announced by the client, and up to any number.
                state.accounted.saturating_add(length)
            });
        }
        drop(state);
        InRequest(self.clone())
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.lock().protocol == Protocol::Http2
    }

    /// Whether more has arrived than the requests served so far: pipelined ones wait behind them.
    pub(crate) fn has_more_waiting(&self) -> bool {
        let state = self.lock();
        state.received > state.accounted
    }

    /// What to do at `now`. When `ending`, a connection between two requests has no reason to stay.
    pub(crate) fn verdict(&self, limits: Limits, ending: bool, now: Instant) -> Verdict {
        let state = self.lock();
        // A head that begins right now is overdue no sooner than this.
        let wake = now + limits.head;
        if let Some(blocked_since) = state.blocked_since {
            let given_up = blocked_since + WRITE_TIMEOUT;
            // Until its answers are read, a connection is not idle, and nothing more can be said.
            return if now >= given_up {
                Verdict::Stuck
            } else {
                Verdict::WaitUntil(wake.min(given_up))
            };
        }
        if state.requests > 0 {
            return Verdict::WaitUntil(wake);
        }
        let (deadline, overdue) = match state.stage {
            Stage::New => (state.since + limits.head, Verdict::Idle(state.since)),
            Stage::Idle => (state.since + limits.idle, Verdict::Idle(state.since)),
            Stage::Head => (state.since + limits.head, Verdict::SlowHead),
        };
        if now >= deadline {
            overdue
        } else if ending && state.stage != Stage::Head {
            Verdict::Idle(state.since)
        } else {
            Verdict::WaitUntil(deadline.min(wake))
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.since = Instant::now();
    }

    fn recognise(&mut self, bytes: &[u8]) {
        let Protocol::Unknown(matched) = self.protocol else {
            return;
        };
        let rest = &PREFACE[matched..];
        let compared = rest.len().min(bytes.len());
        self.protocol = if rest[..compared] != bytes[..compared] {
            Protocol::Http1
        } else if compared == rest.len() {
            Protocol::Http2
        } else {
            Protocol::Unknown(matched + compared)
        };
    }
}

impl Drop for InRequest {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.requests -= 1;
        if state.requests == 0 {
            state.enter(Stage::Idle);
        }
    }
}

/// Empty lines, which a client may send between requests and hyper skips.
fn is_blank(bytes: &[u8]) -> bool {
    bytes.len() <= 4 && bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}

/// How many bytes an HTTP/1.1 request takes as clients write it (`Name: value`, CRLF), if its body
/// has a length. Only a shutdown cares: an answer that says `Connection: close` should be the last
/// of those that are waiting. A client that writes it otherwise loses nothing but that nicety.
fn length_on_the_wire<B: Body>(request: &Request<B>) -> Option<u64> {
    const REQUEST_LINE: usize = "  HTTP/1.1\r\n".len();
    const HEADER: usize = ": \r\n".len();
    const END: usize = "\r\n".len();
    let body = request.body().size_hint().exact()?;
    let uri = request.uri();
    let authority = match (uri.scheme_str(), uri.authority()) {
        (Some(scheme), Some(authority)) => scheme.len() + "://".len() + authority.as_str().len(),
        _ => 0,
    };
    let target = authority
        + uri
            .path_and_query()
            .map_or(0, |target| target.as_str().len());
    let headers = request.headers().iter();
    let headers: usize = headers
        .map(|(name, value)| name.as_str().len() + value.len() + HEADER)
        .sum();
    let head = request.method().as_str().len() + target + REQUEST_LINE + headers + END;
    body.checked_add(head as u64)
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    const LIMITS: Limits = Limits {
        head: Duration::from_secs(5),
        idle: Duration::from_secs(75),
    };

    fn after(activity: &Activity, seconds: u64, ending: bool) -> Verdict {
        let now = Instant::now() + Duration::from_secs(seconds);
        match activity.verdict(LIMITS, ending, now) {
            Verdict::WaitUntil(again) => {
                // Never a busy loop, and never later than the next possible deadline.
                assert!(
                    again > now && again <= now + LIMITS.head,
                    "{:?}",
                    again - now
                );
                Verdict::WaitUntil(now)
            }
            verdict => verdict,
        }
    }

    fn idle(verdict: Verdict) -> bool {
        matches!(verdict, Verdict::Idle(_))
    }

    fn waits(verdict: Verdict) -> bool {
        matches!(verdict, Verdict::WaitUntil(_))
    }

    fn request() -> Request<Full<&'static [u8]>> {
        Request::post("/hook")
            .header("host", "test")
            .body(Full::new(&b"body"[..]))
            .unwrap()
    }

    const WIRE: &[u8] = b"POST /hook HTTP/1.1\r\nhost: test\r\n\r\nbody";

    #[test]
    fn each_stage_has_its_own_time_limit() {
        let activity = Arc::new(Activity::new(Instant::now()));
        assert!(waits(after(&activity, 4, false)));
        assert!(idle(after(&activity, 6, false)), "nothing ever came");
        activity.received(b"POST");
        assert!(waits(after(&activity, 4, false)));
        assert_eq!(after(&activity, 6, false), Verdict::SlowHead);
        let serving = activity.begin(&request());
        assert!(
            waits(after(&activity, 1000, false)),
            "the handler has limits of its own"
        );
        drop(serving);
        assert!(waits(after(&activity, 74, false)));
        assert!(idle(after(&activity, 76, false)));
        activity.received(b"\r\n");
        assert!(
            waits(after(&activity, 74, false)),
            "an empty line is no head"
        );
        activity.received(b"P");
        assert_eq!(after(&activity, 6, false), Verdict::SlowHead);
    }

    #[test]
    fn a_client_that_does_not_read_is_stuck_and_never_idle() {
        let activity = Activity::new(Instant::now());
        activity.received(b"POST");
        activity.blocked(true);
        assert!(waits(after(&activity, 9, true)));
        assert_eq!(after(&activity, 11, false), Verdict::Stuck);
        activity.blocked(false);
        assert_eq!(after(&activity, 11, false), Verdict::SlowHead);
    }

    #[test]
    fn when_ending_only_what_has_begun_may_go_on() {
        let activity = Arc::new(Activity::new(Instant::now()));
        assert!(idle(after(&activity, 0, true)));
        activity.received(b"POST");
        assert!(waits(after(&activity, 0, true)), "a head may be completed");
        let serving = activity.begin(&request());
        assert!(waits(after(&activity, 0, true)));
        drop(serving);
        assert!(idle(after(&activity, 0, true)));
    }

    #[test]
    fn the_preface_is_recognised_in_any_pieces() {
        for cut in 1..PREFACE.len() {
            let activity = Activity::new(Instant::now());
            activity.received(&PREFACE[..cut]);
            assert!(!activity.is_http2());
            assert_eq!(after(&activity, 6, false), Verdict::SlowHead);
            activity.received(&[&PREFACE[cut..], b"settings"].concat());
            assert!(activity.is_http2());
            assert!(waits(after(&activity, 74, false)));
            assert!(idle(after(&activity, 76, false)));
        }
        let activity = Activity::new(Instant::now());
        activity.received(b"PRI /");
        activity.received(PREFACE);
        assert!(!activity.is_http2(), "only at the beginning");
    }

    #[test]
    fn pipelined_requests_are_seen_to_wait() {
        let activity = Arc::new(Activity::new(Instant::now()));
        for _ in 0..2 {
            activity.received(&WIRE.repeat(3));
            for waiting in [true, true, false] {
                let _serving = activity.begin(&request());
                assert_eq!(activity.has_more_waiting(), waiting);
            }
            activity.received(b"\r\n");
        }
        // One that arrives while another is served.
        activity.received(WIRE);
        let _serving = activity.begin(&request());
        assert!(!activity.has_more_waiting());
        activity.received(b"POST");
        assert!(activity.has_more_waiting());
    }

    #[test]
    fn a_length_up_to_the_last_number_is_borne() {
        struct Announced(u64);
        impl Body for Announced {
            type Data = bytes::Bytes;
            type Error = std::convert::Infallible;
            fn poll_frame(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Result<hyper::body::Frame<bytes::Bytes>, Self::Error>>>
            {
                std::task::Poll::Pending
            }
            fn size_hint(&self) -> hyper::body::SizeHint {
                hyper::body::SizeHint::with_exact(self.0)
            }
        }
        for length in [u64::MAX, u64::MAX - 2, u64::MAX / 2] {
            let activity = Arc::new(Activity::new(Instant::now()));
            for _ in 0..3 {
                activity.received(WIRE);
                let request = Request::post("/hook").body(Announced(length)).unwrap();
                drop(activity.begin(&request));
            }
        }
    }

    #[test]
    fn a_proxys_request_line_is_measured_too() {
        let request = Request::post("http://h.example:8080/hook?a=b")
            .body(Full::new(&b""[..]))
            .unwrap();
        let wire = "POST http://h.example:8080/hook?a=b HTTP/1.1\r\n\r\n";
        assert_eq!(length_on_the_wire(&request), Some(wire.len() as u64));
    }
}
