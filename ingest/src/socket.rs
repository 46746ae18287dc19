//! A connection's socket on loan to hyper: it reports what happens to [`Activity`], and comes back
//! when hyper lets go of it, so that a last word can be said on it and it can be closed politely.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::oneshot,
};

use crate::activity::Activity;

/// The socket while hyper has it.
pub(crate) struct Socket {
    /// `None` only while it is being dropped.
    lent: Option<(TcpStream, oneshot::Sender<TcpStream>)>,
    activity: Arc<Activity>,
    /// What [`Activity`] was last told.
    blocked: bool,
}

impl Socket {
    /// Lends `stream`; it comes back when the socket is dropped.
    pub(crate) fn lend(
        stream: TcpStream,
        activity: Arc<Activity>,
    ) -> (Self, oneshot::Receiver<TcpStream>) {
        let (give_back, returned) = oneshot::channel();
        (
            Self {
                lent: Some((stream, give_back)),
                activity,
                blocked: false,
            },
            returned,
        )
    }

    fn stream(&mut self) -> Pin<&mut TcpStream> {
        let (stream, _) = self
            .lent
            .as_mut()
            .expect("the stream is taken only by drop");
        Pin::new(stream)
    }

    fn wrote<T>(&mut self, written: Poll<T>) -> Poll<T> {
        if written.is_pending() != self.blocked {
            self.blocked = written.is_pending();
            self.activity.blocked(self.blocked);
        }
        written
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some((stream, give_back)) = self.lent.take() {
            // Nobody waits for it when the connection's task itself is dropped.
            let _ = give_back.send(stream);
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = self.stream().poll_read(cx, buffer);
        let arrived = &buffer.filled()[before..];
        if !arrived.is_empty() {
            self.activity.received(arrived);
        }
        result
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream().poll_write(cx, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream().poll_write_vectored(cx, buffers);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}
