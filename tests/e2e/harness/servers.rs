//! The servers that `scripts/test` started, and what a test has on them.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use clerk_sync_entity::{processed_events, users};
use clerk_sync_migration::MigrateError;
use clerk_sync_pipeline::{
    queue::{Topology, amqp},
    secret::ServerUrl,
};
use clerk_sync_projection::{database, is_unavailable};
use lapin::{
    options::{BasicGetOptions, BasicPublishOptions},
    types::{AMQPValue, FieldTable},
};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, EntityTrait as _, QueryOrder as _,
    Statement,
};
use tempfile::TempDir;
use tokio::{
    process::Command,
    sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock},
    time::{Instant, sleep},
};

use super::{SOON, process::Env};

fn server(name: &str) -> ServerUrl {
    let url = std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run scripts/test"));
    url.parse().unwrap()
}

fn nodes() -> amqp::Nodes {
    let urls = std::env::var("AMQP_URL").expect("AMQP_URL is not set: run scripts/test");
    urls.parse().unwrap()
}

pub(crate) fn unique() -> String {
    format!("t{:016x}", rand::random::<u64>())
}

/// Clerk id, address, name.
pub(crate) type Row = (String, String, Option<String>);

/// A database of its own, removed when the test is over.
pub(crate) struct TestDb {
    pub(crate) url: ServerUrl,
    pub(crate) db: DatabaseConnection,
    kind: Kind,
}

enum Kind {
    Postgres { name: String },
    Sqlite { _folder: Option<TempDir> },
}

impl TestDb {
    pub(crate) async fn postgres() -> Self {
        let name = unique();
        on_admin(&format!("CREATE DATABASE \"{name}\"")).await;
        let mut url = server("DATABASE_URL").expose().clone();
        url.set_path(&name);
        let url: ServerUrl = url.as_str().parse().unwrap();
        let db = database::connect(&url, 2).await.unwrap();
        Self {
            url,
            db,
            kind: Kind::Postgres { name },
        }
    }

