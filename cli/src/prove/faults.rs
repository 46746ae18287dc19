//! What is done to the processes of a run while events are delivered.

use std::{collections::BTreeMap, fmt, ops::Range, time::Duration};

use anyhow::Context as _;
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use sea_orm::{
    ConnectionTrait as _, DatabaseTransaction, DbBackend, SqliteTransactionMode,
    TransactionOptions, TransactionTrait as _,
};
use tokio::{sync::oneshot, time::sleep};

use super::{
    crew::{Crew, Member, Role},
    proxy::{Mode, Proxy},
    report::Progress,
    site::Site,
};

/// Between two faults.
const PAUSE: Range<Duration> = Duration::from_millis(20)..Duration::from_millis(250);
/// How long a connection is silent.
const OUTAGE: Range<Duration> = Duration::from_millis(20)..Duration::from_millis(1200);
/// How long the tables are locked.
const LOCK: Range<Duration> = Duration::from_millis(50)..Duration::from_millis(400);

/// Something that breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// `kill -9` of one process.
    Kill,
    /// `kill -9` of all at once.
    KillAll,
    /// `kill -9` of one that applies, while its batch waits for a lock.
    KillInTransaction,
    /// SIGTERM, and started again.
    Restart,
    /// The sender's connections are cut.
    CutRequests,
    /// The sender's connections are silent for a while, then cut.
    SilenceRequests,
    CutQueue,
    SilenceQueue,
    CutDatabase,
    SilenceDatabase,
}

/// How often each fault struck.
pub(crate) type Struck = BTreeMap<Fault, usize>;

impl Fault {
    const ALL: [Self; 10] = [
        Self::Kill,
        Self::KillAll,
        Self::KillInTransaction,
        Self::Restart,
        Self::CutRequests,
        Self::SilenceRequests,
        Self::CutQueue,
        Self::SilenceQueue,
        Self::CutDatabase,
        Self::SilenceDatabase,
    ];

    /// How often it strikes, compared with the others: what loses events in other systems is tried
    /// most.
    fn weight(self) -> u32 {
        match self {
            Self::Kill | Self::KillInTransaction => 3,
            _ => 1,
        }
    }

    /// The processes that it can strike, by number.
    fn targets(self, crew: &Crew) -> Vec<usize> {
        let touched = |member: &Member| match self {
            Self::Kill | Self::Restart => true,
            // As good as the kill of the only one.
            Self::KillAll => crew.members.len() > 1,
            Self::KillInTransaction => member.role != Role::Ingester,
            _ => self.line(member).is_some(),
        };
        let members = crew.members.iter().enumerate();
        members
            .filter(|(_, member)| touched(member))
            .map(|(number, _)| number)
            .collect()
    }

    /// The connections that it breaks.
    fn line(self, member: &Member) -> Option<&Proxy> {
        match self {
            Self::CutRequests | Self::SilenceRequests => member.front.as_ref(),
            Self::CutQueue | Self::SilenceQueue => member.queue.as_ref(),
            Self::CutDatabase | Self::SilenceDatabase => member.database.as_ref(),
            Self::Kill | Self::KillAll | Self::KillInTransaction | Self::Restart => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill -9 of a process",
            Self::KillAll => "kill -9 of all processes at once",
            Self::KillInTransaction => "kill -9 in the middle of a transaction",
            Self::Restart => "SIGTERM, and started again",
            Self::CutRequests => "requests cut",
            Self::SilenceRequests => "requests held, then cut",
            Self::CutQueue => "queue connections cut",
            Self::SilenceQueue => "queue connections silent, then cut",
            Self::CutDatabase => "database connections cut",
            Self::SilenceDatabase => "database connections silent, then cut",
        })
    }
}

/// Breaks one thing after the other until everything is delivered.
pub(crate) async fn strike(
    crew: &mut Crew,
    site: &Site,
    mut random: StdRng,
    mut delivered: oneshot::Receiver<()>,
    progress: &Progress,
) -> anyhow::Result<Struck> {
    let possible: Vec<(Fault, Vec<usize>)> = Fault::ALL
        .into_iter()
        .map(|fault| (fault, fault.targets(crew)))
        .filter(|(_, targets)| !targets.is_empty())
        .collect();
    let mut struck = Struck::new();
    loop {
        tokio::select! {
            () = sleep(random.random_range(PAUSE)) => {}
            _ = &mut delivered => return Ok(struck),
        }
        crew.check()?;
        let drawn = possible.choose_weighted(&mut random, |(fault, _)| fault.weight());
        let (fault, targets) = drawn.context("nothing can break here")?;
        let target = targets[random.random_range(0..targets.len())];
        progress.say(&fault.to_string());
        inflict(*fault, crew, target, site, &mut random).await?;
        *struck.entry(*fault).or_default() += 1;
    }
}

async fn inflict(
    fault: Fault,
    crew: &mut Crew,
    target: usize,
    site: &Site,
    random: &mut StdRng,
) -> anyhow::Result<()> {
    let outage = random.random_range(OUTAGE);
    let member = &mut crew.members[target];
    match fault {
        Fault::Kill => {
            member.kill().await?;
            member.start(site).await?;
        }
        Fault::KillAll => {
            for member in &mut crew.members {
                member.kill().await?;
            }
            crew.heal(site).await?;
        }
        Fault::KillInTransaction => {
            let lock = lock_tables(site).await?;
            sleep(random.random_range(LOCK)).await;
            member.kill().await?;
            lock.rollback().await?;
            member.start(site).await?;
        }
        Fault::Restart => {
            member.stop().await?;
            member.start(site).await?;
        }
        Fault::CutRequests | Fault::CutQueue | Fault::CutDatabase => {
            if let Some(line) = fault.line(member) {
                line.set(Mode::Closed);
                sleep(outage / 4).await;
                line.set(Mode::Open);
            }
        }
        Fault::SilenceRequests | Fault::SilenceQueue | Fault::SilenceDatabase => {
            if let Some(line) = fault.line(member) {
                line.set(Mode::Silent);
                sleep(outage).await;
                line.set(Mode::Closed);
                sleep(outage / 10).await;
                line.set(Mode::Open);
            }
        }
    }
    Ok(())
}

/// Holds up every batch until the transaction ends.
async fn lock_tables(site: &Site) -> anyhow::Result<DatabaseTransaction> {
    let lock = match site.backend() {
        DbBackend::Sqlite => {
            site.db
                .begin_with_options(TransactionOptions {
                    sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
                    ..TransactionOptions::default()
                })
                .await?
        }
        _ => {
            let lock = site.db.begin().await?;
            lock.execute_unprepared("LOCK TABLE users IN SHARE MODE")
                .await?;
            lock
        }
    };
    Ok(lock)
}
