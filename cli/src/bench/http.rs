//! A connection to a webhook port that costs next to nothing, so that what is measured is not the
//! load generator.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Answers have a handful of headers.
const MOST_HEADERS: usize = 32;
/// Longest answer: a problem document is some hundred bytes.
const MOST_BYTES: usize = 64 << 10;

/// One HTTP/1.1 connection, for one request at a time.
pub(super) struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The server wants the connection closed.
    pub(super) close: bool,
    /// Bytes of head and body.
    length: usize,
}

impl Connection {
    pub(super) async fn open(server: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            answer: Vec::with_capacity(1024),
        })
    }

    /// Sends a request, and reads its answer to the end.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.stream.write_all(request).await?;
        self.answer.clear();
        loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match parse(&self.answer)? {
                Some(answer) if answer.length <= self.answer.len() => return Ok(answer),
                _ if self.answer.len() > MOST_BYTES => {
                    return Err(io::Error::other("an answer without an end"));
                }
                _ => {}
            }
        }
    }
}

/// The answer that begins these bytes, once its head is whole.
fn parse(bytes: &[u8]) -> io::Result<Option<Answer>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes).map_err(io::Error::other)? {
        httparse::Status::Complete(head) => head,
        httparse::Status::Partial => return Ok(None),
    };
    let mut answer = Answer {
        status: response.code.unwrap_or_default(),
        close: false,
        length: head,
    };
    for header in response.headers.iter() {
        let text = || std::str::from_utf8(header.value).unwrap_or_default().trim();
        if header.name.eq_ignore_ascii_case("content-length") {
            answer.length = head + text().parse::<usize>().map_err(io::Error::other)?;
        } else if header.name.eq_ignore_ascii_case("connection") {
            answer.close = text().eq_ignore_ascii_case("close");
        }
    }
    Ok(Some(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_it_says() {
        let whole = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        for end in 0..whole.len() {
            let answer = parse(&whole[..end]).unwrap();
            assert!(answer.is_none_or(|answer| answer.length == whole.len()));
        }
        let answer = parse(whole).unwrap().unwrap();
        assert_eq!((answer.status, answer.close), (503, true));
        let empty = parse(b"HTTP/1.1 204 No Content\r\ndate: now\r\n\r\n");
        assert_eq!(empty.unwrap().unwrap().status, 204);
    }
}
