//! Which servers a benchmark ran on.

use std::time::Duration;

use anyhow::Context as _;
use clerk_sync_pipeline::secret::ServerUrl;
use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbBackend, Statement};
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Longest wait for a broker's greeting.
const GREETING: Duration = Duration::from_secs(5);
const MOST_BYTES: u64 = 4096;

/// Names and versions; nothing where nothing is known or none is used.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Versions {
    pub(super) broker: Option<String>,
    pub(super) database: Option<String>,
}

/// The database's own word.
pub(super) async fn database(db: &DatabaseConnection) -> anyhow::Result<String> {
    let backend = db.get_database_backend();
    let (name, ask) = match backend {
        DbBackend::Postgres => ("PostgreSQL", "SELECT current_setting('server_version')"),
        _ => ("SQLite", "SELECT sqlite_version()"),
    };
    let row = db
        .query_one_raw(Statement::from_string(backend, ask))
        .await?;
    let version: String = row.context("a version")?.try_get_by_index(0)?;
    let version = version.split_whitespace().next().unwrap_or_default();
    Ok(format!("{name} {version}"))
}

/// The SQLite that this program has in it.
pub(super) async fn sqlite() -> anyhow::Result<String> {
    let url = "sqlite::memory:".parse().map_err(anyhow::Error::msg)?;
    database(&clerk_sync_projection::database::connect(&url, 1).await?).await
}

/// What a broker says of itself when it is greeted; lapin does not keep it. Nothing over TLS.
pub(super) async fn rabbitmq(url: &ServerUrl) -> Option<String> {
    let url = url.expose();
    if url.scheme() != "amqp" {
        return None;
    }
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    let port = url.port().unwrap_or(5672);
    let greeting = async {
        let mut stream = TcpStream::connect((host, port)).await.ok()?;
        stream.write_all(b"AMQP\x00\x00\x09\x01").await.ok()?;
        let mut said = Vec::new();
        while version(&said).is_none() && (said.len() as u64) < MOST_BYTES {
            if stream.read_buf(&mut said).await.ok()? == 0 {
                return None;
            }
        }
        version(&said)
    };
    let version = timeout(GREETING, greeting).await.ok()??;
    Some(format!("RabbitMQ {version}"))
}

/// The long string of that name in a `connection.start` frame's table of server properties.
fn version(said: &[u8]) -> Option<String> {
    const FIELD: &[u8] = b"\x07versionS";
    let at = said
        .windows(FIELD.len())
        .position(|window| window == FIELD)?
        + FIELD.len();
    let length = u32::from_be_bytes(said.get(at..at + 4)?.try_into().ok()?);
    let text = said.get(at + 4..at + 4 + usize::try_from(length).ok()?)?;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_once_it_is_whole() {
        let said = b"\x01\x00\x00\x07productS\x00\x00\x00\x08RabbitMQ\x07versionS\x00\x00\x00\x063.10.8\x08platform";
        let end = said.len() - b"\x08platform".len();
        assert_eq!(version(said).as_deref(), Some("3.10.8"));
        assert!((0..end).all(|end| version(&said[..end]).is_none()));
    }
}
