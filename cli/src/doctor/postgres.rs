//! PostgreSQL as a server: encryption, clock, writes, connections.

use chrono::Utc;
use clerk_sync_pipeline::secret::ServerUrl;
use clerk_sync_projection::{Projection, Unavailable, inspect::Server};

use super::{clock, database::away, network::encryption, report::Line, settings::Settings};

/// What the server says of itself.
pub(super) async fn examine(
    projection: &Projection,
    settings: &Settings,
    url: &ServerUrl,
    lines: &mut Vec<Line>,
) {
    // Once, for the connection: the clock is read by the second question.
    let _ = projection.server().await;
    let before = Utc::now();
    let server = match projection.server().await {
        Ok(server) => server,
        Err(Unavailable(cause)) => return lines.push(away(url, &cause)),
    };
    let cure = "add ?sslmode=require to DATABASE_URL (verify-full checks who answers), unless you \
                trust the network in between";
    lines.push(encryption(url, server.encrypted, cure));
    lines.push(clock::against_database((before, Utc::now()), server.now));
    if server.read_only {
        lines.push(Line::problem(
            "writable",
            "nothing can be written: a standby, or default_transaction_read_only is on",
            "name the primary in DATABASE_URL (several hosts: target_session_attrs=read-write)",
        ));
    }
    lines.push(connections(&server, settings));
}

/// A worker's connections, and those of the API where it is served.
fn connections(server: &Server, settings: &Settings) -> Line {
    const NAME: &str = "connections";
    let api = match &settings.clerk_secret_key.0 {
        Some(_) => clerk_sync_api::config::CONNECTIONS,
        None => 0,
    };
    let wanted = i64::from(settings.worker.connections() + api);
    let (most, free) = server.connections();
    let text = format!("{wanted} for a process of ours; of {most}, {free} are free");
    if wanted > most {
        Line::problem(
            NAME,
            text,
            "lower WORKER_LANES, or raise max_connections or the limit of the role or database",
        )
    } else if wanted > free {
        Line::warning(
            NAME,
            format!("{text}: there is no room for another"),
            "raise max_connections, put PgBouncer in front, or lower other pools, before another \
             process is started",
        )
    } else {
        Line::ok(NAME, text)
    }
}
