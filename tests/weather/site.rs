//! Everything that a test breaks and looks at: processes, their ways to the servers, their data.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use clerk_sync_pipeline::secret::ServerUrl;
use tempfile::TempDir;
use tokio::{
    process::Command,
    sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, watch},
};

use crate::{
    harness::{
        clerk::SECRET,
        process::{Env, Process, base_env},
        proxy::Proxy,
        servers::{TestDb, TestQueue, authority, through},
    },
    watch::{Outage, Watch},
};

/// The servers: shared by whoever uses them, taken whole by whoever breaks one for all. Whoever takes
/// both takes the broker first.
static BROKER: LazyLock<Arc<RwLock<()>>> = LazyLock::new(Arc::default);
static DATABASE: LazyLock<Arc<RwLock<()>>> = LazyLock::new(Arc::default);

type Shared = OwnedRwLockReadGuard<()>;
type Alone = OwnedRwLockWriteGuard<()>;

/// Both servers, with others.
pub(crate) async fn shared() -> (Shared, Shared) {
    let broker = BROKER.clone().read_owned().await;
    (broker, DATABASE.clone().read_owned().await)
}

/// Both servers for oneself.
pub(crate) async fn alone() -> (Alone, Alone) {
    (broker_alone().await, database_alone().await)
}

/// The broker for oneself, and no database server.
pub(crate) async fn broker_alone() -> Alone {
    BROKER.clone().write_owned().await
}

/// The database server for oneself, and no broker.
pub(crate) async fn database_alone() -> Alone {
    DATABASE.clone().write_owned().await
}

/// `scripts/services`: starts, stops and kills the servers.
pub(crate) async fn services(args: &[&str]) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/services");
    let output = Command::new(script).args(args).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Which processes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `clerk-sync-ingest` and so many `clerk-sync-worker`, on RabbitMQ.
    Apart { workers: usize },
    /// `clerk-sync up` on RabbitMQ.
    Up,
    /// `clerk-sync up` on its own queue file.
    Embedded,
}

/// A site to be.
pub(crate) struct Plan {
    pub(crate) shape: Shape,
    pub(crate) db: TestDb,
    /// Without the proxies: for tests that break the servers themselves.
    pub(crate) direct: bool,
    pub(crate) ladder: &'static str,
    /// Settings of every process, and of workers alone.
    pub(crate) env: Env,
    pub(crate) worker_env: Env,
    /// The database as the processes know it, when that is not as the test does.
    pub(crate) database: Option<ServerUrl>,
}

impl Plan {
    /// On PostgreSQL, through proxies.
    pub(crate) async fn new(shape: Shape) -> Self {
        Self::on(TestDb::postgres().await.migrated().await, shape)
    }

    pub(crate) fn on(db: TestDb, shape: Shape) -> Self {
        Self {
            shape,
            db,
            direct: false,
            ladder: "1s,5s,30s",
            env: Env::new(),
            worker_env: Env::new(),
            database: None,
        }
    }

    pub(crate) fn direct(mut self) -> Self {
        self.direct = true;
        self
    }

    /// With the data folder of `up` there.
    pub(crate) fn in_folder(mut self, folder: &Path) -> Self {
        self.env
            .insert("CLERK_SYNC_DATA", folder.display().to_string());
        self
    }

    pub(crate) fn with_database(mut self, url: ServerUrl) -> Self {
        self.database = Some(url);
        self
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.env.insert(name, value.into());
        self
    }
}

