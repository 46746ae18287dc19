//! One request, from its head to its answer: checked, read, verified, queued, and only then 204.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use clerk_sync_pipeline::{
    complaint::Complaint,
    event::{Event, EventId, EventType, Millis},
    queue::{CONFIRM_TIMEOUT, Publish, PublishError},
    telemetry::{Label as _, LogSampler, Metrics, WebhookOutcome, whole_millis},
    trace,
};
use futures_util::FutureExt as _;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header, request::Parts};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Body;
use prometheus::IntCounter;
use tokio::time::{Instant, timeout_at};
use tracing::Level;

use crate::{
    config::IngestArgs,
    places::{GaveWay, Held, Places},
    refusal::Refusal,
    trace_context::traceparent,
    verify::{Untrusted, Unverified, Verifier},
};

/// An answer leaves within this time of the head's last byte, whatever happens. Svix waits 15 s.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// When to give up a queue that breaks its promise to answer within `CONFIRM_TIMEOUT`, counted
/// from the head as well.
const QUEUE_DEADLINE: Duration = Duration::from_millis(9_500);
const _: () = assert!(CONFIRM_TIMEOUT.as_millis() < QUEUE_DEADLINE.as_millis());
const _: () = assert!(QUEUE_DEADLINE.as_millis() < ANSWER_WITHIN.as_millis());

/// What answers requests; one for all connections.
pub(crate) struct Webhook<P> {
    path: String,
    verifier: Verifier,
    max_body_bytes: usize,
    body_timeout: Duration,
    places: Arc<Places>,
    publisher: P,
    metrics: Arc<Metrics>,
    /// One counter for each secret, kept: finding one is a lookup.
    secret_matches: Vec<IntCounter>,
    queue_complaint: Complaint,
    trust_complaint: Complaint,
    /// For lines about single events, and about single requests that were refused.
    events_logged: LogSampler,
    refusals_logged: LogSampler,
}

impl<P: Publish> Webhook<P> {
    pub(crate) fn new(
        args: IngestArgs,
        verifier: Verifier,
        publisher: P,
        metrics: Arc<Metrics>,
    ) -> Self {
        let secrets = 0..verifier.secrets();
        let places = Arc::new(Places::new(
            args.max_in_flight,
            args.max_buffered_bytes.max(args.max_body_bytes),
        ));
        watch(&places, &metrics);
        Self {
            path: args.webhook_path,
            verifier,
            max_body_bytes: args.max_body_bytes,
            body_timeout: args.body_timeout,
            places,
            publisher,
            secret_matches: secrets
                .map(|position| metrics.secret_matches(position))
                .collect(),
            metrics,
            queue_complaint: Complaint::default(),
            trust_complaint: Complaint::default(),
            events_logged: LogSampler::default(),
            refusals_logged: LogSampler::default(),
        }
    }

    /// Answers a request whose head was complete at `started`, and counts the answer.
    pub(crate) async fn answer<B>(
        &self,
        request: Request<B>,
        started: Instant,
        draining: bool,
    ) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (head, mut body) = request.into_parts();
        let (mut response, outcome, close) =
            match self.accept(&head, &mut body, started, draining).await {
                Ok(()) => (no_content(), WebhookOutcome::Accepted, false),
                Err(refusal) => {
                    self.complain(&refusal);
                    let close = refusal.spoils_connection() || !is_read(&mut body);
                    (refusal.response(), refusal.code().1, close)
                }
            };
        // What is left of the body would stand before the next request. HTTP/2 resets the stream.
        if close && head.version < Version::HTTP_2 {
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        self.metrics.webhook_requests.get(outcome).inc();
        self.metrics
            .webhook_duration
            .observe(started.elapsed().as_secs_f64());
        response
    }

    /// Counts an answer to a head that never became a request.
    pub(crate) fn count_slow_head(&self) {
        self.metrics
            .webhook_requests
            .get(Refusal::HeadTimeout.code().1)
            .inc();
    }

    async fn accept<B>(
        &self,
        head: &Parts,
        body: &mut B,
        started: Instant,
        draining: bool,
    ) -> Result<(), Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        if head.uri.path() != self.path {
            return Err(Refusal::NotFound);
        }
        if head.method != Method::POST {
            return Err(Refusal::MethodNotAllowed);
        }
        if draining {
            return Err(Refusal::Draining);
        }
        let unverified = Unverified::read(&head.headers, Millis::now())?;
        let mut place = self.places.take().ok_or(Refusal::Overloaded)?;

        let mut held = self.places.hold_nothing();
        let read = read(body, self.max_body_bytes, &mut held);
        let read = timeout_at(started + self.body_timeout, read);
        let body = place
            .while_reading(read)
            .await
            .map_err(|GaveWay| Refusal::Overloaded)?
            .map_err(|_| Refusal::BodyTimeout)??;
        let received_at = Millis::now();
        let verified = unverified.verify(&self.verifier, body)?;
        self.secret_matches[verified.secret_position()].inc();
        self.metrics
            .last_verified_event
            .set(unix_seconds(received_at));
        self.metrics
            .clock_skew
            .set(verified.signed_before(received_at));

