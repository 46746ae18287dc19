//! Whether a key and a database belong together: an instance that is mixed up must not fill a table
//! with strangers, nor empty it.

use std::{io::Write as _, pin::pin, time::Duration};

use clerk_sync_clerk::backend::{Instance, MAX_IDS};
use clerk_sync_entity::bookmarks;
use tokio::time::timeout;

use super::{PATIENCE_WITH_CLERK, Sides, Unchecked, patiently};

/// How many users of the first and of the last are looked up at Clerk, of those that the sync has
/// written and of those that have a row. One call has room for all four.
const SAMPLE: u64 = MAX_IDS as u64 / 4;

/// After which a person wonders.
const LONG: Duration = Duration::from_secs(5);

impl Unchecked {
    /// Makes sure that the tables are there, can be written to if they are to be, and that the rows
    /// are of the key's instance; remembers it before anything is written.
    ///
    /// # Errors
    /// A side does not answer, or the two do not belong together.
    pub(crate) async fn check(self, writes: bool) -> anyhow::Result<Sides> {
        // Without patience: a table or a right that is missing does not come by itself.
        let remembered = self.projection.bookmark(bookmarks::INSTANCE).await?;
        if writes {
            self.projection.ping().await?;
        }
        let instance = self.backend.instance().await?;
        let (id, kind) = (&instance.id, instance.kind);
        if let Some(configured) = self.configured.as_ref().filter(|wanted| *wanted != id) {
            anyhow::bail!(
                "CLERK_SECRET_KEY is of instance {id}, and CLERK_INSTANCE_ID says {configured}"
            );
        }
        match remembered {
            Some(remembered) if remembered == *id => {}
            _ if self.adopt => self.remember(&instance).await?,
            Some(remembered) => anyhow::bail!(
                "CLERK_SECRET_KEY is of instance {id} ({kind}), and the rows came from \
                 {remembered}: is it the key of another environment? Nothing was changed. If the \
                 rows are to be of {id} from now on, say --adopt-instance"
            ),
            None => {
                self.check_rows(&instance).await?;
                // To look once with a wrong key must not keep the right one out.
                if writes {
                    self.remember(&instance).await?;
                }
            }
        }
        Ok(Sides {
            // Clerk has answered, so the settings are right, and what comes now may last.
            backend: self.backend.with_patience(PATIENCE_WITH_CLERK),
            projection: self.projection,
            instance,
        })
    }

    /// [`Self::check`], for a person, who is told when it takes long: what is wrong is told only when
    /// a side has had its time.
    pub(crate) async fn check_aloud(self, writes: bool) -> anyhow::Result<Sides> {
        let mut check = pin!(self.check(writes));
        if let Ok(checked) = timeout(LONG, check.as_mut()).await {
            return checked;
        }
        let _ = writeln!(
            std::io::stderr(),
            "no answer yet from Clerk's API or the database: asking again for some minutes"
        );
        check.await
    }

    async fn remember(&self, instance: &Instance) -> anyhow::Result<()> {
        let id = Some(instance.id.as_str());
        self.projection
            .set_bookmark(bookmarks::INSTANCE, id)
            .await?;
        Ok(())
    }

    /// Where no command has written before, the rows decide: ids of users are never used twice, so
    /// an instance that knows most of them is theirs. An event may be an example, or one that a
    /// development endpoint sent here by mistake; its word counts only where there are no rows.
    async fn check_rows(&self, instance: &Instance) -> anyhow::Result<()> {
        let noted = self.projection.bookmark(bookmarks::FIRST_INSTANCE).await?;
        let sample = patiently(|| self.projection.sample(SAMPLE)).await?;
        let known = self.backend.users_by_id(&sample).await?.len();
        let fits = if sample.is_empty() {
            noted.as_ref().is_none_or(|noted| *noted == instance.id)
        } else {
            known * 2 > sample.len()
        };
        if fits {
            return Ok(());
        }
        let noted = noted.map(|id| format!(" (the first event came from {id})"));
        anyhow::bail!(
            "CLERK_SECRET_KEY is of instance {} ({}), which knows {known} of {} users that were \
             looked at{}: is it the key of another environment? Nothing was changed. If the rows \
             are to be of this instance from now on, say --adopt-instance",
            instance.id,
            instance.kind,
            sample.len(),
            noted.unwrap_or_default()
        )
    }
}