pub(crate) struct Site {
    pub(crate) db: TestDb,
    /// `None`: embedded.
    pub(crate) queue: Option<TestQueue>,
    /// The ingester's way to the broker; of `up`, everybody's.
    pub(crate) to_broker: Proxy,
    /// The workers' way to the broker.
    pub(crate) from_broker: Proxy,
    pub(crate) to_database: Proxy,
    /// The ingester, then the workers; or `up`.
    pub(crate) members: Vec<Member>,
    to_start: Vec<(&'static str, Env)>,
    /// Where events are delivered to.
    url: watch::Sender<String>,
    /// The data folder of `up`.
    data: PathBuf,
    _folder: TempDir,
}

/// A process of the site.
pub(crate) struct Member {
    pub(crate) process: Process,
    pub(crate) watch: Watch,
    command: &'static str,
    pub(crate) env: Env,
}

impl Member {
    pub(crate) async fn start(command: &'static str, env: Env, until_ready: bool) -> Self {
        let args: &[&str] = if command == "clerk-sync" {
            &["up"]
        } else {
            &[]
        };
        let process = Process::start(command, args, &env);
        if until_ready {
            process.ready().await;
        }
        let watch = Watch::start(&process).await;
        Self {
            process,
            watch,
            command,
            env,
        }
    }

    /// How often it said something.
    pub(crate) fn said(&self, what: &str) -> usize {
        self.process.output().matches(what).count()
    }
}

impl Site {
    /// With every process ready.
    pub(crate) async fn open(plan: Plan) -> Self {
        let mut site = Self::lay_out(plan).await;
        site.start(true).await;
        site
    }

    /// In some weather, in which nobody may get ready.
    pub(crate) async fn open_in(plan: Plan, weather: impl FnOnce(&Self)) -> Self {
        let mut site = Self::lay_out(plan).await;
        weather(&site);
        site.start(false).await;
        site
    }

    async fn start(&mut self, until_ready: bool) {
        for (command, env) in std::mem::take(&mut self.to_start) {
            self.members
                .push(Member::start(command, env, until_ready).await);
        }
        self.post_to_the_first().await;
    }

    async fn post_to_the_first(&self) {
        let url = self.members[0].process.webhook_url().await;
        self.url.send_replace(url);
    }

