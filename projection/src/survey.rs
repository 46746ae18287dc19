//! What is there, for whoever compares all of it with Clerk; and what is remembered of the whole.

use chrono::Utc;
use clerk_sync_entity::{bookmarks, user_versions, users};
use clerk_sync_pipeline::{Event, telemetry::Outcome};
use sea_orm::{ConnectionTrait as _, FromQueryResult as _, StatementBuilder};
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
        self.look(async |db| {
            let rows = db.query_all(&look).await?;
            rows.iter()
                .map(|row| Listed::from_query_result(row, ""))
                .collect()
        })
        .await
    }

    /// Clerk ids of users that the sync has written and not deleted, and of those that have a row,
    /// whoever made it: some of the first and some of the last of both, at most four times `limit`.
    ///
    /// # Errors
    /// The weather.
    pub async fn sample(&self, limit: u64) -> Result<Vec<String>, Unavailable> {
        let backend = self.db.pool.get_database_backend();
        let ends = [
            user_versions::ends(backend, limit),
            users::ends(backend, limit),
        ];
        self.look(async |db| {
            let mut ids = Vec::new();
            for end in ends.as_flattened() {
                for row in db.query_all(end).await? {
                    ids.push(row.try_get_by_index(0)?);
                }
            }
            ids.sort_unstable();
            ids.dedup();
            Ok(ids)
        })
        .await
    }

    /// What is remembered under a name of [`bookmarks`].
    ///
    /// # Errors
    /// The weather.
    pub async fn bookmark(&self, name: &str) -> Result<Option<String>, Unavailable> {
        let look = bookmarks::find(self.db.pool.get_database_backend(), name);
        self.look(async |db| {
            let row = db.query_one(&look).await?;
            row.map(|row| row.try_get_by_index(0)).transpose()
        })
        .await
    }

    /// The one instance that the rows may be of: as configured, else as a command has made sure.
    /// `None` where neither says.
    ///
    /// # Errors
    /// The weather.
    pub async fn instance(&self) -> Result<Option<String>, Unavailable> {
        match &self.config.rules.instance_id {
            Some(configured) => Ok(Some(configured.clone())),
            None => self.bookmark(bookmarks::INSTANCE).await,
        }
    }

    /// Remembers something under a name, or forgets it.
    ///
    /// # Errors
    /// The weather.
    pub async fn set_bookmark(&self, name: &str, value: Option<&str>) -> Result<(), Unavailable> {
        let backend = self.db.pool.get_database_backend();
        match value {
            Some(value) => {
                let put = bookmarks::put(backend, name, value, Utc::now());
                self.write_one(put).await
            }
            None => self.write_one(bookmarks::remove(backend, name)).await,
        }
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
        // Asked first: of all batches but the first, nothing is looked at.
        if self.instance_noted.get().is_some() {
            return;
        }
        // One that names none, as a probe, tells nothing: the next may.
        let Some(id) = batch.applied_event().and_then(instance_of) else {
            return;
        };
        if self.instance_noted.set(()).is_err() {
            return;
        }
        if let Err(error) = self.note_instance(&id).await {
            tracing::debug!(%error, "the Clerk instance cannot be noted");
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
