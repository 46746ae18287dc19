//! A batch, applied: one transaction for all of it, or, when some event is refused, one for each
//! event that could be the one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use clerk_sync_entity::{credits, processed_events, user_versions, users};
use clerk_sync_pipeline::{
    Event, Millis,
    queue::{Failure, Reason},
    retry::Backoff,
    telemetry::{DbOperation, DbResult, Label as _, Metrics, Outcome},
};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, FromQueryResult,
    SqliteTransactionMode, TransactionOptions, TransactionTrait,
    sea_query::{Expr, Query},
};
use tokio::time::{sleep, timeout};

use crate::{
    change::{self, Change, Read, Rules},
    failure::{Contention, Refusal, Step, TransactionError, Unavailable},
    reduce::{self, Goal, Winner},
    user,
    version::Version,
};

/// How often a transaction is tried against others before that counts as weather.
const CONTENTION_TRIES: usize = 5;
/// Longest time for one transaction. What takes longer has lost its connection, or is stuck
/// behind somebody's lock; the batch is tried again.
const TRANSACTION_TIMEOUT: Duration = Duration::from_mins(1);
/// Rows pruned from the ledger in one statement.
const PRUNE_CHUNK: u64 = 1000;

/// Applies events to the database. Cloning shares the pool.
#[derive(Clone)]
pub struct Projection {
    db: DatabaseConnection,
    config: Arc<ProjectionConfig>,
    metrics: Arc<Metrics>,
}

/// How events become rows.
#[derive(Clone, Debug, Default)]
pub struct ProjectionConfig {
    /// How events are read.
    pub rules: Rules,
    /// Credits granted to a new user, once, with its row. 0 grants none and makes no row.
    pub initial_credits: i32,
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Committed, or nothing to do.
    Applied(Outcome),
    /// Time may cure it.
    Retry(Failure),
    /// Nothing will.
    DeadLetter(Failure),
}

/// Events that are applied together, and what has become of each so far. A batch that was
/// interrupted by the weather goes on where it stopped.
pub struct Batch<'a> {
    members: Vec<Member<'a>>,
}

struct Member<'a> {
    event: &'a Event,
    read: Option<Read>,
    verdict: Option<Verdict>,
}

impl<'a> Batch<'a> {
    /// Reads every event. What cannot be read has its verdict already.
    fn read(events: impl IntoIterator<Item = &'a Event>, rules: &Rules) -> Self {
        let member = |event| match change::read(event, rules) {
            Ok(read) => Member {
                event,
                read: Some(read),
                verdict: None,
            },
            Err(failure) => Member {
                event,
                read: None,
                verdict: Some(Verdict::DeadLetter(failure)),
            },
        };
        Self {
            members: events.into_iter().map(member).collect(),
        }
    }

    /// The verdicts, in the order of the events, with Clerk's time of each event.
    ///
    /// # Panics
    /// [`Projection::apply`] has not succeeded.
    #[must_use]
    pub fn into_verdicts(self) -> Vec<(Verdict, Option<Millis>)> {
        let verdict = |member: Member<'_>| {
            let verdict = member.verdict.expect("an applied batch has every verdict");
            (verdict, member.read.and_then(|read| read.occurred_at))
        };
        self.members.into_iter().map(verdict).collect()
    }

    fn open(&self) -> Vec<usize> {
        let is_open = |index: &usize| self.members[*index].verdict.is_none();
        (0..self.members.len()).filter(is_open).collect()
    }

    fn understood(&self, index: usize) -> &Read {
        self.members[index]
            .read
            .as_ref()
            .expect("an open event was understood")
    }
}

