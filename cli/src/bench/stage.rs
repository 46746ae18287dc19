//! A whole pipeline of processes, from webhook port to rows: on servers, or one on files.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use clerk_sync_pipeline::queue::RetryLadder;
use clerk_sync_projection::database;
use sea_orm::DatabaseConnection;

use super::{
    applied::Counters,
    meter::Meter,
    site::{Site, Started},
};
use crate::{data::DataFolder, scratch::Leftovers};

/// Running processes, and where to look.
pub(super) struct Stage {
    processes: Vec<Started>,
    pub(super) webhooks: SocketAddr,
    pub(super) counters: Counters,
    pub(super) meter: Meter,
    pub(super) db: DatabaseConnection,
    /// From start to ready, of a single process.
    pub(super) start: Option<Duration>,
    /// The queue's file, if it is one.
    queue: Option<PathBuf>,
}

impl Stage {
    /// One ingester and some workers.
    pub(super) async fn on_servers(site: &Site, workers: u16) -> anyhow::Result<Self> {
        site.renew_queues().await?;
        let ingester = site.start_ingester().await?;
        let webhooks = ingester.address;
        let mut processes = vec![ingester];
        let mut admin = Vec::new();
        for _ in 0..workers {
            let worker = site.start_worker(&[]).await?.ready().await?;
            admin.push(worker.address);
            processes.push(worker);
        }
        Ok(Self {
            webhooks,
            counters: Counters::new(admin)?,
            meter: site.meter(processes.iter().map(|process| process.pid)),
            db: site.tables()?.db.clone(),
            start: None,
            queue: None,
            processes,
        })
    }

    /// `clerk-sync up` in a folder of its own.
    pub(super) async fn on_files(site: &Site, run: u64) -> anyhow::Result<Self> {
        let folder = site.path().join(format!("run-{run}"));
        let data = DataFolder::new(&folder);
        let path = folder.display().to_string();
        let begun = Instant::now();
        let up = site
            .start("up", &["up", "--data", &path], &[], "LISTEN")
            .await?;
        let mut up = up.ready().await?;
        let start = begun.elapsed();
        let admin = up.port("ADMIN_LISTEN").await?;
        Ok(Self {
            webhooks: up.address,
            counters: Counters::new(vec![admin])?,
            meter: site.meter([up.pid]),
            db: database::connect(&data.tables()?, 2).await?,
            start: Some(start),
            queue: Some(data.queue()),
            processes: vec![up],
        })
    }

    /// Stops everything politely, the ingester first; returns what is left in the queues.
    pub(super) async fn stop(self, site: &Site) -> anyhow::Result<Leftovers> {
        for process in self.processes {
            process.stop().await?;
        }
        match self.queue {
            Some(file) => Leftovers::in_file(&file, RetryLadder::default()).await,
            None => site.leftovers().await,
        }
    }
}
