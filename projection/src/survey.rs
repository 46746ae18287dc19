//! What is there, for whoever compares all of it with Clerk; and what is remembered of the whole.

use chrono::Utc;
use clerk_sync_entity::{bookmarks, user_versions, users};
use clerk_sync_pipeline::{Event, telemetry::Outcome};
use sea_orm::{
    ConnectionTrait as _, DbErr, EntityTrait as _, FromQueryResult as _, PaginatorTrait as _,
    StatementBuilder,
};
use serde::Deserialize;

use crate::{
    Projection,
    apply::bounded,
    batch::{Batch, Verdict},
    failure::Unavailable,
    standing::unavailable,
};

pub use clerk_sync_entity::users::Listed;

impl Projection {
    /// Rows that follow this Clerk id, in the database's own order of them.
    ///
    /// # Errors
    /// The weather.
    pub async fn rows_after(&self, after: &str, limit: u64) -> Result<Vec<Listed>, Unavailable> {
        let look = users::list_after(self.db.pool.get_database_backend(), after, limit);
        let listed = bounded(async {
            let transaction = self.begin_reading().await?;
            let rows = transaction.query_all(&look).await?;
            transaction.commit().await?;
            rows.iter()
                .map(|row| Listed::from_query_result(row, ""))
                .collect::<Result<_, DbErr>>()
        });
        listed.await.map_err(unavailable)
    }

    /// How many rows `users` has.
    ///
    /// # Errors
    /// The weather.
    pub async fn count_rows(&self) -> Result<u64, Unavailable> {
        let counted = bounded(async {
            let transaction = self.begin_reading().await?;
            let count = users::Entity::find().count(&transaction).await?;
            transaction.commit().await?;
            Ok::<_, DbErr>(count)
        });
        counted.await.map_err(unavailable)
    }

    /// Clerk ids of users that the sync has written and not deleted: some of the first and some of
    /// the last, at most twice `limit`.
    ///
    /// # Errors
    /// The weather.
    pub async fn sample(&self, limit: u64) -> Result<Vec<String>, Unavailable> {
        let backend = self.db.pool.get_database_backend();
        let sampled = bounded(async {
            let transaction = self.begin_reading().await?;
            let mut ids = Vec::new();
            for look in user_versions::ends(backend, limit) {
                for row in transaction.query_all(&look).await? {
                    ids.push(row.try_get_by_index(0)?);
                }
            }
            transaction.commit().await?;
            ids.sort_unstable();
            ids.dedup();
            Ok::<_, DbErr>(ids)
        });
        sampled.await.map_err(unavailable)
    }

    /// What is remembered under a name of [`bookmarks`].
    ///
    /// # Errors
    /// The weather.
    pub async fn bookmark(&self, name: &str) -> Result<Option<String>, Unavailable> {
        let look = bookmarks::find(self.db.pool.get_database_backend(), name);
        let found = bounded(async {
            let transaction = self.begin_reading().await?;
            let row = transaction.query_one(&look).await?;
            transaction.commit().await?;
            row.map(|row| row.try_get_by_index(0)).transpose()
        });
        found
            .await
            .map_err(|error: crate::failure::TransactionError| unavailable(error))
    }

    /// Remembers something under a name, or forgets it.
    ///
    /// # Errors
    /// The weather.
    pub async fn set_bookmark(&self, name: &str, value: Option<&str>) -> Result<(), Unavailable> {
        let backend = self.db.pool.get_database_backend();
        let set = match value {
            Some(value) => self.write_one(bookmarks::put(backend, name, value, Utc::now())),
            None => return self.write_one(bookmarks::remove(backend, name)).await,
        };
        set.await
    }

    /// Remembers which instance the first event came from, unless that is known already.
    ///
    /// # Errors
    /// The weather.
    pub async fn note_instance(&self, id: &str) -> Result<(), Unavailable> {
        let backend = self.db.pool.get_database_backend();
        let name = bookmarks::FIRST_INSTANCE;
        self.write_one(bookmarks::put_first(backend, name, id, Utc::now()))
            .await
    }

    /// Notes the instance of the first events that this process applies. Nothing of the events
    /// rests on it, so whatever fails is left to the next process.
    pub(crate) async fn note_instance_of(&self, batch: &Batch<'_>) {
        let Some(event) = batch.applied_event() else {
            return;
        };
        if self.instance_noted.set(()).is_err() {
            return;
        }
        let Some(id) = instance_of(event) else {
            return;
        };
        if let Err(unavailable) = self.note_instance(&id).await {
            tracing::debug!(%unavailable, "the Clerk instance cannot be noted");
        }
    }

    async fn write_one(&self, statement: impl StatementBuilder) -> Result<(), Unavailable> {
        let written = bounded(async {
            let transaction = self.db.begin().await?;
            transaction.execute(&statement).await?;
            transaction.commit().await
        });
        written.await.map_err(unavailable)
    }
}

impl<'a> Batch<'a> {
    /// Some event of it that has changed a row.
    fn applied_event(&self) -> Option<&'a Event> {
        self.delivered().find_map(|(event, verdict)| {
            let changed = matches!(
                verdict,
                Some(Verdict::Applied(
                    Outcome::Created | Outcome::Updated | Outcome::Deleted
                ))
            );
            changed.then_some(event)
        })
    }
}

/// The instance in an event's envelope.
fn instance_of(event: &Event) -> Option<String> {
    #[derive(Deserialize)]
    struct Envelope {
        instance_id: Option<String>,
    }
    let envelope: Envelope = serde_json::from_slice(&event.body).ok()?;
    envelope.instance_id.filter(|id| !id.is_empty())
}
