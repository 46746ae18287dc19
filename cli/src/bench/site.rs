//! Where a benchmark takes place: a folder, queues and a database of its own, removed afterwards.

use std::{net::SocketAddr, path::Path};

use anyhow::Context as _;
use clerk_sync_migration as migration;
use clerk_sync_pipeline::{
    queue::{
        Topology,
        amqp::{self, Nodes, Server},
    },
    secret::{Secret, ServerUrl},
};
use clerk_sync_projection::{config::database_url, database};
use sea_orm::DatabaseConnection;
use tempfile::TempDir;

use super::{
    meter::{self, Meter},
    versions::{self, Versions},
};
use crate::{
    data::DataFolder,
    process::{self, Environment, Process},
    scratch::{Leftovers, ScratchDatabase},
};

/// Settings that processes under test take from our own environment, so that they can be tuned.
const TUNABLE: [&str; 11] = [
    "BATCH_EVENTS",
    "BATCH_LINGER",
    "DATABASE_PREPARED_STATEMENTS",
    "MALLOC_ARENA_MAX",
    "MAX_BUFFERED_BYTES",
    "MAX_CONNECTIONS",
    "MAX_IN_FLIGHT",
    "PREFETCH",
    "RUST_LOG",
    "TOKIO_WORKER_THREADS",
    "WORKER_LANES",
];

/// The servers of a benchmark that needs both.
#[derive(clap::Args)]
pub(super) struct ServersArgs {
    /// RabbitMQ
    #[arg(long, env, hide_env_values = true, value_name = "URLS")]
    amqp_url: Nodes,
    /// PostgreSQL, as a user who may create databases
    #[arg(long, env, hide_env_values = true, value_name = "URL", value_parser = database_url)]
    database_url: ServerUrl,
}

impl ServersArgs {
    /// Makes what is on them.
    pub(super) async fn site(&self) -> anyhow::Result<Site> {
        Site::make(Some(self.amqp_url.clone()), Some(self.database_url.clone())).await
    }
}

/// A benchmark's folder, and what it has on servers.
pub(super) struct Site {
    folder: TempDir,
    pub(super) secret: Secret,
    pub(super) broker: Option<Server>,
    pub(super) tables: Option<Tables>,
}

/// A database of our own.
pub(super) struct Tables {
    scratch: ScratchDatabase,
    pub(super) db: DatabaseConnection,
}

/// A process that is under test, and listens.
pub(super) struct Started {
    process: Process,
    pub(super) pid: Option<u32>,
    /// The webhook port, or else the admin port.
    pub(super) address: SocketAddr,
}

impl Site {
    /// Makes what is on the servers that are given.
    pub(super) async fn make(
        broker: Option<Nodes>,
        database: Option<ServerUrl>,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("clerk-sync-bench-")
            .tempdir()
            .context("cannot make a temporary folder")?;
        let (secret, _) = DataFolder::new(folder.path()).secret_or_new()?;
        let name = format!("clerk_sync_bench_{:08x}", rand::random::<u32>());
        let mut site = Self {
            folder,
            secret,
            broker: None,
            tables: None,
        };
        let made = site.make_on_servers(broker, database, &name).await;
        if made.is_err() {
            site.remove(true).await?;
            made?;
            unreachable!("it was an error");
        }
        Ok(site)
    }

