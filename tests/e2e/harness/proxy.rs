//! A TCP proxy that breaks on command.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    time::{Instant, sleep_until},
};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// What the proxy does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Carries them.
    Open,
    /// Carries them, each answer after a delay.
    Slow(Duration),
    /// Takes what the client says, and keeps every answer to itself.
    Mute,
    /// Carries nothing, in neither direction, and keeps every socket open, as when packets vanish.
    Silent,
    /// Accepts connections and cuts them, and those there are.
    Closed,
    /// Refuses connections, as a machine without a server, and cuts those there are.
    Gone,
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Connections older than this are silent for ever.
    stranded: watch::Sender<Option<Instant>>,
}

impl Proxy {
    pub(crate) async fn to(server: String) -> Self {
        // Bound and never listening: the port stays ours while nobody listens, and whoever calls
        // meanwhile is refused.
        let port = share(([127, 0, 0, 1], 0).into());
        let address = port.local_addr().unwrap();
        let listener = share(address).listen(BACKLOG).unwrap();
        let (mode, modes) = watch::channel(Mode::Open);
        let (stranded, strandings) = watch::channel(None);
        tokio::spawn(serve(port, listener, server, modes, strandings));
        Self {
            address,
            mode,
            stranded,
        }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// The connections there are go silent for ever, without an end; new ones are carried. So it is
    /// when a firewall on the way forgets them.
    pub(crate) fn strand(&self) {
        self.stranded.send_replace(Some(Instant::now()));
    }
}

/// A socket on an address that others of ours may have too.
fn share(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

async fn serve(
    port: TcpSocket,
    mut listener: TcpListener,
    server: String,
    mut modes: watch::Receiver<Mode>,
    strandings: watch::Receiver<Option<Instant>>,
) {
    let address = port.local_addr().unwrap();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { return };
                tokio::spawn(carry(client, server.clone(), modes.clone(), strandings.clone()));
            }
            gone = async { modes.wait_for(|mode| *mode == Mode::Gone).await.is_ok() } => {
                if !gone {
                    return;
                }
                drop(listener);
                if modes.wait_for(|mode| *mode != Mode::Gone).await.is_err() {
                    return;
                }
                listener = share(address).listen(BACKLOG).unwrap();
            }
        }
    }
}

async fn carry(
    mut client: TcpStream,
    server: String,
    mut modes: watch::Receiver<Mode>,
    mut strandings: watch::Receiver<Option<Instant>>,
) {
    let since = Instant::now();
    if *modes.borrow() == Mode::Closed {
        return;
    }
    // A peer that nobody reaches: the handshake is the kernel's, and nothing follows it.
    if modes.wait_for(|mode| *mode != Mode::Silent).await.is_err() {
        return;
    }
    let Ok(mut server) = TcpStream::connect(server).await else {
        return;
    };
    let mut up = vec![0; 64 * 1024];
    let mut down = vec![0; 64 * 1024];
    // An answer on its way, and when it arrives.
    let mut delayed: Option<(Instant, usize)> = None;
    loop {
        let mode = *modes.borrow_and_update();
        if matches!(mode, Mode::Closed | Mode::Gone) {
            return;
        }
        if strandings.borrow_and_update().is_some_and(|at| since <= at) {
            // Until the test is over.
            let _open = (&client, &server);
            std::future::pending::<()>().await;
        }
        let due = match (delayed, mode) {
            (Some((due, _)), Mode::Slow(_)) => due,
            _ => Instant::now(),
        };
        tokio::select! {
            changed = modes.changed() => if changed.is_err() { return },
            changed = strandings.changed() => if changed.is_err() { return },
            read = client.read(&mut up), if mode != Mode::Silent => match read {
                Ok(n) if n > 0 && server.write_all(&up[..n]).await.is_ok() => {}
                _ => return,
            },
            read = server.read(&mut down), if delayed.is_none() && !matches!(mode, Mode::Mute | Mode::Silent) => match read {
                Ok(n) if n > 0 => match mode {
                    Mode::Slow(delay) => delayed = Some((Instant::now() + delay, n)),
                    _ => if client.write_all(&down[..n]).await.is_err() { return },
                },
                _ => return,
            },
            () = sleep_until(due), if delayed.is_some() && !matches!(mode, Mode::Mute | Mode::Silent) => {
                let (_, n) = delayed.take().expect("just seen");
                if client.write_all(&down[..n]).await.is_err() {
                    return;
                }
            }
        }
    }
}
