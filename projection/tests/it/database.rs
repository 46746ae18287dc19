//! A database for one test, and pictures of what is in it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, atomic::Ordering},
};

use chrono::NaiveDateTime;
use clerk_sync_entity::{credits, processed_events, user_versions, users};
use clerk_sync_pipeline::{
    Event,
    queue::{Failure, Reason},
    secret::ServerUrl,
    telemetry::{Label as _, Metrics, Outcome},
};
use clerk_sync_projection::{
    Projection, ProjectionConfig, Verdict,
    database::{self, Kind},
};
use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, DbBackend, EntityTrait, FromQueryResult as _,
    PaginatorTrait as _, QueryOrder as _, Statement, sea_query::Query,
};
use tempfile::TempDir;

use crate::server::Lease;

/// Enough for four workers and a look from outside.
const CONNECTIONS: u32 = 6;

/// A migrated, empty database.
pub(crate) struct Db {
    pub(crate) kind: Kind,
    pub(crate) url: ServerUrl,
    pub(crate) pool: DatabaseConnection,
    /// The application's one connection, and its administrator's. Pictures are taken by it: what is
    /// done to the sync's own connections is no concern of theirs.
    pub(crate) application: DatabaseConnection,
    home: Home,
}

enum Home {
    Memory,
    Folder(#[expect(dead_code, reason = "removed when it is dropped")] TempDir),
    Server(Lease),
}

impl Db {
    /// For those who commit thousands of times.
    pub(crate) async fn in_memory() -> Self {
        Self::migrated(Kind::Sqlite, "sqlite::memory:", 1, Home::Memory).await
    }

    pub(crate) async fn sqlite() -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("app.db");
        let url = format!("sqlite://{}?mode=rwc", file.display());
        Self::migrated(Kind::Sqlite, &url, CONNECTIONS, Home::Folder(folder)).await
    }

    pub(crate) async fn postgres() -> Self {
        let lease = Lease::take();
        let (url, home) = (lease.url(), Home::Server(lease));
        Self::migrated(Kind::Postgres, &url, CONNECTIONS, home).await
    }

    async fn migrated(kind: Kind, url: &str, connections: u32, home: Home) -> Self {
        let url: ServerUrl = url.parse().unwrap();
        let pool = database::connect(&url, connections).await.unwrap();
        let application = match home {
            Home::Memory => pool.clone(),
            Home::Folder(_) | Home::Server(_) => database::connect(&url, 1).await.unwrap(),
        };
        let db = Self {
            kind,
            url,
            pool,
            application,
            home,
        };
        if matches!(&db.home, Home::Server(lease) if !lease.fresh) {
            db.wipe().await;
        } else {
            clerk_sync_migration::up(&db.pool).await.unwrap();
        }
        db
    }

    /// The database's name. PostgreSQL only.
    pub(crate) fn name(&self) -> &str {
        match &self.home {
            Home::Server(lease) => &lease.name,
            Home::Memory | Home::Folder(_) => panic!("an SQLite file has no server"),
        }
    }

    pub(crate) fn backend(&self) -> DbBackend {
        self.pool.get_database_backend()
    }

    /// A projection of this database with everything at its default.
    pub(crate) fn projection(&self) -> Projection {
        self.configured(ProjectionConfig::default())
    }

    pub(crate) fn configured(&self, config: ProjectionConfig) -> Projection {
        Projection::new(self.pool.clone(), config, metrics())
    }

    /// Applies one batch by the default projection; see [`Db::apply_by`].
    pub(crate) async fn apply(&self, events: &[Event]) -> Vec<String> {
        self.apply_by(&self.projection(), events).await
    }

    /// Applies one batch, checks that the ledger says of every event what its verdict says, and
    /// returns the verdicts in words: `created`, `retry: email_taken`, `dead: missing_email`.
    pub(crate) async fn apply_by(&self, projection: &Projection, events: &[Event]) -> Vec<String> {
        let mut batch = projection.read(events);
        projection.apply(&mut batch).await.unwrap();
        let verdicts = batch.into_verdicts();
        let verdicts: Vec<Verdict> = verdicts.into_iter().map(|(verdict, _)| verdict).collect();
        self.check_ledger(events, &verdicts).await;
        verdicts.iter().map(in_words).collect()
    }

