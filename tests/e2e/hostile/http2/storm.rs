//! Many connections that say the same, and what they are answered.

use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    super::siege::{PATH, Siege},
    frame::{END_HEADERS, END_STREAM, HEADERS, HELLO, block, frame, text},
};
use crate::harness::{
    clerk::{self, Letter},
    wire::Wire,
};

/// The fields of a request that looks right and is not signed by anybody we know.
pub(super) fn unsigned_block() -> Vec<u8> {
    let (id, at) = (Letter::new("").id, clerk::now().to_string());
    let forged = format!("v1,{}=", "A".repeat(43));
    let fields = [
        ("svix-id", &*id),
        ("svix-timestamp", &*at),
        ("svix-signature", &*forged),
    ];
    block(PATH, &fields)
}

/// A whole request without a body, with an authority of its own.
pub(in super::super) fn request_to(method: &str, authority: &str, path: &str) -> Vec<u8> {
    let mut block = vec![0x02];
    text(&mut block, method);
    block.extend([0x86, 0x04]);
    text(&mut block, path);
    block.push(0x01);
    text(&mut block, authority);
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
}

impl Siege {
    /// A connection that speaks HTTP/2, with its greeting sent.
    pub(super) async fn http2(&self) -> Wire {
        let mut wire = self.connect().await;
        wire.send(HELLO).await;
        wire
    }

    /// So many connections at once, each of which says this and reads until the server closes.
    pub(super) async fn storm(&self, connections: usize, said: &[u8]) -> Vec<Vec<u8>> {
        let mut attacks = Vec::new();
        for _ in 0..connections {
            let mut wire = self.http2().await;
            let said = said.to_vec();
            attacks.push(tokio::spawn(async move {
                let (mut read, mut write) = wire.stream.split();
                let mut answer = Vec::new();
                let write = async {
                    // Cut off in the middle, in most cases.
                    let _ = write.write_all(&said).await;
                };
                let read = async {
                    let _ = read.read_to_end(&mut answer).await;
                };
                let both = join(write, read);
                let ended = tokio::time::timeout(Duration::from_secs(60), both).await;
                assert!(ended.is_ok(), "not closed");
                answer
            }));
        }
        let answers = join_all(attacks).await;
        answers.into_iter().map(Result::unwrap).collect()
    }
}