impl Projection {
    /// Writes to `db`.
    #[must_use]
    pub fn new(db: DatabaseConnection, config: ProjectionConfig, metrics: Arc<Metrics>) -> Self {
        Self {
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
        let mut together = batch.open();
        let mut alone = Vec::new();
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
        for index in alone {
            self.apply_one(batch, index).await?;
        }
        Ok(())
    }

    /// One event in its own transaction: whatever fails now is its own fault.
    async fn apply_one(&self, batch: &mut Batch<'_>, index: usize) -> Result<(), Unavailable> {
        let verdict = match self.transact(batch, &[index], DbOperation::ApplyOne).await {
            Ok(outcomes) => Verdict::Applied(outcomes[0]),
            Err(TransactionError::Unavailable(weather)) => return Err(weather),
            Err(TransactionError::Contention(Contention::Lock(what))) => {
                return Err(Unavailable(what));
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
        batch.members[index].verdict = Some(verdict);
        Ok(())
    }

    async fn try_together(
        &self,
        batch: &mut Batch<'_>,
        together: &[usize],
        operation: DbOperation,
    ) -> Result<Result<(), Blame>, Unavailable> {
        match self.transact(batch, together, operation).await {
            Ok(outcomes) => {
                for (index, outcome) in together.iter().zip(outcomes) {
                    batch.members[*index].verdict = Some(Verdict::Applied(outcome));
                }
                Ok(Ok(()))
            }
            Err(TransactionError::Unavailable(weather)) => Err(weather),
            Err(TransactionError::Contention(Contention::Lock(what))) => Err(Unavailable(what)),
            Err(TransactionError::EmailTaken(clerk_ids)) => Ok(Err(Blame::Users(clerk_ids))),
            Err(TransactionError::Contention(Contention::Email) | TransactionError::Refused(_)) => {
                Ok(Err(Blame::Someone))
            }
        }
    }

    /// A transaction, again while it loses against others.
    async fn transact(
        &self,
        batch: &Batch<'_>,
        indices: &[usize],
        operation: DbOperation,
    ) -> Result<Vec<Outcome>, TransactionError> {
        let mut backoff = Backoff::contention();
        let mut tries = 0;
        loop {
            let result = timeout(TRANSACTION_TIMEOUT, self.transaction(batch, indices))
                .await
                .unwrap_or_else(|_| {
                    let what = format!("no answer within {TRANSACTION_TIMEOUT:?}");
                    Err(TransactionError::Unavailable(Unavailable(what)))
                });
            let (label, again) = match &result {
                Ok(_) => (DbResult::Ok, false),
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

    /// The whole of it: claim in the ledger, advance the versions, move addresses, delete, upsert,
    /// grant, commit. The number of statements does not grow with the batch. Returns the outcomes
    /// in the order of `indices`.
    async fn transaction(
        &self,
        batch: &Batch<'_>,
        indices: &[usize],
    ) -> Result<Vec<Outcome>, TransactionError> {
        let tx = Tx(self.begin().await?);
        let now = Utc::now();

        let firsts = first_of_each_id(batch, indices);
        let expected = expected_outcomes(batch, &firsts);
        let claimed = tx.claim(batch, &firsts, &expected, now).await?;
        let fresh = || {
            let first = |index: &&usize| claimed.contains(batch.members[**index].event.id.as_str());
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
            let written = self.write(&tx, candidates, alone, now).await?;
            outcomes.extend(written);
        }

        let corrections: Vec<(&str, &str)> = fresh()
            .filter(|index| outcomes[index] != expected[index])
            .map(|index| {
                (
                    batch.members[index].event.id.as_str(),
                    outcomes[&index].as_str(),
                )
            })
            .collect();
        if !corrections.is_empty() {
            tx.execute(&processed_events::set_outcomes(tx.backend(), &corrections))
                .await?;
        }
        tx.0.commit()
            .await
            .map_err(|error| TransactionError::of(&error, Step::Other))?;

        let outcome = |index: &usize| outcomes.get(index).copied().unwrap_or(Outcome::Duplicate);
        Ok(indices.iter().map(outcome).collect())
    }

    /// Applies one winner per user; returns the outcomes of those that won against what is held.
    async fn write(
        &self,
        tx: &Tx,
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
        let winners: BTreeMap<&str, &Winner<'_>> = candidates
            .iter()
            .filter(|(clerk_id, _)| won.contains(**clerk_id))
            .map(|(clerk_id, winner)| (*clerk_id, winner))
            .collect();
        if winners.is_empty() {
            return Ok(Vec::new());
        }
        if unmanaged
            .iter()
            .any(|clerk_id| winners.contains_key(clerk_id.as_str()))
        {
            return Err(TransactionError::EmailTaken(unmanaged));
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
            tx.execute_step(&users::delete(&gone), Step::Delete).await?;
        }
        if !seats.released.is_empty() {
            let released: Vec<&str> = seats.released.iter().copied().collect();
            tx.execute(&users::release(&released)).await?;
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
        Ok(winners.iter().map(outcome).collect())
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
            let Goal::Row(snapshot, _) = winner.goal else {
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
                    snapshot.email.clone()
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
        for row in tx.query(&users::upsert(rows)).await? {
            let id: String = row.try_get_by_index(0).map_err(unexpected)?;
            let clerk_id: String = row.try_get_by_index(1).map_err(unexpected)?;
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

    async fn begin(&self) -> Result<DatabaseTransaction, TransactionError> {
        let begun = match self.db.get_database_backend() {
            // A deferred transaction that reads first could fail to become a writer.
            DbBackend::Sqlite => {
                let options = TransactionOptions {
                    sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
                    ..TransactionOptions::default()
                };
                self.db.begin_with_options(options).await
            }
            // READ COMMITTED is enough: guards are checked again under the row's lock.
            _ => self.db.begin().await,
        };
        begun.map_err(|error| TransactionError::of(&error, Step::Other))
    }

    /// Writes down events that were put aside, `retried` or `dead_lettered`, so that the ledger
    /// has them. Such a row does not make a later delivery of the event a duplicate.
    ///
    /// # Errors
    /// The weather.
    pub async fn record(&self, events: &[(&Event, Outcome)]) -> Result<(), Unavailable> {
        let now = Utc::now();
        let mut rows: BTreeMap<&str, processed_events::Row> = BTreeMap::new();
        for (event, outcome) in events {
            let read = change::read(event, &self.config.rules).ok();
            rows.insert(
                event.id.as_str(),
                ledger_row(event, read.as_ref(), *outcome, now),
            );
        }
        if rows.is_empty() {
            return Ok(());
        }
        let claim = processed_events::claim(self.db.get_database_backend(), rows.into_values());
        let recorded = timeout(TRANSACTION_TIMEOUT, self.db.execute(&claim)).await;
        self.count(DbOperation::Record, matches!(recorded, Ok(Ok(_))));
        let Ok(recorded) = recorded else {
            return Err(Unavailable(format!(
                "no answer within {TRANSACTION_TIMEOUT:?}"
            )));
        };
        match recorded.map_err(|error| TransactionError::of(&error, Step::Other)) {
            Ok(_) => Ok(()),
            Err(TransactionError::Unavailable(weather)) => Err(weather),
            Err(TransactionError::Contention(race)) => Err(Unavailable(format!("{race:?}"))),
            Err(TransactionError::Refused(Refusal { failure, .. })) => {
                // Nothing rests on this row; the event itself must go on its way.
                tracing::warn!(
                    cause = failure.detail,
                    "the ledger refuses to note failed events"
                );
                Ok(())
            }
            Err(TransactionError::EmailTaken(_)) => unreachable!("no address is claimed here"),
        }
    }

    /// Removes ledger rows older than `before`, in chunks, until none is left. Returns how many.
    ///
    /// # Errors
    /// The weather.
    pub async fn prune(&self, before: DateTime<Utc>) -> Result<u64, Unavailable> {
        let backend = self.db.get_database_backend();
        let mut pruned = 0;
        loop {
            let chunk = processed_events::prune(backend, before, PRUNE_CHUNK);
            let result = self.db.execute(&chunk).await;
            self.count(DbOperation::Prune, result.is_ok());
            let removed = result
                .map_err(|error| Unavailable(error.to_string()))?
                .rows_affected();
            pruned += removed;
            if removed < PRUNE_CHUNK {
                return Ok(pruned);
            }
            // The ledger is written by everyone; leave room between the chunks.
            tokio::task::yield_now().await;
        }
    }

    /// Asks whether the database is there, with the tables that every batch needs.
    ///
    /// # Errors
    /// It is not, or the tables are not: the text names the command that makes them.
    pub async fn ping(&self) -> Result<(), Unavailable> {
        let backend = self.db.get_database_backend();
        let mut look = Query::select();
        look.expr(Expr::val(1))
            .from(users::Entity)
            .from(user_versions::table(backend))
            .from(processed_events::table(backend))
            .limit(0);
        if self.config.initial_credits > 0 {
            look.from(credits::Entity);
        }
        let answer = self.db.query_all(&look).await;
        self.count(DbOperation::Ping, answer.is_ok());
        match answer.map_err(|error| TransactionError::of(&error, Step::Other)) {
            Ok(_) => Ok(()),
            Err(TransactionError::Unavailable(weather)) => Err(weather),
            Err(other) => Err(Unavailable(format!("{other:?}"))),
        }
    }

    fn count(&self, operation: DbOperation, ok: bool) {
        let result = if ok {
            DbResult::Ok
        } else {
            DbResult::Unavailable
        };
        self.metrics.db_operations.get(operation, result).inc();
    }
}

/// Who may be at fault when a batch is refused.
enum Blame {
    /// Any of them.
    Someone,
    /// Events of these users.
    Users(Vec<String>),
}

impl<'a> Winner<'a> {
    fn email(&self) -> Option<&'a str> {
        match self.goal {
            Goal::Row(snapshot, _) => Some(&snapshot.email),
            Goal::Gone => None,
        }
    }
}

/// The addresses that a batch claims, each with its claimant, or `None` when there are several.
struct Claims<'a>(BTreeMap<&'a str, Option<&'a str>>);

impl<'a> Claims<'a> {
    fn of(candidates: &BTreeMap<&'a str, Winner<'a>>) -> Self {
        let mut claims = BTreeMap::new();
        for (clerk_id, winner) in candidates {
            let Some(email) = winner.email() else {
                continue;
            };
            claims
                .entry(email)
                .and_modify(|claimant| *claimant = None)
                .or_insert(Some(*clerk_id));
        }
        Self(claims)
    }

    /// Whether somebody else than the holder claims its address.
    fn by_others(&self, holder: &users::Holder) -> bool {
        let claimant = self.0.get(holder.email.as_str());
        claimant.is_some_and(|claimant| *claimant != Some(holder.clerk_id.as_str()))
    }
}

/// Who sits on which address after this batch.
struct Seats<'a> {
    /// Rows that lose their address before the upsert: uniqueness is checked row by row, so an
    /// address must be free before another row takes it.
    released: BTreeSet<&'a str>,
    /// Winners that get a placeholder: a newer user holds their address.
    without: HashSet<&'a str>,
    /// How many placeholders that makes.
    reassigned: u64,
}

impl<'a> Seats<'a> {
    /// In Clerk an address has one owner at a time, so of two claimants the newer one is right and
    /// the older one's snapshot is out of date.
    ///
    /// `holders` are those of the claimed addresses, read after the rows for which `is_locked` were locked.
    fn assign(
        winners: &BTreeMap<&'a str, &Winner<'a>>,
        holders: &'a [users::Holder],
        is_locked: impl Fn(&str) -> bool,
    ) -> Result<Self, TransactionError> {
        let mut seats = Self {
            released: BTreeSet::new(),
            without: HashSet::new(),
            reassigned: 0,
        };
        // Among the winners themselves.
        let mut claims: HashMap<&str, (&'a str, &Version)> = HashMap::new();
        for (clerk_id, winner) in winners {
            let Goal::Row(snapshot, version) = winner.goal else {
                continue;
            };
            match claims.get(snapshot.email.as_str()) {
                Some((_, best)) if *best > version => {
                    seats.without.insert(clerk_id);
                }
                best => {
                    seats.without.extend(best.map(|(older, _)| *older));
                    claims.insert(&snapshot.email, (clerk_id, version));
                }
            }
        }
        seats.reassigned += seats.without.len() as u64;
        // Against the rows that are there.
        for holder in holders {
            let Some((claimant, version)) = claims.get(holder.email.as_str()) else {
                continue;
            };
            if holder.clerk_id == *claimant {
                continue;
            }
            match winners
                .get(holder.clerk_id.as_str())
                .map(|winner| winner.goal)
            {
                // It goes anyway.
                Some(Goal::Gone) => {}
                // It moves to another address, or lost this one to the claimant above.
                Some(Goal::Row(..)) => {
                    seats.released.insert(&holder.clerk_id);
                }
                None if !is_locked(&holder.clerk_id) => {
                    // It came by the address between two statements.
                    return Err(TransactionError::Contention(Contention::Email));
                }
                None if newer_than(holder, version) => {
                    seats.without.insert(claimant);
                    seats.reassigned += 1;
                }
                None => {
                    seats.released.insert(&holder.clerk_id);
                    seats.reassigned += 1;
                }
            }
        }
        Ok(seats)
    }
}

fn newer_than(holder: &users::Holder, version: &Version) -> bool {
    let held = (
        holder.updated_at_ms.unwrap_or(i64::MIN),
        holder.occurred_at_ms.unwrap_or(i64::MIN),
        holder.event_id.as_deref().unwrap_or_default(),
    );
    held > (
        version.updated_at.0,
        version.occurred_at.0,
        version.event_id.as_str(),
    )
}

/// The users that claim an address of a row that the sync has never written, and that no event of
/// this batch makes ours.
fn unmanaged_claims(
    foreign: &[&users::Holder],
    candidates: &BTreeMap<&str, Winner<'_>>,
) -> Vec<String> {
    let unmanaged: HashSet<&str> = foreign
        .iter()
        .filter(|holder| holder.updated_at_ms.is_none())
        .filter(|holder| !candidates.contains_key(holder.clerk_id.as_str()))
        .map(|holder| holder.email.as_str())
        .collect();
    let claims_one = |winner: &Winner<'_>| winner.email().is_some_and(|e| unmanaged.contains(e));
    candidates
        .iter()
        .filter(|(_, winner)| claims_one(winner))
        .map(|(clerk_id, _)| (*clerk_id).to_owned())
        .collect()
}

/// The first index of each event id: the same delivery twice in one batch is one event.
fn first_of_each_id(batch: &Batch<'_>, indices: &[usize]) -> Vec<usize> {
    let mut seen = HashSet::with_capacity(indices.len());
    let id = |index: &usize| batch.members[*index].event.id.as_str();
    let mut firsts: Vec<usize> = indices
        .iter()
        .copied()
        .filter(|index| seen.insert(id(index)))
        .collect();
    // Every worker claims in one order, so two with the same events wait for each other instead of
    // deadlocking.
    firsts.sort_unstable_by(|a, b| id(a).cmp(id(b)));
    firsts
}

/// What most likely becomes of each event: written with the claim, so that the ledger needs a
/// second statement only where the guess was wrong.
fn expected_outcomes(batch: &Batch<'_>, indices: &[usize]) -> HashMap<usize, Outcome> {
    let winners = reduce::winners(
        indices
            .iter()
            .map(|index| (*index, batch.understood(*index))),
    );
    let expect = |index: &usize| {
        let read = batch.understood(*index);
        let wins = read
            .clerk_id()
            .and_then(|clerk_id| winners.get(clerk_id))
            .is_some_and(|winner| winner.index == *index);
        let outcome = match (&read.change, wins) {
            (Change::Ignore, _) => Outcome::Ignored,
            (_, false) => Outcome::Stale,
            (Change::Delete { .. }, true) => Outcome::Deleted,
            (Change::Upsert(..), true) => match batch.members[*index].event.event_type.as_str() {
                "user.created" => Outcome::Created,
                _ => Outcome::Updated,
            },
        };
        (*index, outcome)
    };
    indices.iter().map(expect).collect()
}

fn ledger_row(
    event: &Event,
    read: Option<&Read>,
    outcome: Outcome,
    now: DateTime<Utc>,
) -> processed_events::Row {
    processed_events::Row {
        event_id: event.id.as_str().to_owned(),
        event_type: event.event_type.as_str().to_owned(),
        subject: read.and_then(Read::clerk_id).map(str::to_owned),
        occurred_at: read.and_then(|read| read.occurred_at).and_then(utc),
        received_at: utc(event.received_at).unwrap_or(now),
        processed_at: now,
        outcome: outcome.as_str().to_owned(),
    }
}

/// A moment that both databases can hold: the years 1 to 9999.
fn utc(millis: Millis) -> Option<DateTime<Utc>> {
    use chrono::Datelike as _;
    DateTime::from_timestamp_millis(millis.0).filter(|time| (1..=9999).contains(&time.year()))
}

fn unexpected(error: DbErr) -> TransactionError {
    TransactionError::of(&error, Step::Other)
}

/// A transaction whose errors are sorted.
struct Tx(DatabaseTransaction);

impl Tx {
    fn backend(&self) -> DbBackend {
        self.0.get_database_backend()
    }

    async fn execute(
        &self,
        statement: &impl sea_orm::StatementBuilder,
    ) -> Result<(), TransactionError> {
        self.execute_step(statement, Step::Other).await
    }

    async fn execute_step(
        &self,
        statement: &impl sea_orm::StatementBuilder,
        step: Step,
    ) -> Result<(), TransactionError> {
        let executed = self.0.execute(statement).await;
        executed
            .map(drop)
            .map_err(|error| TransactionError::of(&error, step))
    }

    async fn query(
        &self,
        statement: &impl sea_orm::StatementBuilder,
    ) -> Result<Vec<sea_orm::QueryResult>, TransactionError> {
        self.0.query_all(statement).await.map_err(unexpected)
    }

    /// Ids of a statement that returns one text column.
    async fn ids(
        &self,
        statement: &impl sea_orm::StatementBuilder,
    ) -> Result<HashSet<String>, TransactionError> {
        let rows = self.query(statement).await?;
        rows.iter()
            .map(|row| row.try_get_by_index(0).map_err(unexpected))
            .collect()
    }

    /// Takes the events in the ledger; those not returned were applied before.
    async fn claim(
        &self,
        batch: &Batch<'_>,
        firsts: &[usize],
        expected: &HashMap<usize, Outcome>,
        now: DateTime<Utc>,
    ) -> Result<HashSet<String>, TransactionError> {
        let row = |index: &usize| {
            let event = batch.members[*index].event;
            ledger_row(event, Some(batch.understood(*index)), expected[index], now)
        };
        self.ids(&processed_events::claim(
            self.backend(),
            firsts.iter().map(row),
        ))
        .await
    }

    async fn holders(&self, claims: &Claims<'_>) -> Result<Vec<users::Holder>, TransactionError> {
        if claims.0.is_empty() {
            return Ok(Vec::new());
        }
        let emails: Vec<&str> = claims.0.keys().copied().collect();
        let rows = self.query(&users::holders(self.backend(), &emails)).await?;
        rows.iter()
            .map(|row| users::Holder::from_query_result(row, "").map_err(unexpected))
            .collect()
    }

    /// Advances the versions of the candidates that are newer, and locks those of `locked`, all in
    /// the order of their ids; returns who won.
    async fn advance(
        &self,
        candidates: &BTreeMap<&str, Winner<'_>>,
        locked: &BTreeSet<&str>,
        now: DateTime<Utc>,
    ) -> Result<HashSet<String>, TransactionError> {
        let mut rows: BTreeMap<&str, user_versions::Row> = locked
            .iter()
            .map(|clerk_id| (*clerk_id, user_versions::Row::lock_only(*clerk_id)))
            .collect();
        for (clerk_id, winner) in candidates {
            let row = match winner.goal {
                Goal::Row(_, version) => user_versions::Row {
                    clerk_id: (*clerk_id).to_owned(),
                    updated_at_ms: version.updated_at.0,
                    occurred_at_ms: version.occurred_at.0,
                    event_id: version.event_id.as_str().to_owned(),
                    deleted_at: None,
                },
                Goal::Gone => user_versions::Row {
                    deleted_at: Some(now),
                    ..user_versions::Row::lock_only(*clerk_id)
                },
            };
            rows.insert(clerk_id, row);
        }
        self.ids(&user_versions::advance(self.backend(), rows.into_values()))
            .await
    }
}
