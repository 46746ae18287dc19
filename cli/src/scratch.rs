//! A database and queues of one's own on servers that others use too, removed afterwards.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use clerk_sync_pipeline::{
    queue::{
        RetryLadder,
        amqp::{self, Server},
        embedded::EmbeddedQueue,
    },
    secret::ServerUrl,
    telemetry::Metrics,
};
use clerk_sync_projection::database;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};

/// A database on a PostgreSQL server. The bookkeeping's schema has a fixed name, so that a schema
/// alone would not keep a run apart from what is there.
pub(crate) struct ScratchDatabase {
    server: ServerUrl,
    pub(crate) name: String,
    pub(crate) url: ServerUrl,
}

impl ScratchDatabase {
    pub(crate) async fn make(server: &ServerUrl, name: &str) -> anyhow::Result<Self> {
        anyhow::ensure!(
            database::kind(server) == Ok(database::Kind::Postgres),
            "DATABASE_URL must name a PostgreSQL server here"
        );
        on_server(server, &format!(r#"CREATE DATABASE "{name}""#))
            .await
            .context("cannot make a database for the run: DATABASE_URL must name a user who may")?;
        let mut url = server.expose().clone();
        url.set_path(name);
        Ok(Self {
            server: server.clone(),
            name: name.to_owned(),
            url: url.as_str().parse().map_err(anyhow::Error::msg)?,
        })
    }

    pub(crate) async fn remove(&self) -> anyhow::Result<()> {
        let drop = format!(r#"DROP DATABASE IF EXISTS "{}" WITH (FORCE)"#, self.name);
        on_server(&self.server, &drop).await
    }
}

async fn on_server(server: &ServerUrl, sql: &str) -> anyhow::Result<()> {
    let db = database::connect(server, 1).await?;
    let done = db
        .execute_raw(Statement::from_string(DbBackend::Postgres, sql))
        .await;
    db.close().await?;
    done?;
    Ok(())
}

/// What is left in the queues.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leftovers {
    /// To be applied, or waiting on a rung.
    pub(crate) unapplied: u64,
    /// Found no queue.
    pub(crate) unrouted: u64,
    pub(crate) dead: u64,
}

impl Leftovers {
    /// Looks into a queue's file, which no process has open.
    pub(crate) async fn in_file(file: &Path, ladder: RetryLadder) -> anyhow::Result<Self> {
        let queue = EmbeddedQueue::open(file, ladder, Arc::new(Metrics::new(0)))?;
        let depths = queue.depths().await;
        queue.close().await;
        let depths = depths?;
        let delayed: u64 = depths.delayed.iter().map(|(_, count)| count).sum();
        Ok(Self {
            unapplied: depths.ready + depths.in_flight + delayed,
            unrouted: 0,
            dead: depths.dead,
        })
    }

    /// Looks into every queue of a topology.
    pub(crate) async fn on(server: &Server) -> anyhow::Result<Self> {
        let topology = &server.topology;
        let depth = async |queue: String| {
            let depth = amqp::depth(server, &queue).await;
            depth.map(u64::from).map_err(anyhow::Error::msg)
        };
        let mut unapplied = depth(topology.apply()).await?;
        for rung in topology.ladder.rungs() {
            unapplied += depth(topology.rung(rung)).await?;
        }
        Ok(Self {
            unapplied,
            unrouted: depth(topology.unrouted()).await?,
            dead: depth(topology.dead()).await?,
        })
    }
}
