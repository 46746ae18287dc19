//! One connection: hyper serves it, a watchdog keeps its time limits, and it ends politely.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::task::TaskTracker;

use crate::{
    activity::{Activity, CROWDED, Limits, Verdict},
    crowd::Crowd,
    drain::Drain,
    handler::Handler,
    refusal::Refusal,
    socket::Socket,
};

/// Largest head, and the largest read: hyper keeps both in one buffer.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Most requests at a time on one HTTP/2 connection: the least that RFC 9113 advises (6.5.2). An
/// answer whose client gives it no window is held, with some 5 KiB.
const MAX_STREAMS: u32 = 100;
/// Most bytes of one body that a client may send ahead of us, and of all bodies of a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Most bytes of answers held for one HTTP/2 stream: they are a few hundred.
const MAX_SEND_BUFFER: usize = 16 * 1024;
/// Streams that a client opened and reset before we looked at them ("rapid reset"), and that we
/// reset for its errors, before the connection is given up. hyper's own values, held here.
const MAX_PENDING_RESETS: usize = 20;
const MAX_LOCAL_RESETS: usize = 1024;
/// How often an HTTP/2 client is asked whether it is still there, and how long it may think.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a closed connection waits for its client to close too. Closing on bytes that are still
/// on their way would reset the connection, and may take the last answer from the client.
const CLOSE_LINGER: Duration = Duration::from_secs(2);
/// The same while others wait for its place: two round trips.
const CROWDED_LINGER: Duration = Duration::from_millis(250);
/// How soon a connection that could not be closed at once during a shutdown is looked at again.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// What all connections share.
pub(crate) struct Connections<H> {
    http: auto::Builder<Streams>,
    handler: H,
    limits: Limits,
    crowd: Crowd,
    drain: Drain,
}

/// How a connection came to its end.
enum End {
    /// hyper is done with it: closed by either side, or broken.
    Served,
    /// A head is overdue.
    SlowHead,
    /// The client does not read, or does not let go.
    Stuck,
}

impl<H: Handler> Connections<H> {
    /// `streams` owns the requests of HTTP/2 connections.
    pub(crate) fn new(
        handler: H,
        limits: Limits,
        crowd: Crowd,
        drain: Drain,
        streams: TaskTracker,
    ) -> Self {
        Self {
            http: http(streams),
            handler,
            limits,
            crowd,
            drain,
        }
    }

    /// Serves one connection to its end.
    pub(crate) async fn serve(self: Arc<Self>, stream: TcpStream) {
        let activity = Arc::new(Activity::new(Instant::now()));
        let (socket, mut returned) = Socket::lend(stream, activity.clone());
        let end = self.clone().drive(socket, activity).await;
        let Ok(stream) = returned.try_recv() else {
            return;
        };
        match end {
            End::Served => close(stream, self.linger()).await,
            End::SlowHead => {
                self.handler.count_slow_head();
                say_too_slow(stream, self.linger()).await;
            }
            // What it has not read by now is dropped with it.
            End::Stuck => drop(stream),
        }
    }

    fn limits(&self) -> Limits {
        if self.crowd.is_waiting() {
            self.limits.crowded()
        } else {
            self.limits
        }
    }

    fn linger(&self) -> Duration {
        if self.crowd.is_waiting() {
            CROWDED_LINGER
        } else {
            CLOSE_LINGER
        }
    }

