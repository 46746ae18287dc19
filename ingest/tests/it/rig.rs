//! A running ingester, a client that writes bytes, and signatures that are not made by `svix`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Parser as _;
use clerk_sync_ingest::{IngestArgs, config::signing_secret, run};
use clerk_sync_pipeline::{
    event::{Event, Millis},
    lifecycle::Shutdown,
    queue::{Publish, PublishError},
    telemetry::{Label as _, Metrics, WebhookOutcome},
};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

pub(crate) const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
pub(crate) const OTHER_SECRET: &str = "whsec_plJ3nmyCDGBKInavdOK15jsl";
pub(crate) const PATH: &str = "/api/webhooks/clerk";
pub(crate) const BODY: &[u8] =
    br#"{"data":{"id":"user_1"},"object":"event","type":"user.created"}"#;
/// Longest wait for anything that should happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How the queue behaves.
#[derive(Clone, Debug)]
pub(crate) enum Behaviour {
    Confirm,
    /// Neither confirms nor fails until it behaves otherwise.
    Hold,
    Overloaded,
    Unavailable,
}

/// The stand-in queue: what it confirmed is in a channel.
#[derive(Clone)]
pub(crate) struct Queue {
    behaviour: watch::Receiver<Behaviour>,
    waiting: Arc<watch::Sender<usize>>,
    confirmed: mpsc::Sender<Event>,
}

impl Publish for Queue {
    async fn publish(&self, event: Event) -> Result<(), PublishError> {
        self.waiting.send_modify(|waiting| *waiting += 1);
        let mut behaviour = self.behaviour.clone();
        let settled = behaviour
            .wait_for(|behaviour| !matches!(behaviour, Behaviour::Hold))
            .await
            .expect("the rig outlives its server")
            .clone();
        self.waiting.send_modify(|waiting| *waiting -= 1);
        match settled {
            Behaviour::Confirm => {
                self.confirmed
                    .try_send(event)
                    .expect("the channel is large enough for a test");
                Ok(())
            }
            Behaviour::Overloaded => Err(PublishError::Overloaded),
            Behaviour::Unavailable => Err(PublishError::Unavailable("10.0.0.7 is away".to_owned())),
            Behaviour::Hold => unreachable!("waited for another"),
        }
    }
}

/// A running ingester.
pub(crate) struct Rig {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) behaviour: watch::Sender<Behaviour>,
    pub(crate) shutdown: Shutdown,
    waiting: watch::Receiver<usize>,
    confirmed: mpsc::Receiver<Event>,
    server: JoinHandle<()>,
}

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    ingest: IngestArgs,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut IngestArgs)) -> Self {
        Self::with_secrets(SECRET, change).await
    }

    pub(crate) async fn with_secrets(secrets: &str, change: impl FnOnce(&mut IngestArgs)) -> Self {
        let mut args = Cli::parse_from(["test"]).ingest;
        change(&mut args);
        let verifier = signing_secret(secrets).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Arc::new(Metrics::new(verifier.secrets()));
        let shutdown = Shutdown::default();
        let (behaviour, behaves) = watch::channel(Behaviour::Confirm);
        let (waiting_sender, waiting) = watch::channel(0);
        let (confirmed_sender, confirmed) = mpsc::channel(100_000);
        let queue = Queue {
            behaviour: behaves,
            waiting: Arc::new(waiting_sender),
            confirmed: confirmed_sender,
        };
        let server = tokio::spawn(run(
            args,
            verifier,
            listener,
            queue,
            metrics.clone(),
            shutdown.clone(),
        ));
        Self {
            address,
            metrics,
            behaviour,
            shutdown,
            waiting,
            confirmed,
            server,
        }
    }

    pub(crate) async fn connect(&self) -> Wire {
        Wire::connect(self.address).await.unwrap()
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, request: &[u8]) -> Answer {
        let mut wire = self.connect().await;
        wire.send(request).await;
        wire.answer().await
    }

    /// The next event that the queue confirmed.
    pub(crate) async fn event(&mut self) -> Event {
        within(self.confirmed.recv())
            .await
            .expect("the server runs")
    }

    /// Every event confirmed by now.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.confirmed.try_recv().ok()).collect()
    }

    pub(crate) fn no_event(&mut self) {
        assert!(self.confirmed.try_recv().is_err(), "nothing was queued");
    }

    /// Waits until so many publishes wait for their confirm.
    pub(crate) async fn publishing(&mut self, count: usize) {
        within(self.waiting.wait_for(|waiting| *waiting == count))
            .await
            .expect("the server runs");
    }

    pub(crate) fn counted(&self, outcome: WebhookOutcome) -> u64 {
        self.metrics.webhook_requests.get(outcome).get()
    }

    /// What was counted, all outcomes together and each that is not zero.
    pub(crate) fn all_counted(&self) -> Vec<(&'static str, u64)> {
        let counts = WebhookOutcome::ALL
            .iter()
            .map(|outcome| (outcome.as_str(), self.counted(*outcome)));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// Requests the end, and waits for it.
    pub(crate) async fn stop(self) {
        self.shutdown.request();
        within(self.server).await.unwrap();
    }
}