    pub(crate) async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let db = Self::sqlite_in(folder.path()).await;
        let kind = Kind::Sqlite {
            _folder: Some(folder),
        };
        Self { kind, ..db }
    }

    /// In a folder of the test's own.
    pub(crate) async fn sqlite_in(folder: &std::path::Path) -> Self {
        let url = format!("sqlite:{}", folder.join("tables.db").display());
        let url: ServerUrl = url.parse().unwrap();
        let db = database::connect(&url, 2).await.unwrap();
        Self {
            url,
            db,
            kind: Kind::Sqlite { _folder: None },
        }
    }

    /// With our tables in it.
    pub(crate) async fn migrated(self) -> Self {
        let migrate = async || match clerk_sync_migration::up(&self.db).await {
            Err(MigrateError::Database(error)) => Err(error),
            result => Ok(result.unwrap()),
        };
        patiently(migrate).await;
        self
    }

    pub(crate) async fn execute(&self, sql: &str) {
        patiently(async || self.db.execute_unprepared(sql).await).await;
    }

    /// The rows, by Clerk id.
    pub(crate) async fn users(&self) -> Vec<Row> {
        let rows = users::Entity::find()
            .order_by_asc(users::Column::ClerkId)
            .all(&self.db)
            .await;
        let rows = rows.unwrap();
        rows.into_iter()
            .map(|row| (row.clerk_id, row.email, row.name))
            .collect()
    }

    pub(crate) async fn count(&self, sql: &str) -> i64 {
        let backend = self.db.get_database_backend();
        let statement = || Statement::from_string(backend, sql);
        let row = patiently(async || self.db.query_one_raw(statement()).await).await;
        row.unwrap().try_get_by_index(0).unwrap()
    }

    /// How many rows there are; 0 as long as there is no table.
    pub(crate) async fn users_if_any(&self) -> usize {
        users::Entity::find()
            .all(&self.db)
            .await
            .map_or(0, |rows| rows.len())
    }

    /// How many events are in the ledger.
    pub(crate) async fn ledger(&self) -> i64 {
        self.count(&format!("SELECT count(*) FROM {}", self.ledger_table()))
            .await
    }

    fn ledger_table(&self) -> &'static str {
        match self.db.get_database_backend() {
            DbBackend::Postgres => "clerk_sync.processed_events",
            _ => "clerk_sync_processed_events",
        }
    }

    /// What became of an event.
    pub(crate) async fn outcome(&self, id: &str) -> Option<String> {
        let query = processed_events::outcomes(self.db.get_database_backend(), &[id]);
        let row = self
            .db
            .query_all(&query)
            .await
            .unwrap()
            .into_iter()
            .next()?;
        Some(row.try_get_by_index(1).unwrap())
    }

    /// Makes it refuse writes, to everybody who connects from now on, as a standby does; or take
    /// them again. Everybody is cut off to notice.
    pub(crate) async fn set_read_only(&self, read_only: bool) {
        let mode = if read_only { "on" } else { "off" };
        self.alter(&format!("SET default_transaction_read_only = {mode}"))
            .await;
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.url.expose().path().trim_start_matches('/')
    }

    /// The first column of a query's rows.
    pub(crate) async fn texts(&self, sql: &str) -> Vec<String> {
        let statement = Statement::from_string(self.db.get_database_backend(), sql);
        let rows = self.db.query_all_raw(statement).await.unwrap();
        rows.iter()
            .map(|row| row.try_get_by_index(0).unwrap())
            .collect()
    }

    /// A role that is no superuser, and owns the database.
    pub(crate) async fn ordinary_role(&self) -> Role {
        let role = Role { name: unique() };
        let Kind::Postgres { name } = &self.kind else {
            panic!("only PostgreSQL has roles")
        };
        on_admin(&format!(
            "CREATE ROLE \"{0}\" LOGIN PASSWORD '{0}'",
            role.name
        ))
        .await;
        on_admin(&format!(
            "ALTER DATABASE \"{name}\" OWNER TO \"{}\"",
            role.name
        ))
        .await;
        role
    }

    /// How many connections ordinary roles may have; those there are, are ended.
    pub(crate) async fn limit_connections(&self, limit: Option<u32>) {
        let limit = limit.map_or(-1, i64::from);
        self.alter(&format!("CONNECTION LIMIT {limit}")).await;
    }

    async fn alter(&self, what: &str) {
        let name = self.name();
        on_admin(&format!("ALTER DATABASE \"{name}\" {what}")).await;
        self.end_sessions().await;
    }

    /// Ends the sessions there are.
    pub(crate) async fn end_sessions(&self) {
        let name = self.name();
        on_admin(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        ))
        .await;
    }

    /// The same database through another address.
    pub(crate) fn through(&self, address: std::net::SocketAddr) -> ServerUrl {
        through(&self.url, address)
    }

    pub(crate) async fn remove(self) {
        let Self { db, kind, .. } = self;
        db.close().await.unwrap();
        if let Kind::Postgres { name } = kind {
            on_admin(&format!("DROP DATABASE \"{name}\" WITH (FORCE)")).await;
        }
    }
}

/// A login of its own, whose password is its name.
pub(crate) struct Role {
    name: String,
}

impl Role {
    pub(crate) fn of(&self, url: &ServerUrl) -> ServerUrl {
        let mut url = url.expose().clone();
        url.set_username(&self.name).unwrap();
        url.set_password(Some(&self.name)).unwrap();
        url.as_str().parse().unwrap()
    }

    /// Once its database is gone.
    pub(crate) async fn remove(self) {
        on_admin(&format!("DROP ROLE \"{}\"", self.name)).await;
    }
}

pub(crate) fn through(url: &ServerUrl, address: std::net::SocketAddr) -> ServerUrl {
    let mut url = url.expose().clone();
    url.set_ip_host(address.ip()).unwrap();
    url.set_port(Some(address.port())).unwrap();
    url.as_str().parse().unwrap()
}

/// Host and port of a server.
pub(crate) fn authority(url: &ServerUrl) -> String {
    let url = url.expose();
    format!("{}:{}", url.host_str().unwrap(), url.port().unwrap())
}

/// For what belongs to no database: databases, roles.
pub(crate) async fn on_admin(sql: &str) {
    let db = database::connect(&server("DATABASE_URL"), 1).await.unwrap();
    patiently(async || db.execute_unprepared(sql).await).await;
    db.close().await.unwrap();
}

