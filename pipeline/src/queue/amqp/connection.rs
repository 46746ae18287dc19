//! A connection that can be given up at any moment, and the loop that keeps one alive.

use std::{
    collections::HashSet,
    io,
    net::Shutdown as SocketShutdown,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_compat::CompatExt as _;
use futures_util::{StreamExt as _, stream::BoxStream};
use lapin::{Connection, ConnectionProperties, tcp::OwnedTLSConfig, uri::AMQPScheme, uri::AMQPUri};
use socket2::SockRef;
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Server,
    explain::{alarm, explain},
};
use crate::{
    admin::ReadinessPart,
    retry::Backoff,
    secret::ServerUrl,
    telemetry::{Metrics, QueueConnection},
};

/// Whole time for TCP, TLS, the AMQP handshake and opening the channels.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Seconds; a silent peer is noticed after two of them.
const HEARTBEAT: u16 = 10;
/// Longest frame, in bytes. lapin has room for 32 each way, and goes round in it: of RabbitMQ's
/// 128 KiB that is 8 MiB for each connection, which no cache holds. A longer body takes several.
const FRAME_MAX: u32 = 32 * 1024;
/// How long written bytes may go unacknowledged by the peer's kernel.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest wait for a polite close.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// An incarnation that lived this long was a success: the next delay is the shortest again.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// One incarnation of a connection, with what was opened on it.
pub(super) struct Incarnation<T> {
    pub(super) connection: Connection,
    pub(super) opened: T,
    pub(super) link: Link,
}

/// The end of an incarnation, in everybody's reach.
#[derive(Clone)]
pub(super) struct Link(Arc<LinkState>);

struct LinkState {
    failed: CancellationToken,
    cause: Mutex<Option<String>>,
    /// A second handle on the socket. lapin's own close can hang on a dead peer, and giving up a
    /// handshake would leak its thread; shutting the socket under it ends both at once.
    socket: Mutex<Option<std::net::TcpStream>>,
}

impl Link {
    pub(super) fn new() -> Self {
        Self(Arc::new(LinkState {
            failed: CancellationToken::new(),
            cause: Mutex::new(None),
            socket: Mutex::new(None),
        }))
    }

    /// Ends the incarnation. The first cause is kept.
    pub(super) fn fail(&self, cause: impl Into<String>) {
        lock(&self.0.cause).get_or_insert_with(|| cause.into());
        self.0.failed.cancel();
    }

    /// Why the incarnation has ended, if it has.
    pub(super) fn failure(&self) -> Option<String> {
        self.0.failed.is_cancelled().then(|| self.cause())
    }

    /// Resolves when the incarnation has ended.
    pub(super) async fn failed(&self) {
        self.0.failed.cancelled().await;
    }

    /// The first cause.
    pub(super) fn cause(&self) -> String {
        lock(&self.0.cause)
            .clone()
            .unwrap_or_else(|| "the connection was closed".to_owned())
    }