/// Waits, but not for ever.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("in time")
}

/// Waits for a condition.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("{what}, in time"));
}

pub(crate) fn now_s() -> i64 {
    Millis::now().0 / 1000
}

/// A signature as Svix makes it, by other means than the code under test.
pub(crate) fn sign(
    secret: &str,
    id: &str,
    timestamp: impl std::fmt::Display,
    body: &[u8],
) -> String {
    let key = STANDARD
        .decode(secret.strip_prefix("whsec_").unwrap())
        .unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// The three headers of a body signed now.
pub(crate) fn signed_headers(id: &str, body: &[u8]) -> String {
    let now = now_s();
    let signature = sign(SECRET, id, now, body);
    format!("svix-id: {id}\r\nsvix-timestamp: {now}\r\nsvix-signature: {signature}\r\n")
}

/// A whole request with these headers (each line ended) and body.
pub(crate) fn request(headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("POST {PATH} HTTP/1.1\r\nhost: test\r\n{headers}content-length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// A request as Clerk sends it.
pub(crate) fn signed(id: &str, body: &[u8]) -> Vec<u8> {
    request(&signed_headers(id, body), body)
}

/// A connection on which bytes are written, and answers read one by one.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            read: Vec::new(),
        })
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        within(self.stream.write_all(bytes)).await.unwrap();
    }

    /// The next answer; panics when there is none.
    pub(crate) async fn answer(&mut self) -> Answer {
        within(self.try_answer())
            .await
            .expect("an answer, not the end of the connection")
    }

    /// The next answer, or `None` when the connection ended before or within it.
    pub(crate) async fn try_answer(&mut self) -> Option<Answer> {
        let head_end = loop {
            if let Some(at) = self
                .read
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            {
                break at + 4;
            }
            self.read_more().await?;
        };
        let head = String::from_utf8(self.read.drain(..head_end).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let headers: Vec<_> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        let length = answer
            .header("content-length")
            .map_or(0, |length| length.parse().unwrap());
        while self.read.len() < length {
            self.read_more().await?;
        }
        answer.body = self.read.drain(..length).collect();
        Some(answer)
    }

    /// Waits until the server closes, with nothing more to read.
    pub(crate) async fn closed(&mut self) {
        assert!(
            within(self.read_more()).await.is_none(),
            "closed, not {:?}",
            self.read
        );
    }

    async fn read_more(&mut self) -> Option<()> {
        match self.stream.read_buf(&mut self.read).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(()),
        }
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(found, _)| found == name);
        let (_, value) = values.next()?;
        assert!(values.next().is_none(), "one {name}");
        Some(value)
    }

    pub(crate) fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }

    /// Checks a problem document, whole.
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, error: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["error"], error);
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], "about:blank");
        let title = http::StatusCode::from_u16(status).unwrap();
        assert_eq!(problem["title"], title.canonical_reason().unwrap());
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        let retry_after = self
            .header("retry-after")
            .map(|seconds| seconds.parse::<u64>().unwrap());
        match status {
            503 => assert!((1..=60).contains(&retry_after.expect("a Retry-After"))),
            _ => assert_eq!(retry_after, None),
        }
        assert_eq!(self.header("allow"), (status == 405).then_some("POST"));
    }

    #[track_caller]
    pub(crate) fn is_accepted(&self) {
        assert_eq!(self.status, 204, "{}", String::from_utf8_lossy(&self.body));
        assert!(self.body.is_empty());
    }
}
