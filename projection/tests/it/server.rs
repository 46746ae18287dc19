//! The PostgreSQL server of `DATABASE_URL`, and the databases that tests have on it.

use std::{
    mem,
    sync::{
        LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
};

use clerk_sync_pipeline::secret::ServerUrl;
use clerk_sync_projection::database;
use sea_orm::ConnectionTrait as _;

/// A database of one test for as long as it lives. To make and to drop one costs a second when the
/// disk is busy, so it is handed on to the next test as long as any test has one; the last one
/// that gives its own back drops them all.
pub(crate) struct Lease {
    pub(crate) name: String,
    /// Whether nobody had it before.
    pub(crate) fresh: bool,
    /// Whether nobody may have it after this.
    pub(crate) altered: AtomicBool,
}

struct Databases {
    made: usize,
    leased: usize,
    free: Vec<String>,
}

static DATABASES: Mutex<Databases> = Mutex::new(Databases {
    made: 0,
    leased: 0,
    free: Vec::new(),
});

fn databases() -> MutexGuard<'static, Databases> {
    DATABASES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lease {
    pub(crate) fn take() -> Self {
        let mut databases = databases();
        databases.leased += 1;
        let free = databases.free.pop();
        databases.made += usize::from(free.is_none());
        // Unique among processes by the process, within one by the number.
        let number = databases.made;
        drop(databases);
        let lease = |name, fresh| Self {
            name,
            fresh,
            altered: AtomicBool::new(false),
        };
        if let Some(name) = free {
            return lease(name, false);
        }
        let name = format!("clerk_sync_projection_{}_{number}", std::process::id());
        let lease = lease(name, true);
        administrate(format!("CREATE DATABASE {}", lease.name)).unwrap();
        lease
    }

    /// The database's URL.
    pub(crate) fn url(&self) -> String {
        let mut url = server().expose().clone();
        url.set_path(&self.name);
        // Nobody pulls the plug here, and a commit costs a fsync less.
        url.query_pairs_mut()
            .append_pair("options", "-c synchronous_commit=off");
        url.into()
    }
}

impl Drop for Lease {
    /// Also runs when a test panics.
    fn drop(&mut self) {
        let mut dropped = Vec::new();
        let name = mem::take(&mut self.name);
        let mut databases = databases();
        databases.leased -= 1;
        if self.altered.load(Ordering::Relaxed) || std::thread::panicking() {
            dropped.push(name);
        } else {
            databases.free.push(name);
        }
        if databases.leased == 0 {
            dropped.append(&mut databases.free);
        }
        drop(databases);
        for name in dropped {
            let dropped = administrate(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
            assert!(
                dropped.is_ok() || std::thread::panicking(),
                "database {name} is left behind: {dropped:?}"
            );
        }
    }
}

/// A statement to the server, and where to answer.
type Order = (String, SyncSender<Result<(), String>>);

/// Runs a statement on the server's own database, by one connection for all tests, on a thread of
/// its own, since every test has a runtime of its own.
pub(crate) fn administrate(statement: String) -> Result<(), String> {
    static ORDERS: LazyLock<SyncSender<Order>> = LazyLock::new(|| {
        let (orders, taken) = sync_channel::<Order>(1);
        let url = server();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let connection = runtime.block_on(database::connect(&url, 1)).unwrap();
            for (statement, answer) in taken {
                let done = runtime.block_on(connection.execute_unprepared(&statement));
                answer
                    .send(done.map(drop).map_err(|error| error.to_string()))
                    .ok();
            }
        });
        orders
    });
    let (answer, answered) = sync_channel(1);
    ORDERS.send((statement, answer)).unwrap();
    answered.recv().unwrap()
}

fn server() -> ServerUrl {
    let url = std::env::var("DATABASE_URL")
        .expect("DATABASE_URL names no PostgreSQL server: run scripts/test");
    url.parse().unwrap()
}