    async fn make_on_servers(
        &mut self,
        broker: Option<Nodes>,
        database: Option<ServerUrl>,
        name: &str,
    ) -> anyhow::Result<()> {
        if let Some(nodes) = broker {
            let server = Server {
                nodes,
                ca: None,
                topology: Topology {
                    prefix: name.to_owned(),
                    ..Topology::default()
                },
            };
            amqp::setup(&server).await.context("AMQP_URL")?;
            self.broker = Some(server);
        }
        if let Some(server) = database {
            let scratch = ScratchDatabase::make(&server, name).await?;
            let db = database::connect(&scratch.url, 3).await?;
            let tables = self.tables.insert(Tables { scratch, db });
            migration::up(&tables.db).await?;
        }
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn broker(&self) -> anyhow::Result<&Server> {
        self.broker.as_ref().context("AMQP_URL is not set")
    }

    pub(super) fn tables(&self) -> anyhow::Result<&Tables> {
        self.tables.as_ref().context("DATABASE_URL is not set")
    }

    /// Empties the queues.
    pub(super) async fn renew_queues(&self) -> anyhow::Result<()> {
        let server = self.broker()?;
        amqp::remove(server).await.map_err(anyhow::Error::msg)?;
        amqp::setup(server).await?;
        Ok(())
    }

    /// What is in the queues.
    pub(super) async fn leftovers(&self) -> anyhow::Result<Leftovers> {
        Leftovers::on(self.broker()?).await
    }

    /// Starts a command of this program, which listens for `setting`.
    pub(super) async fn start(
        &self,
        name: &str,
        arguments: &[&str],
        more: &[(&'static str, String)],
        setting: &str,
    ) -> anyhow::Result<Started> {
        let mut environment: Environment = process::environment();
        for name in TUNABLE {
            if let Ok(value) = std::env::var(name) {
                environment.insert(name, value);
            }
        }
        let secret = self.secret.expose().to_owned();
        environment.insert("CLERK_WEBHOOK_SIGNING_SECRET", secret);
        environment.extend(more.iter().cloned());
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let mut process = Process::spawn(name, &arguments, &environment, self.path())?;
        let address = process.address(setting).await?;
        Ok(Started {
            pid: process.id(),
            process,
            address,
        })
    }

    /// Starts an ingester, ready to publish.
    pub(super) async fn start_ingester(&self) -> anyhow::Result<Started> {
        let started = self
            .start("ingest", &["ingest"], &self.queue_settings()?, "LISTEN")
            .await?;
        started.ready().await
    }

    /// Starts a worker; it begins at once.
    pub(super) async fn start_worker(
        &self,
        more: &[(&'static str, String)],
    ) -> anyhow::Result<Started> {
        let mut settings = self.queue_settings()?;
        let url = self.tables()?.url().expose().to_string();
        settings.push(("DATABASE_URL", url));
        settings.extend(more.iter().cloned());
        self.start("worker", &["worker"], &settings, "ADMIN_LISTEN")
            .await
    }

    fn queue_settings(&self) -> anyhow::Result<Vec<(&'static str, String)>> {
        let server = self.broker()?;
        Ok(vec![
            ("AMQP_URL", server.nodes.first().expose().to_string()),
            ("QUEUE_PREFIX", server.topology.prefix.clone()),
        ])
    }

    /// For the CPU time of these processes and of the servers.
    pub(super) fn meter(&self, own: impl IntoIterator<Item = Option<u32>>) -> Meter {
        let broker = self
            .broker
            .as_ref()
            .and_then(|server| meter::server_process(server.nodes.first(), 5672, "beam.smp"));
        let database = self
            .tables
            .as_ref()
            .and_then(|tables| meter::server_process(tables.url(), 5432, "postgres"));
        Meter {
            own: own.into_iter().flatten().collect(),
            broker,
            database,
        }
    }

    pub(super) async fn versions(&self) -> anyhow::Result<Versions> {
        let broker = match &self.broker {
            Some(server) => versions::rabbitmq(server.nodes.first()).await,
            None => None,
        };
        let database = match &self.tables {
            Some(tables) => Some(versions::database(&tables.db).await?),
            None => None,
        };
        Ok(Versions { broker, database })
    }

    /// Removes everything; the folder is kept, and its path returned, when the run was not good.
    pub(super) async fn remove(self, good: bool) -> anyhow::Result<Option<String>> {
        let queues = match &self.broker {
            Some(server) => amqp::remove(server).await.map_err(anyhow::Error::msg),
            None => Ok(()),
        };
        if let Some(tables) = &self.tables {
            tables.db.clone().close().await?;
            tables.scratch.remove().await?;
        }
        queues?;
        Ok((!good).then(|| self.folder.keep().display().to_string()))
    }
}

impl Tables {
    pub(super) fn url(&self) -> &ServerUrl {
        &self.scratch.url
    }
}

impl Started {
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.process.stop().await
    }

    /// The port that another setting names.
    pub(super) async fn port(&mut self, setting: &str) -> anyhow::Result<SocketAddr> {
        self.process.address(setting).await
    }

    /// Waits until it says that it is ready.
    pub(super) async fn ready(mut self) -> anyhow::Result<Self> {
        use clerk_sync_pipeline::admin;
        use tokio::time::{Duration, Instant, sleep};
        const READY_TIMEOUT: Duration = Duration::from_secs(30);
        let admin = self.port("ADMIN_LISTEN").await?;
        let give_up = Instant::now() + READY_TIMEOUT;
        while let Err(problem) = admin::healthcheck(admin).await {
            self.process.check()?;
            anyhow::ensure!(
                Instant::now() < give_up,
                "a process is not ready: {problem}"
            );
            sleep(Duration::from_millis(5)).await;
        }
        Ok(self)
    }
}
