//! The admin port: `/livez`, `/readyz`, `/metrics`. Bound to loopback unless told otherwise, and
//! never part of the webhook port.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, net::TcpStream, time::timeout};
use tokio_util::task::TaskTracker;

use crate::{complaint::Complaint, event::Millis, lifecycle::Shutdown, telemetry::Metrics};

/// Longest wait for one dependency's answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for a request's head; admin clients are near.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failed accept: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a process needs in order to do its work, and whether it has it.
///
/// A part is either *told* (a connection's supervisor says what it sees) or *asked* (a database is
/// pinged when somebody wants to know). Cloning shares it.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, Part>>>);

type Probe =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

#[derive(Clone)]
enum Part {
    Told(Result<(), String>),
    Asked(Probe),
}

/// The right to say how one part is.
#[derive(Clone)]
pub struct ReadinessPart {
    readiness: Readiness,
    name: &'static str,
}

impl Readiness {
    /// Adds a part that is told, not ready until it is told so.
    #[must_use]
    pub fn told(&self, name: &'static str) -> ReadinessPart {
        self.set(name, Part::Told(Err("starting".to_owned())));
        ReadinessPart {
            readiness: self.clone(),
            name,
        }
    }

    /// Adds a part that is asked for each `/readyz`, with at most 2 s to answer.
    pub fn asked<F>(&self, name: &'static str, probe: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.set(name, Part::Asked(Arc::new(move || Box::pin(probe()))));
    }

    /// Every part that is not ready, with the reason. Empty means ready; a process that has not
    /// named its parts yet is not.
    pub async fn problems(&self) -> Vec<(&'static str, String)> {
        let parts = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut problems = Vec::new();
        if parts.is_empty() {
            problems.push(("process", "starting".to_owned()));
        }
        for (name, part) in parts {
            let answer = match part {
                Part::Told(answer) => answer,
                Part::Asked(probe) => timeout(PROBE_TIMEOUT, probe())
                    .await
                    .unwrap_or_else(|_| Err(format!("no answer in {PROBE_TIMEOUT:?}"))),
            };
            problems.extend(answer.err().map(|reason| (name, reason)));
        }
        problems
    }

    fn set(&self, name: &'static str, part: Part) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name, part);
    }
}

impl ReadinessPart {
    /// The part works.
    pub fn ready(&self) {
        self.readiness.set(self.name, Part::Told(Ok(())));
    }

    /// The part does not work, for a reason that holds no secret.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.readiness
            .set(self.name, Part::Told(Err(reason.into())));
    }
}

/// The admin port of a process, and what it tells there.
pub struct AdminPort {
    listener: TcpListener,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// What `/readyz` asks.
    pub readiness: Readiness,
}

impl AdminPort {
    /// Tells these metrics there, and of a process that is not ready yet.
    #[must_use]
    pub fn new(listener: TcpListener, metrics: Metrics) -> Self {
        Self {
            listener,
            metrics: Arc::new(metrics),
            readiness: Readiness::default(),
        }
    }

    /// Where it is.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves the port until shutdown was requested and `drained` resolves, so that an
    /// orchestrator can watch the process stop.
    pub async fn serve(&self, shutdown: Shutdown, drained: impl Future<Output = ()>) {
        let connections = TaskTracker::new();
        let admin = Arc::new(Admin {
            metrics: self.metrics.clone(),
            readiness: self.readiness.clone(),
            shutdown,
        });
        let mut drained = std::pin::pin!(drained);
        let complaint = Complaint::default();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = &mut drained => return,
            };
            match accepted {
                Ok((stream, _)) => drop(connections.spawn(admin.clone().connection(stream))),
                Err(error) => {
                    complaint.say(Millis::now(), |held_back| {
                        tracing::warn!(%error, held_back, "the admin port cannot accept");
                    });
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

struct Admin {
    metrics: Arc<Metrics>,
    readiness: Readiness,
    shutdown: Shutdown,
}

impl Admin {
    async fn connection(self: Arc<Self>, stream: TcpStream) {
        let service = service_fn(|request| self.answer(request));
        // A scraper that goes away is no concern of ours.
        let _ = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let response = match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/livez") => text(StatusCode::OK, "ok\n"),
            (&Method::GET | &Method::HEAD, "/readyz") => self.readyz().await,
            (&Method::GET | &Method::HEAD, "/metrics") => answer(
                StatusCode::OK,
                "text/plain; version=0.0.4; charset=utf-8",
                self.metrics.render(),
            ),
            (_, "/livez" | "/readyz" | "/metrics") => {
                let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
                let allowed = http::HeaderValue::from_static("GET, HEAD");
                refused.headers_mut().insert(header::ALLOW, allowed);
                refused
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "this port has /livez, /readyz and /metrics\n",
            ),
        };
        Ok(response)
    }

    async fn readyz(&self) -> Response<Full<Bytes>> {
        let mut problems = self.readiness.problems().await;
        if self.shutdown.is_requested() {
            problems.push(("process", "stopping".to_owned()));
        }
        let ready = problems.is_empty();
        let problems: serde_json::Map<String, serde_json::Value> = problems
            .into_iter()
            .map(|(name, reason)| (name.to_owned(), reason.into()))
            .collect();
        let body = serde_json::json!({ "ready": ready, "problems": problems });
        let status = if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        answer(status, "application/json", format!("{body}\n").into_bytes())
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    answer(
        status,
        "text/plain; charset=utf-8",
        body.as_bytes().to_vec(),
    )
}

fn answer(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let content_type = http::HeaderValue::from_static(content_type);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

/// Asks a process of this machine whether it is ready: `GET /readyz` at its admin address.
///
/// # Errors
/// Not reachable, or not ready: the reasons as `/readyz` gives them.
pub async fn healthcheck(admin: SocketAddr) -> Result<(), String> {
    let ask = async {
        let stream = TcpStream::connect(reachable(admin)).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await?;
        let request = Request::get("/readyz")
            .header(header::HOST, "localhost")
            .body(Empty::new())
            .expect("a constant request");
        let exchange = async move {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>((status, body))
        };
        let (answer, _) = tokio::join!(exchange, connection);
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(answer?)
    };
    match timeout(PROBE_TIMEOUT * 2, ask).await {
        Ok(Ok((StatusCode::OK, _))) => Ok(()),
        Ok(Ok((_, body))) => Err(String::from_utf8_lossy(&body).trim().to_owned()),
        Ok(Err(error)) => Err(format!("no answer from {admin}: {error}")),
        Err(_) => Err(format!("no answer from {admin} in time")),
    }
}

/// The address to call from this machine for a listener that may be bound to every address.
#[must_use]
pub fn reachable(bound: SocketAddr) -> SocketAddr {
    let mut address = bound;
    if bound.ip().is_unspecified() {
        address.set_ip(match bound {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
