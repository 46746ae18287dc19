//! A TCP proxy that breaks on command, between two of the run's processes or before a server.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What the proxy does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Carries them.
    Open,
    /// Takes none and gives none, and keeps the connections: as if the cable were out.
    Silent,
    /// Refuses connections, and cuts those there are.
    Closed,
}

/// A proxy; it ends when dropped, and its connections with it.
pub(crate) struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Host and port behind it; none while that is down.
    behind: watch::Sender<Option<String>>,
    accepting: JoinHandle<()>,
}

/// Bytes carried at a time.
const CHUNK: usize = 64 * 1024;

impl Proxy {
    /// Listens on loopback before `behind`.
    pub(crate) async fn before(behind: Option<String>) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (mode, modes) = watch::channel(Mode::Open);
        let (behind, servers) = watch::channel(behind);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = servers.borrow().clone();
                tokio::spawn(carry(client, server, modes.clone()));
            }
        });
        Ok(Self {
            address,
            mode,
            behind,
            accepting,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Sends new connections elsewhere.
    pub(crate) fn point_to(&self, behind: Option<String>) {
        self.behind.send_replace(behind);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Carries one connection until either side, or the proxy, ends it.
async fn carry(mut client: TcpStream, server: Option<String>, mut modes: watch::Receiver<Mode>) {
    let Some(server) = server else { return };
    if *modes.borrow() == Mode::Closed {
        return;
    }
    let Ok(mut server) = TcpStream::connect(server).await else {
        return;
    };
    // Small messages go back and forth; a proxy must not hold them together.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut up, mut down) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let open = match *modes.borrow_and_update() {
            Mode::Open => true,
            Mode::Silent => false,
            Mode::Closed => return,
        };
        let carried = tokio::select! {
            changed = modes.changed() => changed.is_ok(),
            read = client.read(&mut up), if open => match read {
                Ok(bytes) if bytes > 0 => server.write_all(&up[..bytes]).await.is_ok(),
                _ => false,
            },
            read = server.read(&mut down), if open => match read {
                Ok(bytes) if bytes > 0 => client.write_all(&down[..bytes]).await.is_ok(),
                _ => false,
            },
        };
        if !carried {
            return;
        }
    }
}
