//! How a user's row stands to what Clerk says of the user.

use std::collections::{BTreeSet, HashMap};

use chrono::NaiveDateTime;
use clerk_sync_entity::{user_versions, users};
use clerk_sync_pipeline::{Millis, queue::Failure};
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, FromQueryResult as _, QueryResult,
    TransactionTrait as _,
};

use crate::{
    Projection, Snapshot,
    apply::bounded,
    change::Read,
    failure::{TransactionError, Unavailable},
    reduce::{self, Goal},
    seats::newer_than,
    user,
};

/// How a user's row stands to what Clerk says of the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The row says what Clerk says; or neither has the user.
    Current,
    /// The row is of a later change than what Clerk said.
    Newer,
    /// Clerk has the user, and there is no row.
    Missing,
    /// Clerk has the user, who is remembered as deleted and will not come back.
    Buried,
    /// The row is of an earlier change than what Clerk says, or somebody else has changed it.
    Stale,
    /// There is a row that the sync has written, and Clerk has no such user.
    Ghost,
    /// There is a row that the sync has never written.
    Unmanaged,
    /// Clerk's user has no address, and `MISSING_EMAIL=dead-letter`: there need not be a row.
    MissingEmail,
    /// What Clerk said cannot be written.
    Refused(Failure),
}

/// What is held of a version.
#[derive(Clone, Copy)]
struct Version {
    updated_at: i64,
    occurred_at: i64,
    is_tombstone: bool,
}

/// What is held of some users, at one moment.
#[derive(Default)]
pub(crate) struct Held {
    versions: HashMap<String, Version>,
    rows: HashMap<String, Row>,
}

impl Held {
    pub(crate) async fn read(
        db: &impl ConnectionTrait,
        clerk_ids: &BTreeSet<&str>,
    ) -> Result<Self, DbErr> {
        let clerk_ids: Vec<&str> = clerk_ids.iter().copied().collect();
        if clerk_ids.is_empty() {
            return Ok(Self::default());
        }
        let backend = db.get_database_backend();
        let versions = user_versions::held(backend, &clerk_ids);
        let versions = db.query_all(&versions).await?;
        let rows = db.query_all(&users::rows(backend, &clerk_ids)).await?;
        Ok(Self {
            versions: versions.iter().map(version).collect::<Result<_, _>>()?,
            rows: rows.iter().map(row).collect::<Result<_, _>>()?,
        })
    }

    /// When the event occurred that the user's version is of; 0 if there is none.
    pub(crate) fn occurred_at(&self, clerk_id: &str) -> Millis {
        let version = self.versions.get(clerk_id);
        Millis(version.map_or(0, |version| version.occurred_at))
    }

    /// `holders` are those of the address that the goal has.
    pub(crate) fn standing(
        &self,
        clerk_id: &str,
        goal: Goal<'_>,
        holders: &[users::Holder],
    ) -> Standing {
        let row = self.rows.get(clerk_id);
        let version = self.versions.get(clerk_id);
        match (goal, row, version) {
            (Goal::Gone, None, _) => Standing::Current,
            (Goal::Gone, Some(_), Some(_)) => Standing::Ghost,
            (Goal::Gone, Some(_), None) => Standing::Unmanaged,
            (Goal::Row(..), _, Some(held)) if held.is_tombstone => Standing::Buried,
            (Goal::Row(_, told), _, Some(held)) if held.updated_at > told.updated_at.0 => {
                Standing::Newer
            }
            (Goal::Row(snapshot, _), ..) if snapshot.email.is_none() => Standing::MissingEmail,
            (Goal::Row(..), Some(_), None) => Standing::Unmanaged,
            (Goal::Row(..), None, _) => Standing::Missing,
            (Goal::Row(snapshot, told), Some(row), Some(held)) => {
                let taken = |holder: &users::Holder| {
                    snapshot.email.as_ref() == Some(&holder.email) && newer_than(holder, told)
                };
                let gave_way = row.email.as_deref() == Some(&user::reassigned(clerk_id))
                    && holders.iter().any(taken);
                if held.updated_at == told.updated_at.0 && row.is(snapshot, gave_way) {
                    Standing::Current
                } else {
                    Standing::Stale
                }
            }
        }
    }
}

fn version(row: &QueryResult) -> Result<(String, Version), DbErr> {
    let version = Version {
        updated_at: row.try_get_by_index(1)?,
        occurred_at: row.try_get_by_index(2)?,
        is_tombstone: row.try_get_by_index(3)?,
    };
    Ok((row.try_get_by_index(0)?, version))
}