        let mut event = verified.into_event(received_at, traceparent(&head.headers));
        let trace = trace::Request::begin(&mut event, started.elapsed());
        let logged = Logged::of(&event);
        // Success is said only after durability: `Ok` means that the queue has the event on disk
        // and routed. Nothing before this line may lead to a 2xx.
        let published = timeout_at(started + QUEUE_DEADLINE, self.publisher.publish(event))
            .await
            .unwrap_or_else(|_| Err(PublishError::Unavailable("no answer".to_owned())))
            .map_err(Refusal::Queue);
        let refused = published.as_ref().err().map(Refusal::code);
        trace.end(refused);
        if let Some(logged) = logged {
            let outcome = refused.map_or(WebhookOutcome::Accepted, |(_, outcome)| outcome);
            self.tell(&logged, outcome, started.elapsed());
        }
        published
    }

    /// Tells the operator what the client need not know, without flooding the log.
    fn complain(&self, refusal: &Refusal) {
        let now = Millis::now();
        let outcome = refusal.code().1.as_str();
        match refusal {
            Refusal::Queue(error) => self.queue_complaint.say(now, |held_back| {
                tracing::warn!(outcome, %error, held_back, "events refused with 503");
            }),
            Refusal::Overloaded => self.queue_complaint.say(now, |held_back| {
                tracing::warn!(outcome, held_back, "events refused with 503");
            }),
            Refusal::Untrusted(
                untrusted @ (Untrusted::SignatureMismatch | Untrusted::TimestampOutOfTolerance),
            ) => self.trust_complaint.say(now, |held_back| {
                // A wrong secret or a wrong clock; or somebody trying.
                tracing::warn!(outcome, error = %untrusted, held_back, "requests refused with 401");
            }),
            Refusal::NotFound
            | Refusal::MethodNotAllowed
            | Refusal::Untrusted(Untrusted::MissingHeader(_) | Untrusted::MalformedHeader(_))
            | Refusal::HeadTimeout
            | Refusal::BodyTimeout
            | Refusal::BodyTooLarge(_)
            | Refusal::MalformedBody
            | Refusal::Draining => {
                if tracing::enabled!(Level::DEBUG) {
                    self.refusals_logged.of_anything(now, |held_back| {
                        tracing::debug!(outcome, error = %refusal, held_back, "request refused");
                    });
                }
            }
        }
    }

    /// The line of a webhook that was verified.
    fn tell(&self, logged: &Logged, outcome: WebhookOutcome, took: Duration) {
        self.events_logged
            .of_event(&logged.id, Millis::now(), |held_back| {
                tracing::debug!(
                    event.id = %logged.id,
                    event.r#type = %logged.event_type,
                    outcome = outcome.as_str(),
                    duration_ms = whole_millis(took),
                    held_back,
                    "webhook answered"
                );
            });
    }
}

/// What is logged of an event after the queue has taken it.
struct Logged {
    id: EventId,
    event_type: EventType,
}

impl Logged {
    /// `None` where no such line is wanted: then nothing is copied.
    fn of(event: &Event) -> Option<Self> {
        tracing::enabled!(Level::DEBUG).then(|| Self {
            id: event.id.clone(),
            event_type: event.event_type.clone(),
        })
    }
}

/// Has the metrics say how many places are taken.
fn watch(places: &Arc<Places>, metrics: &Metrics) {
    let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    metrics.webhooks_in_flight_limit.set(gauge(places.count()));
    let places = places.clone();
    metrics.measured(move |metrics| metrics.webhooks_in_flight.set(gauge(places.taken())));
}

fn no_content() -> Response<Full<Bytes>> {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// The whole body, in one piece: its only frame as it is, or its frames joined.
async fn read<B>(body: &mut B, limit: usize, held: &mut Held<'_>) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let announced = body.size_hint();
    if announced.lower() > limit as u64 {
        return Err(Refusal::BodyTooLarge(limit));
    }
    let announced = announced
        .exact()
        .and_then(|bytes| usize::try_from(bytes).ok());
    let mut only = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::MalformedBody)?;
        // Trailers say nothing that was signed.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if only.len() + joined.len() + data.len() > limit {
            return Err(Refusal::BodyTooLarge(limit));
        }
        if only.is_empty() && joined.is_empty() {
            only = data;
            continue;
        }
        held.add(&data)
            .await
            .map_err(|GaveWay| Refusal::Overloaded)?;
        if joined.is_empty() {
            joined.reserve(announced.unwrap_or(2 * (only.len() + data.len())));
            joined.extend_from_slice(&std::mem::take(&mut only));
        }
        joined.extend_from_slice(&data);
    }
    Ok(if joined.is_empty() {
        only
    } else {
        joined.freeze()
    })
}

/// Whether nothing of a body is left on the connection; what has arrived already is thrown away.
fn is_read<B>(body: &mut B) -> bool
where
    B: Body<Data = Bytes> + Unpin,
{
    // The body that fitted one read with its head comes as one frame; then the end.
    for _ in 0..2 {
        if body.is_end_stream() {
            return true;
        }
        match body.frame().now_or_never() {
            Some(Some(Ok(_))) => {}
            Some(None) => return true,
            Some(Some(Err(_))) | None => return false,
        }
    }
    body.is_end_stream()
}

fn unix_seconds(moment: Millis) -> f64 {
    moment.seconds_since(Millis(0))
}
