//! A port: accept, hand over, and stop without cutting anyone off.

use std::{io, pin::pin, sync::Arc, time::Duration};

use clerk_sync_pipeline::{
    complaint::Complaint, event::Millis, lifecycle::Shutdown, queue::Publish, telemetry::Metrics,
};
use futures_util::FutureExt as _;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::OwnedSemaphorePermit,
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;

use crate::{
    activity::Limits,
    config::{IngestArgs, PortLimits},
    connection::Connections,
    crowd::Crowd,
    drain::Drain,
    files,
    handler::{Beside, Handler, Neighbour},
    verify::Verifier,
    webhook::Webhook,
};

/// How long open connections are still served as if nothing had happened, except that each answer
/// says `Connection: close`: a busy client hears it with its next answer and loses nothing.
const DRAIN_LINGER: Duration = Duration::from_millis(500);
/// Pause after a failed accept: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves webhooks on `listener` until `shutdown` is requested and every open connection has come
/// to its end; see [`serve`].
pub async fn run<P: Publish>(
    args: IngestArgs,
    verifier: Verifier,
    listener: TcpListener,
    publisher: P,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
) {
    let limits = args.port;
    let webhook = Webhook::new(args, verifier, publisher, metrics);
    serve(webhook, limits, listener, shutdown).await;
}

/// Serves webhooks, and on the same port the paths of a neighbour, if there is one; see [`serve`].
pub async fn run_beside<P: Publish, N: Neighbour>(
    args: IngestArgs,
    verifier: Verifier,
    listener: TcpListener,
    publisher: P,
    metrics: Arc<Metrics>,
    neighbour: Option<N>,
    shutdown: Shutdown,
) {
    let limits = args.port;
    let webhook = Webhook::new(args, verifier, publisher, metrics);
    serve(Beside { webhook, neighbour }, limits, listener, shutdown).await;
}

/// Serves `handler` on `listener` until `shutdown` is requested and every open connection has come
/// to its end.
///
/// Answering, closing and waiting each have a time limit, so it returns within about 15 s of the
/// request; the caller's grace period is the last resort.
///
/// Raises the process's limit of open files when that is needed for the connections.
pub async fn serve<H: Handler>(
    handler: H,
    limits: PortLimits,
    listener: TcpListener,
    shutdown: Shutdown,
) {
    let tasks = TaskTracker::new();
    let drain = Drain::default();
    let crowd = Crowd::new(files::room_for(limits.max_connections));
    let connections = Arc::new(Connections::new(
        handler,
        Limits {
            head: limits.head_timeout,
            idle: limits.idle_timeout,
        },
        crowd.clone(),
        drain.clone(),
        tasks.clone(),
    ));
    let serve = |stream: TcpStream, place: Option<OwnedSemaphorePermit>| {
        // Answers are small and final: waiting to fill a packet only delays them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY not set");
        }
        let connection = connections.clone().serve(stream);
        tasks.spawn(async move {
            connection.await;
            drop(place);
        });
    };

    let complaint = Complaint::default();
    loop {
        let stream = tokio::select! {
            biased;
            () = shutdown.requested() => break,
            stream = accept(&listener, &crowd, &complaint) => stream,
        };
        // Further ones wait in the kernel's backlog.
        tokio::select! {
            biased;
            place = crowd.place() => serve(stream, Some(place)),
            () = shutdown.requested() => {
                serve(stream, None);
                break;
            }
        }
    }

    // First the port, then the farewells: a client that is told to go elsewhere must not find this
    // port still open, and be lost with it.
    let waiting = backlog(listener);
    drain.begin();
    match waiting {
        Ok(waiting) => waiting.into_iter().for_each(|stream| serve(stream, None)),
        Err(error) => tracing::warn!(%error, "connections waiting to be accepted were lost"),
    }
    tasks.close();
    if timeout(DRAIN_LINGER, tasks.wait()).await.is_err() {
        drain.end();
        tasks.wait().await;
    }
}

/// The next connection. When there is none yet, the crowd outside is gone.
async fn accept(listener: &TcpListener, crowd: &Crowd, complaint: &Complaint) -> TcpStream {
    loop {
        let mut next = pin!(listener.accept());
        let accepted = match next.as_mut().now_or_never() {
            Some(accepted) => accepted,
            None => {
                crowd.nobody_waits();
                next.await
            }
        };
        match accepted {
            Ok((stream, _)) => return stream,
            // The client is gone again already.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                complaint.say(Millis::now(), |held_back| {
                    tracing::warn!(%error, held_back, "the webhook port cannot accept");
                });
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Closes the port and returns the connections that were waiting behind it: their clients believe
/// that they are being served. There are no more than the kernel lets wait.
fn backlog(listener: TcpListener) -> io::Result<Vec<TcpStream>> {
    // Not through the runtime, which may not know of them yet.
    let listener = listener.into_std()?;
    let mut waiting = Vec::new();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                waiting.push(TcpStream::from_std(stream)?);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(waiting),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
}