    async fn check_ledger(&self, events: &[Event], verdicts: &[Verdict]) {
        let ledger = self.outcomes(events).await;
        for (event, verdict) in events.iter().zip(verdicts) {
            let written = ledger.get(event.id.as_str()).map(String::as_str);
            match verdict {
                Verdict::Applied(Outcome::Duplicate) => assert!(
                    written.is_some_and(|outcome| !put_aside(outcome)),
                    "{}: a duplicate of something that was not applied: {written:?}",
                    event.id
                ),
                Verdict::Applied(outcome) => {
                    assert_eq!(written, Some(outcome.as_str()), "{}", event.id);
                }
                Verdict::Retry(_) | Verdict::Postpone(_) | Verdict::DeadLetter(_) => assert!(
                    written.is_none_or(put_aside),
                    "{}: failed, but in the ledger as {written:?}",
                    event.id
                ),
            }
        }
    }

    async fn outcomes(&self, events: &[Event]) -> BTreeMap<String, String> {
        let ids: HashSet<&str> = events.iter().map(|event| event.id.as_str()).collect();
        let ids: Vec<&str> = ids.into_iter().collect();
        let look = processed_events::outcomes(self.backend(), &ids);
        let rows = self.pool.query_all(&look).await.unwrap();
        rows.iter().map(id_and_outcome).collect()
    }

    /// The whole ledger: what became of each event, by its id.
    pub(crate) async fn ledger(&self) -> BTreeMap<String, String> {
        let look = Query::select()
            .columns([
                processed_events::Column::EventId,
                processed_events::Column::Outcome,
            ])
            .from(processed_events::table(self.backend()))
            .to_owned();
        let rows = self.application.query_all(&look).await.unwrap();
        rows.iter().map(id_and_outcome).collect()
    }

    /// What the ledger says of an event.
    pub(crate) async fn outcome(&self, event: &Event) -> Option<String> {
        let mut outcomes = self.outcomes(std::slice::from_ref(event)).await;
        outcomes.remove(event.id.as_str())
    }

    /// What is in `users`, by Clerk id.
    pub(crate) async fn users(&self) -> Vec<users::Model> {
        let all = users::Entity::find().order_by_asc(users::Column::ClerkId);
        let mut all = all.all(&self.application).await.unwrap();
        // The database may sort by a locale.
        all.sort_by(|a, b| a.clerk_id.cmp(&b.clerk_id));
        all
    }

    pub(crate) async fn user(&self, clerk_id: &str) -> Option<users::Model> {
        let mut all = self.users().await;
        all.retain(|user| user.clerk_id == clerk_id);
        all.pop()
    }

    /// What is in `users`, all columns but `id`.
    pub(crate) async fn rows(&self) -> Vec<Row> {
        self.users().await.into_iter().map(Row::from).collect()
    }

    /// Who has which address: `user_a a@a.example`, by Clerk id.
    pub(crate) async fn addresses(&self) -> Vec<String> {
        let all = self.users().await;
        all.iter()
            .map(|user| format!("{} {}", user.clerk_id, user.email))
            .collect()
    }

    /// What is known of each user's newest version; of a deleted one, only that it is.
    pub(crate) async fn versions(&self) -> BTreeMap<String, Held> {
        let look = Query::select()
            .columns([
                user_versions::Column::ClerkId,
                user_versions::Column::UpdatedAtMs,
                user_versions::Column::OccurredAtMs,
                user_versions::Column::EventId,
                user_versions::Column::DeletedAt,
            ])
            .from(user_versions::table(self.backend()))
            .to_owned();
        let rows = self.application.query_all(&look).await.unwrap();
        let held = |row: &sea_orm::QueryResult| {
            let row = user_versions::Row::from_query_result(row, "").unwrap();
            let held = match row.deleted_at {
                Some(_) => Held::Tombstone,
                None => Held::Version(row.updated_at_ms, row.occurred_at_ms, row.event_id),
            };
            (row.clerk_id, held)
        };
        rows.iter().map(held).collect()
    }