    fn cut(&self) {
        self.0.failed.cancel();
        if let Some(socket) = lock(&self.0.socket).take() {
            // An error means that it is shut already.
            let _ = socket.shutdown(SocketShutdown::Both);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Cuts the socket when a connection attempt is given up half way.
pub(super) struct CutOnDrop(Option<Link>);

impl CutOnDrop {
    /// For those who work on the connection, to learn of its end.
    pub(super) fn link(&self) -> Link {
        self.0.clone().expect("an errand's guard has its link")
    }
}

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        if let Some(link) = self.0.take() {
            link.cut();
        }
    }
}

/// A plain connection for a short errand (`setup`, `depth`), on the first node that takes it; cut
/// when the guard is dropped.
pub(super) async fn errand(server: &Server) -> Result<(Connection, CutOnDrop), String> {
    let mut causes = Vec::new();
    for node in server.nodes.in_turn().take(server.nodes.len()) {
        match errand_on(server, node, CONNECT_TIMEOUT).await {
            Ok(connected) => return Ok(connected),
            Err(cause) => causes.push(cause),
        }
    }
    Err(causes.join("; "))
}

/// The same on one node, with another patience.
pub(super) async fn errand_on(
    server: &Server,
    node: &ServerUrl,
    patience: Duration,
) -> Result<(Connection, CutOnDrop), String> {
    let link = Link::new();
    let guard = CutOnDrop(Some(link.clone()));
    let connecting = connect(server, node, "clerk-sync", &link);
    match timeout(patience, connecting).await {
        Ok(connected) => connected.map(|connection| (connection, guard)),
        Err(_) => Err(silent(node, patience)),
    }
}

fn silent(node: &ServerUrl, patience: Duration) -> String {
    format!("{node} did not answer within {patience:?}")
}

async fn connect(
    server: &Server,
    node: &ServerUrl,
    name: &str,
    link: &Link,
) -> Result<Connection, String> {
    let mut uri: AMQPUri = node
        .expose()
        .as_str()
        .parse()
        .map_err(|error| format!("{node} is not an AMQP address: {error}"))?;
    uri.query.heartbeat.get_or_insert(HEARTBEAT);
    uri.query.frame_max.get_or_insert(FRAME_MAX);
    let cert_chain = match &server.ca {
        Some(path) => Some(
            std::fs::read_to_string(path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?,
        ),
        None => None,
    };
    let tls = OwnedTLSConfig {
        identity: None,
        cert_chain,
    };
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let link = link.clone();
    let runtime = lapin::runtime::default_runtime().map_err(|error| explain(&error))?;
    let open = async move |uri: AMQPUri, _| {
        let stream = open_socket(&uri, &link).await?;
        let stream = lapin::AsyncTcpStream::Plain(stream.compat());
        match uri.scheme {
            AMQPScheme::AMQP => Ok(stream),
            AMQPScheme::AMQPS => Ok(stream.into_tls(&uri.authority.host, tls.as_ref()).await?),
        }
    };
    Connection::connector(uri, runtime, open, properties)
        .await
        .map_err(|error| format!("{node}: {}", explain(&error)))
}

async fn open_socket(uri: &AMQPUri, link: &Link) -> io::Result<TcpStream> {
    let given_up = || io::Error::from(io::ErrorKind::ConnectionAborted);
    let connecting = TcpStream::connect((uri.authority.host.as_str(), uri.authority.port));
    // This runs on lapin's thread: it must end with the attempt that it belongs to.
    let stream = tokio::select! {
        stream = connecting => stream?,
        () = link.failed() => return Err(given_up()),
    };
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    SockRef::from(&stream).set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    SockRef::from(&stream).set_keepalive(true)?;
    let stream = stream.into_std()?;
    *lock(&link.0.socket) = Some(stream.try_clone()?);
    if link.0.failed.is_cancelled() {
        link.cut();
        return Err(given_up());
    }
    TcpStream::from_std(stream)
}

/// Keeps one connection alive until it is stopped, and shows the current incarnation to others.
pub(super) struct Supervisor<T> {
    server: Server,
    name: &'static str,
    readiness: ReadinessPart,
    gauge: QueueConnection,
    current: watch::Sender<Option<Arc<Incarnation<T>>>>,
    stop: CancellationToken,
}

/// What the users of a supervised connection hold.
pub(super) struct Supervised<T> {
    pub(super) current: watch::Receiver<Option<Arc<Incarnation<T>>>>,
    stop: CancellationToken,
    task: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl<T> Supervised<T> {
    /// Closes the connection politely, and waits until its loop has ended.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        let task = lock(&self.task).take();
        if let Some(task) = task {
            // Its panic, if any, was reported when it happened.
            let _ = task.await;
        }
    }
}

impl<T> Drop for Supervised<T> {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl<T: Send + Sync + 'static> Supervisor<T> {
    /// Starts the loop. `open` makes channels on a fresh connection; its error ends that
    /// incarnation, and names what an operator should do.
    pub(super) fn start<F>(
        server: Server,
        name: &'static str,
        metrics: &Arc<Metrics>,
        readiness: ReadinessPart,
        open: F,
    ) -> Supervised<T>
    where
        F: AsyncOpen<T>,
    {
        let (current, receiver) = watch::channel(None);
        let stop = CancellationToken::new();
        readiness.not_ready("connecting");
        let supervisor = Self {
            server,
            name,
            readiness,
            gauge: metrics.queue_connection(),
            current,
            stop: stop.clone(),
        };
        let task = tokio::spawn(supervisor.run(open));
        Supervised {
            current: receiver,
            stop,
            task: Mutex::new(Some(task)),
        }
    }

    async fn run<O: AsyncOpen<T>>(mut self, open: O) {
        let mut backoff = Backoff::reconnect();
        let mut told = HashSet::new();
        let nodes = self.server.nodes.clone();
        for node in nodes.in_turn() {
            if self.stop.is_cancelled() {
                break;
            }
            let cause = match self.incarnate(node, &open).await {
                Ok((incarnation, events)) => {
                    tracing::info!(connection = self.name, server = %node, "connected to the queue");
                    let since = Instant::now();
                    let cause = self.live::<O>(incarnation, events).await;
                    if since.elapsed() >= STABLE_AFTER {
                        backoff.reset();
                        told.clear();
                    }
                    cause
                }
                Err(cause) => cause,
            };
            if self.stop.is_cancelled() {
                break;
            }
            self.readiness.not_ready(cause.clone());
            // Each cause once per outage; every further attempt is a detail. A connection that is
            // made and lost at once (a permission is missing) is no end of an outage.
            if told.insert(cause.clone()) {
                tracing::warn!(
                    connection = self.name,
                    error = cause,
                    "no connection to the queue, trying again"
                );
            } else {
                tracing::debug!(
                    connection = self.name,
                    error = cause,
                    "still no connection to the queue"
                );
            }
            tokio::select! {
                () = sleep(backoff.next_delay()) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    async fn incarnate(
        &self,
        node: &ServerUrl,
        open: &impl AsyncOpen<T>,
    ) -> Result<(Arc<Incarnation<T>>, BoxStream<'static, lapin::Event>), String> {
        let link = Link::new();
        let mut guard = CutOnDrop(Some(link.clone()));
        let establish = async {
            let connection = connect(&self.server, node, self.name, &link).await?;
            // Listen before the first channel: no error can be missed.
            let events = connection.events_listener().boxed();
            let opened = open.open(&connection, &link).await?;
            Ok::<_, String>((connection, events, opened))
        };
        let (connection, events, opened) = tokio::select! {
            established = timeout(CONNECT_TIMEOUT, establish) => match established {
                Ok(result) => result?,
                Err(_) => return Err(silent(node, CONNECT_TIMEOUT)),
            },
            () = self.stop.cancelled() => return Err("stopping".to_owned()),
        };
        guard.0 = None;
        Ok((
            Arc::new(Incarnation {
                connection,
                opened,
                link,
            }),
            events,
        ))
    }

    /// Shows the incarnation until it fails or the loop is stopped; returns why it ended.
    async fn live<O: AsyncOpen<T>>(
        &mut self,
        incarnation: Arc<Incarnation<T>>,
        mut events: BoxStream<'static, lapin::Event>,
    ) -> String {
        let link = incarnation.link.clone();
        // What happened before anybody listened was told to nobody.
        if !incarnation.connection.status().connected() {
            link.fail("the connection ended while it was opened");
        }
        self.current.send_replace(Some(incarnation.clone()));
        // A role that is not ready by connecting alone keeps its last cause; its user tells more.
        if O::READY_WHEN_OPEN {
            self.readiness.ready();
        }
        self.gauge.set(true);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    // The end of one channel, which whoever uses it is told as well; the others
                    // on this connection go on.
                    Some(lapin::Event::Error(error))
                        if is_of_a_channel(&error) && incarnation.connection.status().connected() =>
                    {
                        tracing::debug!(connection = self.name, %error, "the broker closed a channel");
                    }
                    Some(lapin::Event::Error(error)) => link.fail(explain(&error)),
                    None => link.fail("the connection's loop has ended"),
                    Some(lapin::Event::ConnectionBlocked(reason)) => {
                        tracing::warn!(
                            connection = self.name,
                            error = reason,
                            "the broker refuses publishes: alarm"
                        );
                        self.readiness.not_ready(alarm(&reason));
                    }
                    Some(lapin::Event::ConnectionUnblocked) => {
                        tracing::info!(connection = self.name, "the broker takes publishes again");
                        self.readiness.ready();
                    }
                    Some(_) => {}
                },
                () = link.failed() => break,
                () = self.stop.cancelled() => break,
            }
        }
        self.gauge.set(false);
        self.current.send_replace(None);
        if self.stop.is_cancelled() && !link.0.failed.is_cancelled() {
            let _ = timeout(
                CLOSE_TIMEOUT,
                incarnation.connection.close(200, "stopping".into()),
            )
            .await;
        }
        let cause = link.cause();
        link.cut();
        cause
    }
}

/// AMQP's soft errors close a channel, its hard ones the connection.
fn is_of_a_channel(error: &lapin::Error) -> bool {
    use lapin::protocol::AMQPErrorKind;
    matches!(
        error.kind(),
        lapin::ErrorKind::ProtocolError(reply) if matches!(reply.kind(), AMQPErrorKind::Soft(_))
    )
}

/// Opens what a role needs on a fresh connection.
pub(super) trait AsyncOpen<T>: Send + Sync + 'static {
    /// Whether the role works once all is open; else those who use it say so.
    const READY_WHEN_OPEN: bool;

    /// Channels, declared and checked; the error is for an operator.
    fn open(
        &self,
        connection: &Connection,
        link: &Link,
    ) -> impl Future<Output = Result<T, String>> + Send;
}
