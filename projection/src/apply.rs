//! A batch, applied: one transaction for all of it, or, when some event is refused, one for each
//! event that could be the one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use clerk_sync_entity::{credits, processed_events, users};
use clerk_sync_pipeline::{
    Event,
    lifecycle::GRACE,
    queue::{Failure, Reason},
    retry::Backoff,
    telemetry::{DbOperation, DbResult, Label as _, Metrics, Outcome},
};
use tokio::time::{sleep, timeout};

use crate::{
    batch::{Batch, Verdict, expected_outcomes, first_of_each_id},
    change::{Change, Rules},
    database::Database,
    failure::{Contention, Refusal, Step, TransactionError, Unavailable},
    reduce::{self, Goal, Winner},
    seats::{Claims, Seats, unmanaged_claims},
    snapshot::Compared,
    transaction::{LockTimeout, Tx},
    user,
};

/// How often a transaction is tried against others before that counts as weather.
const CONTENTION_TRIES: usize = 5;
/// Longest time for one transaction or question. What takes longer has lost its connection, or is
/// stuck behind somebody's lock; it is tried again. Shorter than the grace period of a process, so
/// that a mute database does not turn a polite stop into a forced one.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(20);
const _: () = assert!(ANSWER_WITHIN.as_secs() < GRACE.as_secs());
/// A transaction is some ten round trips: if one takes longer than this, none ends within
/// [`ANSWER_WITHIN`].
const PROMPT: Duration = Duration::from_secs(2);

/// The database's answer, its error sorted, or the weather when there is none in time.
pub(crate) async fn bounded<T, E: Into<TransactionError>>(
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, TransactionError> {
    match timeout(ANSWER_WITHIN, answer).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => {
            let cause = format!("no answer within {ANSWER_WITHIN:?}");
            Err(TransactionError::Unavailable(Unavailable(cause)))
        }
    }
}
/// Applies events to the database. Cloning shares the pool.
#[derive(Clone)]
pub struct Projection {
    pub(crate) db: Database,
    pub(crate) config: Arc<ProjectionConfig>,
    pub(crate) metrics: Arc<Metrics>,
    /// Users whose rows somebody was seen to hold: their events are tried apart from others, and
    /// without a long wait.
    locked_users: Arc<Mutex<HashSet<String>>>,
    /// Set once the instance of the events is noted.
    pub(crate) instance_noted: Arc<OnceLock<()>>,
}

/// Most users remembered for that. More means that something else is going on; then each is found
/// out again.
const MOST_LOCKED: usize = 1000;

/// How many locked users of one batch are waited for.
const MOST_WAITED_FOR: usize = 3;

/// How events become rows.
#[derive(Clone, Debug, Default)]
pub struct ProjectionConfig {
    /// How events are read.
    pub rules: Rules,
    /// Credits granted to a new user, once, with its row. 0 grants none and makes no row.
    pub initial_credits: i32,
}

impl Projection {
    /// Writes to `db`.
    #[must_use]
    pub fn new(db: impl Into<Database>, config: ProjectionConfig, metrics: Arc<Metrics>) -> Self {
        let db: Database = db.into();
        db.watch(&metrics);
        Self {
            locked_users: Arc::default(),
            instance_noted: Arc::default(),
            db,
            config: Arc::new(config),
            metrics,
        }
    }

