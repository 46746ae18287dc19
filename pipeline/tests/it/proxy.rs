//! A TCP proxy that can stop passing on what the server says.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// Listens on a port of its own for as long as it lives.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    mute: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

/// The server is mute until this is dropped.
pub(crate) struct Mute(watch::Sender<bool>);

impl Proxy {
    pub(crate) async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mute = watch::Sender::new(false);
        let muted = mute.subscribe();
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(pass(client, server, muted.clone()));
            }
        });
        Self {
            address,
            mute,
            accepting,
        }
    }

    pub(crate) fn mute(&self) -> Mute {
        self.mute.send_replace(true);
        Mute(self.mute.clone())
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(client: TcpStream, server: TcpStream, muted: watch::Receiver<bool>) {
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    // One side is closed or reset: dropping the other closes it too.
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
        _ = pass_unless_mute(from_server, to_client, muted) => {}
    }
}

async fn pass_unless_mute(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    mut muted: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = server.read(&mut buffer).await?;
        // An error: the proxy is gone, and nobody will be mute again.
        let _ = muted.wait_for(|muted| !muted).await;
        if read == 0 {
            return Ok(());
        }
        client.write_all(&buffer[..read]).await?;
    }
}
