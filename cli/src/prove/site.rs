//! Where a run takes place: a folder, a database and a queue of its own, removed afterwards.

use anyhow::Context as _;
use clerk_sync_entity::processed_events;
use clerk_sync_migration as migration;
use clerk_sync_pipeline::{
    queue::{
        RetryLadder, Topology,
        amqp::{self, Server},
    },
    secret::{Secret, ServerUrl},
};
use clerk_sync_projection::{MissingEmail, database};
use clerk_sync_simulator::History;
use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, DbBackend,
    sea_query::{Alias, Expr, ExprTrait as _, Func, Query},
};
use tempfile::TempDir;

use super::ProveArgs;
use crate::{
    data::DataFolder,
    scratch::{Leftovers, ScratchDatabase},
};

/// Credits that each new user is granted, once.
pub(crate) const CREDITS: i32 = 3;

/// A run's folder, database and queue.
pub(crate) struct Site {
    folder: TempDir,
    pub(crate) data: DataFolder,
    pub(crate) secret: Secret,
    pub(crate) instance_id: String,
    pub(crate) missing_email: MissingEmail,
    pub(crate) database: ServerUrl,
    /// Ours, past every proxy.
    pub(crate) db: DatabaseConnection,
    pub(crate) broker: Option<Server>,
    /// The database we made.
    made: Option<ScratchDatabase>,
}

impl Site {
    /// Makes everything, or names what stands in the way.
    pub(crate) async fn make(args: &ProveArgs, history: &History) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("clerk-sync-prove-")
            .tempdir()
            .context("cannot make a temporary folder")?;
        let data = DataFolder::new(folder.path());
        let (secret, _) = data.secret_or_new()?;
        let name = format!("clerk_sync_prove_{:08x}", rand::random::<u32>());
        let (database, made) = if args.servers {
            let server = args
                .database_url
                .clone()
                .context("--servers needs DATABASE_URL")?;
            let made = ScratchDatabase::make(&server, &name).await?;
            (made.url.clone(), Some(made))
        } else {
            (data.tables()?, None)
        };
        let db = database::connect(&database, 2).await?;
        let broker = match (&args.amqp_url, args.servers) {
            (Some(nodes), true) => Some(Server {
                nodes: nodes.clone(),
                ca: None,
                topology: Topology {
                    prefix: name,
                    ladder: ladder(),
                    ..Topology::default()
                },
            }),
            _ => None,
        };
        let site = Self {
            folder,
            data,
            secret,
            instance_id: history.instance_id.clone(),
            missing_email: args.missing_email,
            database,
            db,
            broker,
            made,
        };
        match site.prepare().await {
            Ok(()) => Ok(site),
            Err(error) => {
                site.remove(true).await?;
                Err(error)
            }
        }
    }

    async fn prepare(&self) -> anyhow::Result<()> {
        migration::up(&self.db).await?;
        if let Some(server) = &self.broker {
            amqp::setup(server).await?;
        }
        Ok(())
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub(crate) fn backend(&self) -> DbBackend {
        self.db.get_database_backend()
    }

    /// What it is made of, for a person.
    pub(crate) fn description(&self) -> String {
        match (&self.broker, &self.made) {
            (Some(server), Some(made)) => {
                let nodes = &server.nodes;
                format!("queues {}.… on {nodes}\n  database {}", made.name, made.url)
            }
            (None, Some(made)) => {
                format!("the queue is an SQLite file\n  database {}", made.url)
            }
            _ => "queue and tables are SQLite files".to_owned(),
        }
    }

    /// How many events have a final outcome in the ledger.
    pub(crate) async fn applied(&self) -> anyhow::Result<u64> {
        let mut count = Query::select();
        count
            .expr_as(Func::count(Expr::val(1)), Alias::new("applied"))
            .from(processed_events::table(self.backend()))
            .and_where(Expr::col(processed_events::Column::Outcome).ne("retried"));
        let row = self.db.query_one(&count).await?.context("a count")?;
        let applied: i64 = row.try_get_by_index(0)?;
        Ok(applied.unsigned_abs())
    }

    /// What is in the queues, once every process has stopped.
    pub(crate) async fn leftovers(&self) -> anyhow::Result<Leftovers> {
        let Some(server) = &self.broker else {
            return Leftovers::in_file(&self.data.queue(), ladder()).await;
        };
        Leftovers::on(server).await
    }

    /// Removes everything; the folder is kept, and its path returned, when the run was not good.
    pub(crate) async fn remove(self, good: bool) -> anyhow::Result<Option<String>> {
        self.db.close().await?;
        if let Some(server) = &self.broker {
            amqp::remove(server).await.map_err(anyhow::Error::msg)?;
        }
        if let Some(made) = &self.made {
            made.remove().await?;
        }
        Ok((!good).then(|| self.folder.keep().display().to_string()))
    }
}

/// Delays short enough for a run that is waited for.
pub(crate) fn ladder() -> RetryLadder {
    "100ms,500ms,2s,5s"
        .parse()
        .expect("a constant ladder that climbs")
}