    /// Reads events into a batch. No database is asked.
    pub fn read<'a>(&self, events: impl IntoIterator<Item = &'a Event>) -> Batch<'a> {
        Batch::read(events, &self.config.rules)
    }

    /// Applies what is open in the batch: every event has a verdict afterwards.
    ///
    /// # Errors
    /// The weather. What was committed has its verdict; call again for the rest.
    pub async fn apply(&self, batch: &mut Batch<'_>) -> Result<(), Unavailable> {
        match self.try_apply(batch).await {
            Ok(()) => {
                self.note_instance_of(batch).await;
                Ok(())
            }
            Err(unavailable) => Err(self.explained(unavailable).await),
        }
    }

    async fn try_apply(&self, batch: &mut Batch<'_>) -> Result<(), Unavailable> {
        let locked = self.locked_users();
        let (mut alone, mut together) = batch.open_apart(&locked);
        while !together.is_empty() {
            match self
                .try_together(batch, &together, DbOperation::ApplyBatch)
                .await?
            {
                Ok(()) => break,
                Err(Blame::Someone) => {
                    alone.append(&mut together);
                }
                Err(Blame::Users(clerk_ids)) => {
                    let accused = |index: &usize| {
                        let clerk_id = batch.understood(*index).clerk_id();
                        clerk_id.is_some_and(|id| clerk_ids.iter().any(|accused| accused == id))
                    };
                    let (mut guilty, rest) = together.into_iter().partition::<Vec<_>, _>(accused);
                    alone.append(&mut guilty);
                    together = rest;
                }
            }
        }
        // Users found locked just now: their other events need not be tried.
        let mut postponed = HashMap::new();
        for index in alone {
            let clerk_id = batch.understood(index).clerk_id().map(str::to_owned);
            let known = clerk_id.as_ref().and_then(|id| postponed.get(id));
            if let Some(verdict) = known.cloned() {
                batch.decide(index, verdict);
                continue;
            }
            // Others must not wait long behind many users who are locked.
            let was_locked = clerk_id.as_ref().is_some_and(|id| locked.contains(id));
            let lock_timeout = if was_locked || postponed.len() >= MOST_WAITED_FOR {
                LockTimeout::Brief
            } else {
                LockTimeout::Short
            };
            let verdict = self.apply_one(batch, index, lock_timeout).await?;
            if let Some(clerk_id) = clerk_id {
                let is_locked = matches!(verdict, Verdict::Postpone(_));
                if is_locked && postponed.is_empty() {
                    // Rows, or a whole table? A table that is held keeps everybody waiting.
                    self.may_write().await?;
                }
                self.note_locked(&clerk_id, is_locked);
                if is_locked {
                    postponed.insert(clerk_id, verdict.clone());
                }
            }
            batch.decide(index, verdict);
        }
        Ok(())
    }

    fn locked_users(&self) -> HashSet<String> {
        self.locked_users
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn note_locked(&self, clerk_id: &str, is_locked: bool) {
        let users = self.locked_users.lock();
        let mut users = users.unwrap_or_else(PoisonError::into_inner);
        if !is_locked {
            users.remove(clerk_id);
        } else if users.insert(clerk_id.to_owned()) && users.len() > MOST_LOCKED {
            users.clear();
        }
    }

    /// One event in its own transaction: whatever fails now is its own fault, or that of whoever
    /// holds its user's row.
    async fn apply_one(
        &self,
        batch: &Batch<'_>,
        index: usize,
        lock_timeout: LockTimeout,
    ) -> Result<Verdict, Unavailable> {
        let applied = self
            .transact(batch, &[index], DbOperation::ApplyOne, lock_timeout)
            .await;
        let verdict = match applied {
            Ok(outcomes) => Verdict::Applied(outcomes[0]),
            Err(TransactionError::Unavailable(weather)) => return Err(weather),
            Err(TransactionError::Contention(Contention::Aborted(what))) => {
                return Err(Unavailable(what));
            }
            Err(TransactionError::Contention(Contention::LockTimeout(what))) => {
                Verdict::Postpone(Failure::new(Reason::RowLocked, what))
            }
            Err(
                TransactionError::Contention(Contention::Email) | TransactionError::EmailTaken(_),
            ) => Verdict::Retry(Failure::new(
                Reason::EmailTaken,
                "the address belongs to a row of `users` that the sync has never written",
            )),
            Err(TransactionError::Refused(Refusal {
                failure,
                curable: true,
            })) => Verdict::Retry(failure),
            Err(TransactionError::Refused(Refusal {
                failure,
                curable: false,
            })) => Verdict::DeadLetter(failure),
        };
        Ok(verdict)
    }

    /// Asks for the locks that every write needs on its tables.
    async fn may_write(&self) -> Result<(), Unavailable> {
        let asked = bounded(async {
            let tx = Tx::begin(&self.db, LockTimeout::Short).await?;
            tx.lock_tables().await
        });
        match asked.await {
            Err(TransactionError::Unavailable(weather)) => Err(weather),
            Err(TransactionError::Contention(Contention::LockTimeout(what))) => {
                Err(Unavailable(format!("{what}: somebody holds a table")))
            }
            // Given, or refused for another reason: nobody holds the tables.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    async fn try_together(
        &self,
        batch: &mut Batch<'_>,
        together: &[usize],
        operation: DbOperation,
    ) -> Result<Result<(), Blame>, Unavailable> {
        match self
            .transact(batch, together, operation, LockTimeout::Long)
            .await
        {
            Ok(outcomes) => {
                for (index, outcome) in together.iter().zip(outcomes) {
                    batch.decide(*index, Verdict::Applied(outcome));
                }
                Ok(Ok(()))
            }
            Err(TransactionError::Unavailable(weather)) => Err(weather),
            Err(TransactionError::Contention(Contention::Aborted(what))) => Err(Unavailable(what)),
            Err(TransactionError::EmailTaken(clerk_ids)) => Ok(Err(Blame::Users(clerk_ids))),
            Err(
                TransactionError::Contention(Contention::Email | Contention::LockTimeout(_))
                | TransactionError::Refused(_),
            ) => Ok(Err(Blame::Someone)),
        }
    }

    /// A transaction, again while it loses against others.
    async fn transact(
        &self,
        batch: &Batch<'_>,
        indices: &[usize],
        operation: DbOperation,
        lock_timeout: LockTimeout,
    ) -> Result<Vec<Outcome>, TransactionError> {
        let mut backoff = Backoff::contention();
        let mut tries = 0;
        loop {
            let result = bounded(self.transaction(batch, indices, lock_timeout)).await;
            let (label, again) = match &result {
                Ok(_) => (DbResult::Ok, false),
                // It has waited already.
                Err(TransactionError::Contention(Contention::LockTimeout(_))) => {
                    (DbResult::Contention, false)
                }
                Err(TransactionError::Contention(_)) => (DbResult::Contention, true),
                Err(TransactionError::Unavailable(_)) => (DbResult::Unavailable, false),
                Err(TransactionError::Refused(_) | TransactionError::EmailTaken(_)) => {
                    (DbResult::Refused, false)
                }
            };
            self.metrics.db_operations.get(operation, label).inc();
            tries += 1;
            if !again || tries == CONTENTION_TRIES {
                return result;
            }
            sleep(backoff.next_delay()).await;
        }
    }

    /// One transaction. Returns the outcomes in the order of `indices`.
    async fn transaction(
        &self,
        batch: &Batch<'_>,
        indices: &[usize],
        lock_timeout: LockTimeout,
    ) -> Result<Vec<Outcome>, TransactionError> {
        let tx = Tx::begin(&self.db, lock_timeout).await?;
        let outcomes = self.within(&tx, batch, indices).await?;
        tx.commit().await?;
        Ok(outcomes)
    }

    /// Whether the database would take this event now: all of its statements, rolled back. A
    /// database that can be read but not written (a standby, a full disk, a missing grant) looks
    /// well to a mere question.
    ///
    /// # Errors
    /// The weather. An event that is refused, or that takes long while the database answers others
    /// promptly, says nothing of the weather.
    pub async fn would_take(&self, event: &Event) -> Result<(), Unavailable> {
        let batch = self.read([event]);
        let open = batch.open();
        let rehearse = async {
            let tx = Tx::begin(&self.db, LockTimeout::Short).await?;
            if open.is_empty() {
                Ok(Vec::new())
            } else {
                self.within(&tx, &batch, &open).await
            }
        };
        match timeout(ANSWER_WITHIN, rehearse).await {
            Ok(Err(TransactionError::Unavailable(weather))) => Err(self.explained(weather).await),
            Ok(Ok(_) | Err(_)) => {
                self.ping().await?;
                self.may_write().await
            }
            Err(_) => timeout(PROMPT, self.ping()).await.unwrap_or_else(|_| {
                let cause = format!("no answer within {PROMPT:?}");
                Err(Unavailable(cause))
            }),
        }
    }

    /// The whole of it: claim in the ledger, advance the versions, move addresses, delete, upsert,
    /// grant. The number of statements does not grow with the batch.
    async fn within(
        &self,
        tx: &Tx,
        batch: &Batch<'_>,
        indices: &[usize],
    ) -> Result<Vec<Outcome>, TransactionError> {
        let now = Utc::now();
        if batch.is_fetched() {
            return self.within_unrecorded(tx, batch, indices, now).await;
        }

        let firsts = first_of_each_id(batch, indices);
        let expected = expected_outcomes(batch, &firsts);
        let claimed = tx.claim(batch, &firsts, &expected, now).await?;
        let fresh = || {
            let first = |index: &&usize| claimed.contains(batch.event(**index).id.as_str());
            firsts.iter().filter(first).copied()
        };
        let mut outcomes: HashMap<usize, Outcome> = fresh()
            .map(|index| {
                let ignored = matches!(batch.understood(index).change, Change::Ignore);
                (
                    index,
                    if ignored {
                        Outcome::Ignored
                    } else {
                        Outcome::Stale
                    },
                )
            })
            .collect();

        let candidates = reduce::winners(fresh().map(|index| (index, batch.understood(index))));
        if !candidates.is_empty() {
            let alone = indices.len() == 1;
            let written = self.write(tx, batch, candidates, alone, now).await?;
            outcomes.extend(written);
        }

        let corrections: Vec<(&str, &str)> = fresh()
            .filter(|index| outcomes[index] != expected[index])
            .map(|index| (batch.event(index).id.as_str(), outcomes[&index].as_str()))
            .collect();
        if !corrections.is_empty() {
            tx.execute(&processed_events::set_outcomes(tx.backend(), &corrections))
                .await?;
        }

        let outcome = |index: &usize| outcomes.get(index).copied().unwrap_or(Outcome::Duplicate);
        Ok(indices.iter().map(outcome).collect())
    }

    /// Applies one winner per user; returns the outcomes of those that won against what is held,
    /// and of snapshots that repair what is held, or equal it.
    pub(crate) async fn write(
        &self,
        tx: &Tx,
        batch: &Batch<'_>,
        candidates: BTreeMap<&str, Winner<'_>>,
        alone: bool,
        now: DateTime<Utc>,
    ) -> Result<Vec<(usize, Outcome)>, TransactionError> {
        let claims = Claims::of(&candidates);
        let holders = tx.holders(&claims).await?;
        let foreign: Vec<&users::Holder> = holders
            .iter()
            .filter(|holder| claims.by_others(holder))
            .collect();
        let unmanaged = unmanaged_claims(&foreign, &candidates);
        if !unmanaged.is_empty() && !alone {
            return Err(TransactionError::EmailTaken(unmanaged));
        }

        let locked: BTreeSet<&str> = foreign
            .iter()
            .filter(|holder| holder.updated_at_ms.is_some())
            .map(|holder| holder.clerk_id.as_str())
            .filter(|clerk_id| !candidates.contains_key(clerk_id))
            .collect();
        let won = tx.advance(&candidates, &locked, now).await?;
        let Compared { current, repairs } = if batch.is_fetched() {
            Compared::with_held(tx, batch, &candidates, &won, &holders).await?
        } else {
            Compared::default()
        };
        let winners: BTreeMap<&str, &Winner<'_>> = candidates
            .iter()
            .filter(|(clerk_id, _)| won.contains(**clerk_id) || repairs.contains(**clerk_id))
            .map(|(clerk_id, winner)| (*clerk_id, winner))
            .collect();
        let current = current.into_iter().map(|index| (index, Outcome::Duplicate));
        if winners.is_empty() {
            return Ok(current.collect());
        }
        if unmanaged
            .iter()
            .any(|clerk_id| winners.contains_key(clerk_id.as_str()))
        {
            return Err(TransactionError::EmailTaken(unmanaged));
        }

        if winners.values().any(|winner| winner.lacks_email()) {
            return Err(TransactionError::Refused(Refusal {
                failure: Failure::new(
                    Reason::MissingEmail,
                    "the user has no address, and MISSING_EMAIL=dead-letter",
                ),
                curable: false,
            }));
        }

        // Rows of the holders are locked now, by their versions: what they hold, and how new it
        // is, is read again.
        let holders = if foreign.is_empty() {
            Vec::new()
        } else {
            tx.holders(&claims).await?
        };
        // A candidate that lost was locked by the comparison.
        let is_locked =
            |clerk_id: &str| candidates.contains_key(clerk_id) || locked.contains(clerk_id);
        let seats = Seats::assign(&winners, &holders, is_locked)?;

        let gone: Vec<&str> = winners
            .iter()
            .filter(|(_, winner)| matches!(winner.goal, Goal::Gone))
            .map(|(clerk_id, _)| *clerk_id)
            .collect();
        if !gone.is_empty() {
            tx.execute_step(&users::delete(tx.backend(), &gone), Step::Delete)
                .await?;
        }
        if !seats.released.is_empty() {
            let released: Vec<&str> = seats.released.iter().copied().collect();
            tx.execute(&users::release(tx.backend(), &released)).await?;
        }
        let created = self.upsert(tx, &winners, &seats, now).await?;
        self.metrics.email_reassignments.inc_by(seats.reassigned);

        let outcome = |(clerk_id, winner): (&&str, &&Winner<'_>)| {
            let outcome = match winner.goal {
                Goal::Gone => Outcome::Deleted,
                Goal::Row(..) if created.contains(*clerk_id) => Outcome::Created,
                Goal::Row(..) => Outcome::Updated,
            };
            (winner.index, outcome)
        };
        Ok(winners.iter().map(outcome).chain(current).collect())
    }

    /// Writes the rows; returns the Clerk ids of those that were not there before.
    async fn upsert(
        &self,
        tx: &Tx,
        winners: &BTreeMap<&str, &Winner<'_>>,
        seats: &Seats<'_>,
        now: DateTime<Utc>,
    ) -> Result<HashSet<String>, TransactionError> {
        let mut ids = HashMap::new();
        let mut rows = Vec::new();
        for (clerk_id, winner) in winners {
            let (Goal::Row(snapshot, _), Some(email)) = (winner.goal, winner.email()) else {
                continue;
            };
            let id = cuid::cuid1();
            ids.insert(*clerk_id, id.clone());
            rows.push(users::Model {
                id,
                clerk_id: snapshot.clerk_id.clone(),
                email: if seats.without.contains(clerk_id) {
                    user::reassigned(clerk_id)
                } else {
                    email.to_owned()
                },
                name: snapshot.name.clone(),
                image_url: snapshot.image_url.clone(),
                created_at: snapshot.created_at,
                updated_at: snapshot.updated_at,
            });
        }
        if rows.is_empty() {
            return Ok(HashSet::new());
        }
        let mut created = HashSet::new();
        let mut granted = Vec::new();
        for row in tx.query(&users::upsert(tx.backend(), rows)).await? {
            let id: String = row.try_get_by_index(0)?;
            let clerk_id: String = row.try_get_by_index(1)?;
            // The id of a row that was there is its own: ids never change.
            if ids.get(clerk_id.as_str()) == Some(&id) {
                created.insert(clerk_id);
                granted.push(id);
            }
        }
        if self.config.initial_credits > 0 && !granted.is_empty() {
            let grant = |user_id| credits::Model {
                id: cuid::cuid1(),
                user_id,
                amount: self.config.initial_credits,
                created_at: now.naive_utc(),
                updated_at: now.naive_utc(),
            };
            tx.execute(&credits::grant(granted.into_iter().map(grant)))
                .await?;
        }
        Ok(created)
    }
}

/// Who may be at fault when a batch is refused.
enum Blame {
    /// Any of them.
    Someone,
    /// Events of these users.
    Users(Vec<String>),
}
