//! PgBouncer in transaction mode, as Supabase and Neon are reached: a connection of ours is on
//! another connection to the server in each transaction, with what others left there.

use std::{
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use clerk_sync_pipeline::secret::ServerUrl;
use clerk_sync_projection::database;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use tempfile::TempDir;
use tokio::{net::TcpStream, time::sleep};

use crate::{
    harness::{
        SOON, eventually,
        process::{Env, run},
        servers::{TestDb, through},
    },
    load::Load,
    site::{Plan, Shape, Site, shared},
    watch::Outage,
};

/// A PgBouncer of the test's own, before the server of `scripts/services`.
struct PgBouncer {
    address: SocketAddr,
    folder: TempDir,
    process: Child,
}

impl PgBouncer {
    /// With so many connections to the server, for each database.
    async fn start(server: &ServerUrl, connections: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = port.local_addr().unwrap();
        drop(port);
        let url = server.expose();
        let (user, password) = (url.username(), url.password().unwrap());
        let users = folder.path().join("users.txt");
        std::fs::write(&users, format!("\"{user}\" \"{password}\"\n")).unwrap();
        // As it comes, but for the mode: start-up parameters that it does not know are refused.
        let settings = format!(
            "[databases]\n\
             * = host={} port={}\n\
             [pgbouncer]\n\
             listen_addr = {}\nlisten_port = {}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {}\n\
             pool_mode = transaction\ndefault_pool_size = {connections}\n",
            url.host_str().unwrap(),
            url.port().unwrap(),
            address.ip(),
            address.port(),
            users.display(),
        );
        std::fs::write(folder.path().join("pgbouncer.ini"), settings).unwrap();
        // It refuses to be root, and becomes somebody who must be able to read this.
        for path in [folder.path(), &users, &folder.path().join("pgbouncer.ini")] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let process = spawn(folder.path());
        let bouncer = Self {
            address,
            folder,
            process,
        };
        bouncer.answers().await;
        bouncer
    }

    async fn answers(&self) {
        eventually("PgBouncer listens", SOON, async || {
            TcpStream::connect(self.address).await.is_ok()
        })
        .await;
    }

    fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    async fn start_again(&mut self) {
        self.process = spawn(self.folder.path());
        self.answers().await;
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("log"));
            println!("--- PgBouncer said:\n{}", log.unwrap_or_default());
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Debian keeps it out of an ordinary PATH.
fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = PathBuf::from("/usr/sbin");
    let folders = std::env::split_paths(&path).chain([sbin]);
    folders
        .map(|folder| folder.join("pgbouncer"))
        .find(|program| program.exists())
        .expect("pgbouncer is not installed: scripts/services up does that on Debian and Ubuntu")
}

fn spawn(folder: &Path) -> Child {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"));
    let mut command = Command::new(program());
    if is_root() {
        command.args(["-u", "postgres"]);
    }
    command
        .arg(folder.join("pgbouncer.ini"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.unwrap())
        .spawn()
        .unwrap()
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.starts_with(b"0\n")
}

fn with_parameters(url: &ServerUrl, parameters: &[(&str, &str)]) -> ServerUrl {
    let mut url = url.expose().clone();
    url.query_pairs_mut().extend_pairs(parameters);
    url.as_str().parse().unwrap()
}

/// What a transaction finds on the server's connections: nothing of ours.
async fn no_session_state_is_left(url: &ServerUrl) {
    let db = database::connect(url, 1).await.unwrap();
    for (setting, wanted) in [
        ("lock_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        ("search_path", "\"$user\", public"),
    ] {
        // Not prepared: this is a pooled connection too.
        let sql = format!(
            "DO $$ BEGIN ASSERT current_setting('{setting}') = '{wanted}', \
             current_setting('{setting}'); END $$"
        );
        db.execute_unprepared(&sql).await.unwrap();
    }
    db.close().await.unwrap();
}

/// In `shop`, and there alone.
async fn tables_are_in(db: &TestDb, schema: &str) {
    let sql =
        "SELECT string_agg(DISTINCT schemaname, ',') FROM pg_tables WHERE tablename = 'users'";
    let found = db
        .db
        .query_one_raw(Statement::from_string(DbBackend::Postgres, sql))
        .await;
    let found: String = found.unwrap().unwrap().try_get_by_index(0).unwrap();
    assert_eq!(found, schema);
}

/// Worker and command, told by Prisma's parameters, in a schema of the application's own.
pub(crate) async fn a_worker_behind_pgbouncer_needs_no_session_and_survives_its_restart() {
    let _servers = shared().await;
    let mut db = TestDb::postgres().await;
    db.execute("CREATE SCHEMA shop").await;
    let mut bouncer = PgBouncer::start(&db.url, 2).await;
    let parameters = [("schema", "shop"), ("pgbouncer", "true")];
    let url = with_parameters(&through(&db.url, bouncer.address), &parameters);
    let env = Env::from([("DATABASE_URL", url.expose().to_string())]);
    // Several at once, as replicas that start.
    let migrate = |what: &'static str| {
        let env = env.clone();
        async move { run("clerk-sync", &["migrate", what], &env).await }
    };
    let runs = tokio::join!(migrate("up"), migrate("up"), migrate("up"));
    for (status, stdout, stderr) in [runs.0, runs.1, runs.2, migrate("status").await] {
        assert!(status.success(), "{stdout}{stderr}");
    }
    // The test itself looks at the tables without the pooler.
    db.db = database::connect(&with_parameters(&db.url, &parameters[..1]), 2)
        .await
        .unwrap();
    tables_are_in(&db, "shop").await;

    let plan = Plan::on(db, Shape::Apart { workers: 2 });
    let plan = plan.with_database(url.clone()).direct();
    let site = Site::open(plan.with("WORKER_LANES", "4")).await;
    let load = Load::start(&site.url(), 60);
    sleep(Duration::from_secs(5)).await;
    let outage = Outage::begins(&["database", "apply"], &["refused"]);
    bouncer.stop();
    for worker in site.workers() {
        worker.watch.tells("refused").await;
    }
    let outage = outage.over();
    bouncer.start_again().await;
    site.shows(200).await;
    sleep(Duration::from_secs(5)).await;
    let delivered = load.delivered().await;
    site.applied(&delivered.ids).await;
    site.told(&[outage]).await;
    tables_are_in(&site.db, "shop").await;
    no_session_state_is_left(&through(&site.db.url, bouncer.address)).await;
    for worker in site.workers() {
        // Of the weather there was the restart, and no statement that somebody else had.
        let output = worker.process.output();
        assert!(
            !output.contains("26000") && !output.contains("42P05"),
            "{output}"
        );
    }
    site.audit(&delivered).await;
}

/// All in one, told by our own setting, on a single connection to the server.
pub(crate) async fn up_behind_pgbouncer_migrates_and_applies_on_one_connection() {
    let _servers = shared().await;
    let db = TestDb::postgres().await;
    let bouncer = PgBouncer::start(&db.url, 1).await;
    let url = through(&db.url, bouncer.address);
    let plan = Plan::on(db, Shape::Up).with_database(url.clone()).direct();
    let plan = plan
        .with("WORKER_LANES", "4")
        .with("DATABASE_PREPARED_STATEMENTS", "false");
    let site = Site::open(plan).await;
    tables_are_in(&site.db, "public").await;
    let load = Load::start(&site.url(), 40);
    sleep(Duration::from_secs(10)).await;
    let delivered = load.delivered().await;
    site.applied(&delivered.ids).await;
    no_session_state_is_left(&url).await;
    assert_eq!(site.ingest().said("unavailable"), 0);
    site.told(&[]).await;
    site.audit(&delivered).await;
}