    /// Runs hyper until it is done or a time limit ends it. hyper has let go of the socket then.
    async fn drive(self: Arc<Self>, socket: Socket, activity: Arc<Activity>) -> End {
        let service = service_fn(|request| {
            let (connections, activity) = (self.clone(), activity.clone());
            async move { Ok::<_, Infallible>(connections.answer(request, &activity).await) }
        });
        let mut connection = pin!(self.http.serve_connection(TokioIo::new(socket), service));
        let mut watchdog = pin!(sleep_until(Instant::now() + CROWDED.min(self.limits.head)));
        let mut lingered = pin!(self.drain.lingered());
        let mut ending = false;
        let mut closing_since = None;
        loop {
            tokio::select! {
                // hyper first: what has arrived is known before the watchdog judges.
                biased;
                // A client's broken connection is no concern of ours.
                _ = connection.as_mut() => return End::Served,
                () = lingered.as_mut(), if !ending => {
                    ending = true;
                    if activity.is_http2() {
                        // GOAWAY tells the client exactly which requests will still be answered.
                        connection.as_mut().graceful_shutdown();
                        closing_since = Some(Instant::now());
                    }
                }
                () = watchdog.as_mut() => {}
            }
            let now = Instant::now();
            let limits = self.limits();
            let again = match activity.verdict(limits, ending, now) {
                Verdict::WaitUntil(again) => again,
                Verdict::SlowHead => return End::SlowHead,
                Verdict::Stuck => return End::Stuck,
                Verdict::Idle(idle_since) => {
                    let closing_since: Instant = *closing_since.get_or_insert_with(|| {
                        connection.as_mut().graceful_shutdown();
                        now
                    });
                    // An HTTP/2 client has as long to take its last answers, and its leave, as for
                    // a request's head.
                    let patience = closing_since.max(idle_since) + limits.head;
                    if now >= patience {
                        return End::Stuck;
                    }
                    patience
                }
            };
            // What shortens the limits is looked at, not heard: nobody wakes thousands at a time.
            let poll = if ending { DRAIN_POLL } else { CROWDED };
            watchdog.as_mut().reset(again.min(now + poll));
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        activity: &Arc<Activity>,
    ) -> Response<H::Body> {
        let started = Instant::now();
        let _serving = activity.begin(&request);
        let is_http1 = request.version() < Version::HTTP_2;
        let refuse = self.drain.is_over();
        let mut response = self.handler.answer(request, started, refuse).await;
        // The client should bring its next request elsewhere; but those that wait behind this one
        // are answered first.
        if self.drain.has_begun() && is_http1 && !activity.has_more_waiting() {
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

fn http(streams: TaskTracker) -> auto::Builder<Streams> {
    let mut http = auto::Builder::new(Streams(streams));
    http.http1()
        .timer(TokioTimer::new())
        .keep_alive(true)
        .half_close(false)
        // The watchdog does it, and says 408.
        .header_read_timeout(None)
        // The number of headers is left at hyper's bound, 100: another one costs an allocation.
        .max_buf_size(MAX_HEAD_BYTES);
    http.http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_LOCAL_RESETS)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    http
}

/// Runs the requests of HTTP/2 connections where the server can wait for them.
#[derive(Clone)]
pub(crate) struct Streams(TaskTracker);

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}

/// Closes our side, and waits a moment for the client to close its own.
async fn close(mut stream: TcpStream, linger: Duration) {
    let mut discarded = [0; 1024];
    let wait_for_client = async {
        stream.shutdown().await?;
        while stream.read(&mut discarded).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    // A client that broke the connection has closed it too.
    let _ = timeout(linger, wait_for_client).await;
}

/// Answers a head that did not become a request.
async fn say_too_slow(mut stream: TcpStream, linger: Duration) {
    let answer = on_the_wire(Refusal::HeadTimeout.response()).await;
    if matches!(timeout(linger, stream.write_all(&answer)).await, Ok(Ok(()))) {
        close(stream, linger).await;
    }
}

/// An HTTP/1.1 answer as bytes, for a connection that hyper has given up.
async fn on_the_wire(response: Response<Full<Bytes>>) -> Vec<u8> {
    let (head, body) = response.into_parts();
    let Ok(body) = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes);
    let mut answer = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
    for (name, value) in &head.headers {
        answer.extend_from_slice(name.as_str().as_bytes());
        answer.extend_from_slice(b": ");
        answer.extend_from_slice(value.as_bytes());
        answer.extend_from_slice(b"\r\n");
    }
    let rest = format!(
        "content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    answer.extend_from_slice(rest.as_bytes());
    answer.extend_from_slice(&body);
    answer
}