    /// Amounts of credits, by the owner's `users.id`.
    pub(crate) async fn credits(&self) -> Vec<(String, i32)> {
        let all = credits::Entity::find().order_by_asc(credits::Column::UserId);
        let all = all.all(&self.application).await.unwrap();
        all.into_iter()
            .map(|row| (row.user_id, row.amount))
            .collect()
    }

    pub(crate) async fn count<E: EntityTrait>(&self, _: E) -> u64
    where
        E::Model: Send + Sync,
    {
        E::find().count(&self.pool).await.unwrap()
    }

    /// Changes the schema, as the application's administrator would.
    pub(crate) async fn alter(&self, sql: &str) {
        if let Home::Server(lease) = &self.home {
            lease.altered.store(true, Ordering::Relaxed);
        }
        self.execute(sql).await;
    }

    /// Runs a statement as the application would.
    pub(crate) async fn execute(&self, sql: &str) {
        self.application.execute_unprepared(sql).await.unwrap();
    }

    /// A number that the database is asked for.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let statement = Statement::from_string(self.backend(), sql);
        let row = self.pool.query_one_raw(statement).await.unwrap().unwrap();
        row.try_get_by_index(0).unwrap()
    }

    /// A row that the application has written itself.
    pub(crate) async fn application_writes(&self, id: &str, clerk_id: &str, email: &str) {
        self.execute(&format!(
            r#"INSERT INTO users (id, "clerkId", email, name, "updatedAt")
               VALUES ('{id}', '{clerk_id}', '{email}', 'Theirs', '2026-01-01 00:00:00')"#
        ))
        .await;
    }

    /// Empties all tables.
    pub(crate) async fn wipe(&self) {
        let ours = match self.kind {
            Kind::Postgres => [
                "clerk_sync.processed_events",
                "clerk_sync.user_versions",
                "clerk_sync.bookmarks",
            ],
            Kind::Sqlite => [
                "clerk_sync_processed_events",
                "clerk_sync_user_versions",
                "clerk_sync_bookmarks",
            ],
        };
        let delete = |table| format!("DELETE FROM {table};");
        self.execute(&["users", ours[0], ours[1], ours[2]].map(delete).concat())
            .await;
    }
}

pub(crate) fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(0))
}

/// A row of `users`, all columns but `id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) clerk_id: String,
    pub(crate) email: String,
    pub(crate) name: Option<String>,
    pub(crate) image_url: Option<String>,
    pub(crate) created_at: NaiveDateTime,
    pub(crate) updated_at: NaiveDateTime,
}

impl From<users::Model> for Row {
    fn from(user: users::Model) -> Self {
        Self {
            clerk_id: user.clerk_id,
            email: user.email,
            name: user.name,
            image_url: user.image_url,
            created_at: user.created_at,
            updated_at: user.updated_at,
        }
    }
}

/// What is held of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Version(i64, i64, String),
    Tombstone,
}

/// A verdict for a test to compare. Whatever failed, its detail holds nothing of the payload:
/// every address in the tests has an `@`, every name and address the word `secret` or `example`.
fn in_words(verdict: &Verdict) -> String {
    let failure = |how: &str, Failure { reason, detail }: &Failure| {
        let shown = detail.to_lowercase();
        for payload in ["@", "example", "secret"] {
            assert!(!shown.contains(payload), "a detail with payload: {detail}");
        }
        assert!(!detail.is_empty(), "{reason:?} without a detail");
        format!("{how}: {}", Reason::as_str(*reason))
    };
    match verdict {
        Verdict::Applied(outcome) => outcome.as_str().to_owned(),
        Verdict::Retry(cause) => failure("retry", cause),
        Verdict::Postpone(cause) => failure("postpone", cause),
        Verdict::DeadLetter(cause) => failure("dead", cause),
    }
}

fn id_and_outcome(row: &sea_orm::QueryResult) -> (String, String) {
    (
        row.try_get_by_index(0).unwrap(),
        row.try_get_by_index(1).unwrap(),
    )
}

fn put_aside(outcome: &str) -> bool {
    processed_events::UNAPPLIED.contains(&outcome)
}
