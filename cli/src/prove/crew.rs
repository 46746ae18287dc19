//! The processes of a run, each reached through proxies that can be broken.

use std::{net::SocketAddr, time::Duration};

use clap::ValueEnum as _;
use clerk_sync_pipeline::secret::ServerUrl;
use clerk_sync_simulator::History;
use tokio::time::{Instant, sleep};
use url::Url;

use super::{
    proxy::{Mode, Proxy},
    site::{CREDITS, Site, ladder},
};
use crate::{
    process::{self, Environment, Process},
    scratch::Leftovers,
};

/// Ingesters and workers of a run on servers.
const INGESTERS: usize = 2;
const WORKERS: usize = 3;
/// Longest wait for everything to be applied once nothing breaks any more.
const REST_TIMEOUT: Duration = Duration::from_secs(120);

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// All of it.
    Up,
    Ingester,
    Worker,
}

/// All processes of a run.
pub(crate) struct Crew {
    pub(crate) members: Vec<Member>,
}

/// One process, through all its lives.
pub(crate) struct Member {
    pub(crate) role: Role,
    /// The name of its log.
    name: String,
    arguments: Vec<String>,
    environment: Environment,
    /// Before its webhook port, if it has one.
    pub(crate) front: Option<Proxy>,
    /// Between it and the broker, if there is one whose connections can be cut.
    pub(crate) queue: Option<Proxy>,
    /// Between it and the database, likewise.
    pub(crate) database: Option<Proxy>,
    process: Option<Process>,
}

impl Crew {
    pub(crate) async fn start(site: &Site) -> anyhow::Result<Self> {
        let roles = if site.broker.is_some() {
            let ingesters = std::iter::repeat_n(Role::Ingester, INGESTERS);
            ingesters
                .chain(std::iter::repeat_n(Role::Worker, WORKERS))
                .collect()
        } else {
            vec![Role::Up]
        };
        let mut members = Vec::new();
        for (number, role) in roles.into_iter().enumerate() {
            let mut member = Member::new(role, number, site).await?;
            member.start(site).await?;
            members.push(member);
        }
        Ok(Self { members })
    }

    /// Where webhooks can be posted to.
    pub(crate) fn fronts(&self) -> Vec<SocketAddr> {
        let fronts = self
            .members
            .iter()
            .filter_map(|member| member.front.as_ref());
        fronts.map(Proxy::address).collect()
    }

    /// Mends every connection and starts what is not running.
    pub(crate) async fn heal(&mut self, site: &Site) -> anyhow::Result<()> {
        for member in &mut self.members {
            for proxy in member.proxies() {
                proxy.set(Mode::Open);
            }
            if member.process.is_none() {
                member.start(site).await?;
            }
        }
        Ok(())
    }

    /// Waits until the ledger has every event, stops everything politely, and looks whether the
    /// queues are empty; if not, everything is started again. Returns what is left for good.
    pub(crate) async fn come_to_rest(
        &mut self,
        site: &Site,
        history: &History,
    ) -> anyhow::Result<Leftovers> {
        let give_up = Instant::now() + REST_TIMEOUT;
        loop {
            let late = || Instant::now() > give_up;
            while site.applied().await? < history.events.len() as u64 && !late() {
                self.check()?;
                sleep(Duration::from_millis(100)).await;
            }
            for member in &mut self.members {
                member.stop().await?;
            }
            let leftovers = site.leftovers().await?;
            if leftovers.unapplied == 0 || late() {
                return Ok(leftovers);
            }
            self.heal(site).await?;
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// A process that has ended by itself is a failure of the promise.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.members.iter_mut().try_for_each(Member::check)
    }
}

impl Member {
    async fn new(role: Role, number: usize, site: &Site) -> anyhow::Result<Self> {
        let mut environment = process::environment();
        environment.extend([
            (
                "CLERK_WEBHOOK_SIGNING_SECRET",
                site.secret.expose().to_owned(),
            ),
            ("CLERK_INSTANCE_ID", site.instance_id.clone()),
            ("INITIAL_CREDITS", CREDITS.to_string()),
            ("RETRY_DELAYS", ladder().to_string()),
        ]);
        let missing_email = site.missing_email.to_possible_value();
        if let Some(value) = missing_email {
            environment.insert("MISSING_EMAIL", value.get_name().to_owned());
        }
        let queue = match &site.broker {
            Some(server) => {
                environment.insert("QUEUE_PREFIX", server.topology.prefix.clone());
                // One node is enough, and one way to it that can be broken.
                let (url, proxy) = through(server.nodes.first(), 5672).await?;
                environment.insert("AMQP_URL", url);
                proxy
            }
            None => None,
        };
        let database = if role == Role::Ingester {
            None
        } else {
            let (url, proxy) = through(&site.database, 5432).await?;
            environment.insert("DATABASE_URL", url);
            proxy
        };
        let front = match role {
            Role::Worker => None,
            Role::Up | Role::Ingester => Some(Proxy::before(None).await?),
        };
        let (name, arguments) = match role {
            Role::Up => (
                "up",
                vec!["--data".to_owned(), site.path().display().to_string()],
            ),
            Role::Ingester => ("ingest", Vec::new()),
            Role::Worker => ("worker", Vec::new()),
        };
        Ok(Self {
            role,
            name: format!("{name}-{number}"),
            arguments: std::iter::once(name.to_owned()).chain(arguments).collect(),
            environment,
            front,
            queue,
            database,
            process: None,
        })
    }

    pub(crate) fn proxies(&self) -> impl Iterator<Item = &Proxy> {
        [&self.front, &self.queue, &self.database]
            .into_iter()
            .flatten()
    }

    /// Starts the process. It listens afterwards, and so hears signals.
    pub(crate) async fn start(&mut self, site: &Site) -> anyhow::Result<()> {
        let process = Process::spawn(&self.name, &self.arguments, &self.environment, site.path())?;
        let process = self.process.insert(process);
        match &self.front {
            Some(front) => {
                let address = process.address("LISTEN").await?;
                front.point_to(Some(address.to_string()));
            }
            None => {
                process.address("ADMIN_LISTEN").await?;
            }
        }
        Ok(())
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        match self.process.take() {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// SIGTERM; it must end in time, and with 0.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        match self.process.take() {
            Some(process) => process.stop().await,
            None => Ok(()),
        }
    }

    fn check(&mut self) -> anyhow::Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::check)
    }
}

/// A server's URL through a proxy of its own; as it is where that cannot be: files, and TLS, whose
/// certificate names the server.
async fn through(url: &ServerUrl, default_port: u16) -> anyhow::Result<(String, Option<Proxy>)> {
    let url = url.expose();
    let Some(host) = url.host_str().filter(|_| !speaks_tls(url)) else {
        return Ok((url.to_string(), None));
    };
    let server = format!("{host}:{}", url.port().unwrap_or(default_port));
    let proxy = Proxy::before(Some(server)).await?;
    let mut through = url.clone();
    let set = through.set_ip_host(proxy.address().ip()).is_ok()
        && through.set_port(Some(proxy.address().port())).is_ok();
    anyhow::ensure!(set, "the URL of a server cannot be sent through a proxy");
    Ok((through.into(), Some(proxy)))
}

fn speaks_tls(url: &Url) -> bool {
    let verified = url.query_pairs().any(|(name, value)| {
        (name == "sslmode" && value.starts_with("verify")) || name == "sslaccept"
    });
    url.scheme() == "amqps" || verified
}
