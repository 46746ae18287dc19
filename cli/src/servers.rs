//! Servers that may be named. Without them, the files of the data folder are used.

use clerk_sync_pipeline::{
    config::TopologyArgs,
    queue::amqp::{Nodes, Server},
    secret::ServerUrl,
};
use clerk_sync_projection::config::{SessionArgs, database_url};

/// The application's database, if it is named.
#[derive(Clone, clap::Args)]
pub(crate) struct TablesArgs {
    /// The application's database: postgres://… or sqlite:…
    #[arg(long, env, hide_env_values = true, value_name = "URL", value_parser = database_url)]
    pub(crate) database_url: Option<ServerUrl>,
    #[command(flatten)]
    pub(crate) session: SessionArgs,
}

/// RabbitMQ, if it is named, and the names on it.
#[derive(Clone, clap::Args)]
#[command(next_help_heading = "Queue")]
pub(crate) struct BrokerArgs {
    /// RabbitMQ: amqp://user:password@host:5672/%2f, or amqps:// for TLS; several nodes of a
    /// cluster with commas between them
    #[arg(long, env, hide_env_values = true, value_name = "URLS")]
    pub(crate) amqp_url: Option<Nodes>,
    #[command(flatten)]
    pub(crate) topology: TopologyArgs,
}

impl BrokerArgs {
    /// The broker these settings name, if they name one.
    pub(crate) fn server(&self) -> Option<Server> {
        let nodes = self.amqp_url.clone()?;
        Some(self.topology.server(nodes))
    }
}