fn row(row: &QueryResult) -> Result<(String, Row), DbErr> {
    let found = Row {
        email: row.try_get_by_index(1).ok(),
        name: row.try_get_by_index(2).ok(),
        image_url: row.try_get_by_index(3).ok(),
        created_at: row.try_get_by_index(4).ok(),
    };
    Ok((row.try_get_by_index(0)?, found))
}

/// A row of `users`, as far as it can be read: whoever wrote it, it may hold anything.
struct Row {
    email: Option<String>,
    name: Option<Option<String>>,
    image_url: Option<Option<String>>,
    created_at: Option<NaiveDateTime>,
}

impl Row {
    /// Whether it says what the snapshot says. `updatedAt` is not looked at: Prisma sets it
    /// whenever the application writes to a column of its own.
    fn is(&self, snapshot: &user::Snapshot, without_its_address: bool) -> bool {
        (without_its_address || self.email == snapshot.email)
            && self.name.as_ref() == Some(&snapshot.name)
            && self.image_url.as_ref() == Some(&snapshot.image_url)
            && self.created_at == Some(snapshot.created_at)
    }
}

impl Projection {
    /// Compares what Clerk answered with what is held, and writes nothing: how each stands, in
    /// their order.
    ///
    /// # Errors
    /// The weather.
    pub async fn compare(&self, snapshots: &[Snapshot<'_>]) -> Result<Vec<Standing>, Unavailable> {
        let read: Vec<Result<Read, Failure>> = snapshots
            .iter()
            .map(|snapshot| snapshot.read(&self.config.rules))
            .collect();
        let goals = || read.iter().flatten().filter_map(reduce::goal);
        let clerk_ids: BTreeSet<&str> = goals().map(|(clerk_id, _)| clerk_id).collect();
        let emails: BTreeSet<&str> = goals()
            .filter_map(|(_, goal)| match goal {
                Goal::Row(snapshot, _) => snapshot.email.as_deref(),
                Goal::Gone => None,
            })
            .collect();
        let emails: Vec<&str> = emails.into_iter().collect();
        let looked = self.look(async |db| {
            let held = Held::read(db, &clerk_ids).await?;
            Ok((held, holders(db, &emails).await?))
        });
        let (held, holders) = looked.await?;
        let standing = |read: &Result<Read, Failure>| match read {
            Err(failure) => Standing::Refused(failure.clone()),
            Ok(read) => {
                let (clerk_id, goal) = reduce::goal(read).expect("a snapshot is about a user");
                held.standing(clerk_id, goal, &holders)
            }
        };
        Ok(read.iter().map(standing).collect())
    }

    /// Looks at one moment, and writes nothing. Every failure is the weather.
    pub(crate) async fn look<T>(
        &self,
        look: impl AsyncFnOnce(&DatabaseTransaction) -> Result<T, DbErr>,
    ) -> Result<T, Unavailable> {
        let looked = bounded(async {
            let transaction = self.db.pool.begin().await?;
            if transaction.get_database_backend() == DbBackend::Postgres {
                // Before the opening: one that takes a snapshot would come too early for this.
                let one_moment = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";
                let opening = self.db.opening().unwrap_or_default();
                let first = format!("{one_moment}; {opening}");
                transaction.execute_unprepared(&first).await?;
            }
            let seen = look(&transaction).await?;
            transaction.commit().await?;
            Ok::<_, DbErr>(seen)
        });
        looked.await.map_err(unavailable)
    }
}

/// Who holds these addresses.
pub(crate) async fn holders(
    db: &impl ConnectionTrait,
    emails: &[&str],
) -> Result<Vec<users::Holder>, DbErr> {
    if emails.is_empty() {
        return Ok(Vec::new());
    }
    let look = users::holders(db.get_database_backend(), emails);
    let rows = db.query_all(&look).await?;
    rows.iter()
        .map(|row| users::Holder::from_query_result(row, ""))
        .collect()
}

/// Where nothing is written, every failure is the weather.
pub(crate) fn unavailable(error: TransactionError) -> Unavailable {
    match error {
        TransactionError::Unavailable(weather) => weather,
        TransactionError::Refused(refusal) => Unavailable(refusal.failure.detail),
        other => Unavailable(format!("{other:?}")),
    }
}
