//! A client that writes bytes, whatever they are, and reads what comes back.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Longest wait for what a server owes: its slowest answer takes 10 s.
const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = timeout(PATIENCE, TcpStream::connect(address))
            .await
            .expect("a connection in time")
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// Whether the bytes could be written: a server may close in the middle of them.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        let written = timeout(PATIENCE, self.stream.write_all(bytes)).await;
        written.is_ok_and(|written| written.is_ok())
    }

    /// Everything that comes until the server closes; fails the test when it does not.
    pub(crate) async fn until_closed(&mut self) -> Vec<u8> {
        let mut read = Vec::new();
        let closed = timeout(PATIENCE, self.read_all(&mut read)).await;
        assert!(closed.is_ok(), "not closed after {:?}", lossy(&read));
        read
    }

    /// Everything that comes in `time`, and whether the server closed.
    pub(crate) async fn read_for(&mut self, time: Duration) -> (Vec<u8>, bool) {
        let mut read = Vec::new();
        let closed = timeout(time, self.read_all(&mut read)).await.is_ok();
        (read, closed)
    }

    async fn read_all(&mut self, read: &mut Vec<u8>) {
        while matches!(self.stream.read_buf(read).await, Ok(1..)) {}
    }
}

/// The statuses of the HTTP/1.1 answers in `bytes`.
pub(crate) fn statuses(bytes: &[u8]) -> Vec<u16> {
    let text = lossy(bytes);
    text.split("HTTP/1.")
        .skip(1)
        .filter_map(|answer| answer.split(' ').nth(1)?.parse().ok())
        .collect()
}

pub(crate) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
