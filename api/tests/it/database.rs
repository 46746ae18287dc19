//! A database for one test.

use std::sync::atomic::{AtomicU32, Ordering};

use clerk_sync_pipeline::secret::ServerUrl;
use clerk_sync_projection::database::{self, Database};
use sea_orm::{ConnectionTrait as _, DatabaseConnection};
use tempfile::TempDir;

/// A migrated, empty database, removed when dropped.
pub(crate) struct Home {
    pub(crate) url: ServerUrl,
    pub(crate) db: Database,
    _folder: Option<TempDir>,
    server: Option<(ServerUrl, String)>,
}

impl Home {
    pub(crate) async fn sqlite() -> Self {
        let folder = TempDir::new().unwrap();
        let url = format!(
            "sqlite://{}?mode=rwc",
            folder.path().join("app.db").display()
        );
        Self::migrated(url.parse().unwrap(), Some(folder), None).await
    }

    pub(crate) async fn postgres() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let server: ServerUrl = std::env::var("DATABASE_URL")
            .expect("DATABASE_URL names a PostgreSQL server: scripts/services up")
            .parse()
            .unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("clerk_sync_api_{}_{number}", std::process::id());
        let administrator = database::connect(&server, 1).await.unwrap();
        let create = format!("CREATE DATABASE {name}");
        administrator.execute_unprepared(&create).await.unwrap();
        let mut url = server.expose().clone();
        url.set_path(&name);
        let url = url.as_str().parse().unwrap();
        Self::migrated(url, None, Some((server, name))).await
    }

    async fn migrated(
        url: ServerUrl,
        folder: Option<TempDir>,
        server: Option<(ServerUrl, String)>,
    ) -> Self {
        let db = database::open(&url, 8, true).await.unwrap();
        clerk_sync_migration::up(&db.pool).await.unwrap();
        Self {
            url,
            db,
            _folder: folder,
            server,
        }
    }

    pub(crate) fn pool(&self) -> &DatabaseConnection {
        &self.db.pool
    }

    /// Runs a statement of the application's.
    pub(crate) async fn run(&self, sql: &str) {
        self.pool().execute_unprepared(sql).await.unwrap();
    }

    /// A row of the application's own, with this address.
    pub(crate) async fn has_stranger(&self, email: &str) {
        self.run(&format!(
            r#"INSERT INTO users ("id", "clerkId", "email", "updatedAt")
               VALUES ('a', 'theirs', '{email}', '2026-01-02 03:04:05.678')"#
        ))
        .await;
    }

    /// A number.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let backend = self.pool().get_database_backend();
        let statement = sea_orm::Statement::from_string(backend, sql);
        let row = self.pool().query_one_raw(statement).await.unwrap().unwrap();
        row.try_get_by_index(0).unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let Some((server, name)) = self.server.take() else {
            return;
        };
        // From a thread of its own: a runtime may not be entered twice.
        let drop = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let administrator = database::connect(&server, 1).await.unwrap();
                let drop = format!("DROP DATABASE {name} WITH (FORCE)");
                administrator.execute_unprepared(&drop).await.unwrap();
            });
        });
        let _ = drop.join();
    }
}