/// The test's own questions are asked again when a session of its own was ended, or when the machine
/// is too busy for a connection in time.
pub(crate) async fn patiently<T>(ask: impl AsyncFn() -> Result<T, DbErr>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) if is_unavailable(&error) && Instant::now() < deadline => {
                sleep(Duration::from_millis(100)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Shared by whoever uses the broker, taken whole by whoever breaks it for all.
static BROKER: LazyLock<Arc<RwLock<()>>> = LazyLock::new(Arc::default);

/// The broker for oneself.
pub(crate) async fn broker_alone() -> OwnedRwLockWriteGuard<()> {
    BROKER.clone().write_owned().await
}

/// The checkout.
pub(crate) const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Runs rabbitmqctl on the private instance of `scripts/services`.
pub(crate) async fn rabbitmqctl(args: &[&str]) -> String {
    let mut command = Command::new("scripts/services");
    command.arg("rabbitmqctl").args(args);
    finish(command).await
}

/// Runs a script of the checkout to its end, which must be good; its standard output.
pub(crate) async fn finish(mut command: Command) -> String {
    let output = command.current_dir(ROOT).output().await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// A topology of its own on RabbitMQ.
pub(crate) struct TestQueue {
    pub(crate) server: amqp::Server,
    _broker: Option<OwnedRwLockReadGuard<()>>,
}

impl TestQueue {
    /// Nothing declared yet.
    pub(crate) async fn bare(ladder: &str) -> Self {
        let broker = BROKER.clone().read_owned().await;
        Self {
            _broker: Some(broker),
            ..Self::on_a_broker_held(ladder)
        }
    }

    /// For whoever has the broker alone.
    pub(crate) fn on_a_broker_held(ladder: &str) -> Self {
        let topology = Topology {
            prefix: unique(),
            ladder: ladder.parse().unwrap(),
            ..Topology::default()
        };
        let server = amqp::Server {
            nodes: nodes(),
            ca: None,
            topology,
        };
        Self {
            server,
            _broker: None,
        }
    }

    pub(crate) async fn new() -> Self {
        Self::with_ladder("5s,30s,2m,10m,1h").await
    }

    pub(crate) async fn with_ladder(ladder: &str) -> Self {
        let queue = Self::bare(ladder).await;
        amqp::setup(&queue.server).await.unwrap();
        queue
    }

    pub(crate) fn env(&self, env: &mut Env) {
        env.insert("AMQP_URL", std::env::var("AMQP_URL").unwrap());
        env.insert("QUEUE_PREFIX", self.server.topology.prefix.clone());
        env.insert("RETRY_DELAYS", self.server.topology.ladder.to_string());
    }

    pub(crate) async fn depth(&self, queue: &str) -> u32 {
        amqp::depth(&self.server, queue).await.unwrap()
    }

    pub(crate) async fn channel(&self) -> (lapin::Connection, lapin::Channel) {
        let url = self.server.nodes.first().expose().as_str();
        let connection = lapin::Connection::connect(url, Default::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        (connection, channel)
    }

    /// Takes everything that is in a queue.
    pub(crate) async fn drain(&self, queue: &str) -> Vec<Taken> {
        let (_connection, channel) = self.channel().await;
        let mut taken = Vec::new();
        let options = BasicGetOptions { no_ack: true };
        while let Some(got) = channel.basic_get(queue.into(), options).await.unwrap() {
            let headers = got.properties.headers().clone().unwrap_or_default();
            taken.push(Taken {
                id: got
                    .properties
                    .message_id()
                    .as_ref()
                    .map(ToString::to_string),
                event_type: got.properties.kind().as_ref().map(ToString::to_string),
                delivery_mode: *got.properties.delivery_mode(),
                body: got.delivery.data,
                headers,
            });
        }
        taken
    }

    pub(crate) async fn publish_by_hand(&self, routing_key: &str, body: &[u8]) {
        let (_connection, channel) = self.channel().await;
        let exchange = self.server.topology.events();
        let options = BasicPublishOptions::default();
        channel
            .basic_publish(
                exchange.as_str().into(),
                routing_key.into(),
                options,
                body,
                lapin::BasicProperties::default(),
            )
            .await
            .unwrap();
    }

    pub(crate) async fn remove(self) {
        amqp::remove(&self.server).await.unwrap();
    }
}

/// A message taken from a queue.
pub(crate) struct Taken {
    pub(crate) id: Option<String>,
    pub(crate) event_type: Option<String>,
    pub(crate) delivery_mode: Option<u8>,
    pub(crate) body: Vec<u8>,
    headers: FieldTable,
}

impl Taken {
    pub(crate) fn text(&self, header: &str) -> Option<String> {
        match self.headers.inner().get(header)? {
            AMQPValue::LongString(text) => Some(text.to_string()),
            _ => None,
        }
    }

    pub(crate) fn number(&self, header: &str) -> Option<i64> {
        match self.headers.inner().get(header)? {
            AMQPValue::LongLongInt(number) => Some(*number),
            _ => None,
        }
    }
}
