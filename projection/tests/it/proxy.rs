//! A TCP proxy before PostgreSQL that can be down, or lose the answer to a commit.

use std::net::SocketAddr;

use clerk_sync_pipeline::secret::ServerUrl;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// How the proxy behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Passes everything on.
    Open,
    /// Cuts every connection, new ones too.
    Down,
    /// Passes a `COMMIT` on, and cuts the connection when the server has answered it.
    LosesCommits,
    /// Cuts the connection instead of passing a `COMMIT` on.
    CutsBeforeCommit,
}

/// Listens on a port of its own for as long as it lives.
pub(crate) struct Proxy {
    /// The database, by way of the proxy.
    pub(crate) url: ServerUrl,
    mode: watch::Sender<Mode>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(database: &ServerUrl) -> Self {
        let mut url = database.expose().clone();
        let host = url.host_str().expect("DATABASE_URL names a TCP host");
        let server = (host.to_owned(), url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else {
            unreachable!("bound to IPv4")
        };
        url.set_ip_host((*address.ip()).into()).unwrap();
        url.set_port(Some(address.port())).unwrap();
        // To read along.
        url.query_pairs_mut().append_pair("sslmode", "disable");
        let mode = watch::Sender::new(Mode::Open);
        let modes = mode.subscribe();
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(pass(client, server, modes.clone()));
            }
        });
        let url = url.as_str().parse().unwrap();
        Self {
            url,
            mode,
            accepting,
        }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Passes both ways until one side closes or the mode says so; dropping the streams closes both.
async fn pass(mut client: TcpStream, mut server: TcpStream, mut modes: watch::Receiver<Mode>) {
    let (mut asked, mut answered) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        if *modes.borrow_and_update() == Mode::Down {
            return;
        }
        tokio::select! {
            _ = modes.changed() => {}
            read = client.read(&mut asked) => {
                let Some(asked) = some(read, &asked) else { return };
                let mode = *modes.borrow();
                let commits = asked.windows(6).any(|bytes| bytes == b"COMMIT");
                if commits && mode == Mode::CutsBeforeCommit {
                    return;
                }
                if server.write_all(asked).await.is_err() {
                    return;
                }
                if commits && mode == Mode::LosesCommits {
                    // The server speaks when the commit is done.
                    let _ = server.read(&mut answered).await;
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Some(answered) = some(read, &answered) else { return };
                if client.write_all(answered).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn some(read: std::io::Result<usize>, buffer: &[u8]) -> Option<&[u8]> {
    read.ok()
        .filter(|read| *read > 0)
        .map(|read| &buffer[..read])
}