    async fn lay_out(plan: Plan) -> Self {
        let Plan {
            shape,
            db,
            direct,
            ladder,
            env: extra,
            worker_env,
            database,
        } = plan;
        let queue = TestQueue::on_a_broker_held(ladder);
        let to_broker = Proxy::to(authority(queue.server.nodes.first())).await;
        let from_broker = Proxy::to(authority(queue.server.nodes.first())).await;
        let database = database.unwrap_or_else(|| db.url.clone());
        let is_server = database.expose().port().is_some();
        // Nothing is connected before somebody connects, so a proxy to nowhere harms nobody.
        let authority_of_database = if is_server {
            authority(&database)
        } else {
            "127.0.0.1:1".to_owned()
        };
        let to_database = Proxy::to(authority_of_database).await;
        let folder = tempfile::tempdir().unwrap();

        let mut env = base_env();
        env.insert("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned());
        env.insert("INITIAL_CREDITS", "5".to_owned());
        env.insert("CLERK_SYNC_DATA", folder.path().display().to_string());
        let database_url = if is_server && !direct {
            through(&database, to_database.address)
        } else {
            database
        };
        env.insert("DATABASE_URL", database_url.expose().to_string());
        let mut apart_env = env.clone();
        if shape != Shape::Embedded {
            clerk_sync_pipeline::queue::amqp::setup(&queue.server)
                .await
                .unwrap();
            for (env, proxy) in [(&mut env, &to_broker), (&mut apart_env, &from_broker)] {
                queue.env(env);
                if !direct {
                    let through = through(queue.server.nodes.first(), proxy.address);
                    env.insert("AMQP_URL", through.expose().to_string());
                }
            }
        }
        env.extend(extra.clone());
        let data = PathBuf::from(&env["CLERK_SYNC_DATA"]);
        apart_env.extend(extra);
        apart_env.extend(worker_env);

        let to_start = match shape {
            Shape::Apart { workers } => {
                let worker = ("clerk-sync-worker", apart_env);
                let ingest = ("clerk-sync-ingest", env);
                std::iter::once(ingest)
                    .chain(vec![worker; workers])
                    .collect()
            }
            Shape::Up | Shape::Embedded => vec![("clerk-sync", env)],
        };
        Self {
            db,
            queue: (shape != Shape::Embedded).then_some(queue),
            to_broker,
            from_broker,
            to_database,
            to_start,
            members: Vec::new(),
            url: watch::Sender::new(String::new()),
            data,
            _folder: folder,
        }
    }

    /// Where events are delivered to, wherever the process is by then.
    pub(crate) fn url(&self) -> watch::Receiver<String> {
        self.url.subscribe()
    }

    /// The ingester, or `up`.
    pub(crate) fn ingest(&self) -> &Member {
        &self.members[0]
    }

    /// Who applies: the workers, or `up`.
    pub(crate) fn workers(&self) -> &[Member] {
        if self.members.len() == 1 {
            &self.members
        } else {
            &self.members[1..]
        }
    }

    pub(crate) fn topology(&self) -> &clerk_sync_pipeline::queue::Topology {
        &self.queue.as_ref().expect("not embedded").server.topology
    }

    /// How many messages are in a queue, those that consumers hold included.
    pub(crate) async fn messages(&self, queue: &str) -> usize {
        let list: Vec<&str> = "rabbitmqctl -q list_queues name messages"
            .split(' ')
            .collect();
        let listed = services(&list).await;
        listed
            .lines()
            .find_map(|line| line.strip_prefix(queue)?.strip_prefix('\t')?.parse().ok())
            .unwrap_or_default()
    }

    /// Settings of a command that looks after the queue.
    pub(crate) fn queue_env(&self) -> Env {
        let mut env = Env::new();
        self.queue.as_ref().expect("not embedded").env(&mut env);
        env
    }

    /// The embedded queue's file.
    pub(crate) fn queue_file(&self) -> PathBuf {
        self.data.join("queue.db")
    }

    /// Asserts what every member's readiness told: of each outage of a part that it has.
    pub(crate) async fn told(&self, outages: &[Outage]) {
        self.shows(200).await;
        for member in &self.members {
            let concerned = outages
                .iter()
                .filter(|outage| outage.concerns(member.command));
            let outages: Vec<Outage> = concerned.cloned().collect();
            member.watch.told(member.command, &outages);
        }
    }

    /// The same where an outage may be too short to be seen.
    pub(crate) async fn told_at_most(&self, outages: &[Outage]) {
        self.shows(200).await;
        for member in &self.members {
            member.watch.told_at_most(member.command, outages);
        }
    }

    /// Waits until every member's readiness is as wanted.
    pub(crate) async fn shows(&self, status: u16) {
        for member in &self.members {
            member.watch.shows(status).await;
        }
    }

    /// `kill -9` of all processes at the same moment.
    pub(crate) async fn kill(&mut self) {
        for member in &self.members {
            member.process.signal("-KILL");
        }
        for member in &mut self.members {
            member.process.wait().await;
        }
    }

    /// The same processes once more, after their end.
    pub(crate) async fn restart(&mut self) {
        for member in 0..self.members.len() {
            self.restart_member(member).await;
        }
    }

    /// One of them once more, after its end.
    pub(crate) async fn restart_member(&mut self, member: usize) {
        let before = &self.members[member];
        let (command, env) = (before.command, before.env.clone());
        self.members[member] = Member::start(command, env, true).await;
        self.post_to_the_first().await;
    }

    /// Stops every process politely, with exit code 0.
    pub(crate) async fn stop(&mut self) {
        for member in std::mem::take(&mut self.members) {
            let output = member.process.stop().await;
            assert!(!output.contains("panicked"), "{output}");
        }
    }

    pub(crate) async fn remove(self) {
        if let Some(queue) = self.queue {
            queue.remove().await;
        }
        self.db.remove().await;
    }
}
