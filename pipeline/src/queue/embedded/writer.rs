//! The thread that owns the connection: collects the commands that wait, executes them together,
//! and answers after the commit.

use std::{
    fs::File,
    time::{Duration, Instant},
};

use rusqlite::{Connection, TransactionBehavior};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    time::timeout_at,
};

use health::Health;

use super::{Clock, Released, command::Command, file, store};
use crate::{queue::RetryLadder, retry::Backoff, telemetry::QueueConnection};

mod health;

/// Most commands served together: past a hundred the sync is shared well enough, and an answer
/// should not wait for a thousand others.
const GROUP_COMMANDS: usize = 256;
/// Most bytes of bodies served together, give or take one body: what the log takes at once.
const GROUP_BYTES: usize = 8 << 20;
/// How far ready events are counted: as many as a batch holds. Counting costs a step each.
pub(super) const READY_COUNTED: usize = 256;

/// Longest wait before the file is looked at again although nothing is known to come: an operator
/// who replays dead letters is another process, and wakes nobody. A look is two queries that an
/// index answers.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What consumers wait for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ready {
    /// Events ready to be taken, counted up to [`READY_COUNTED`].
    pub(super) count: usize,
    /// When it is worth asking although nothing is ready: the next delay ends, the file may be
    /// writable again, or an operator may have replayed something.
    pub(super) next: Option<Instant>,
}

/// What the thread shows to others.
pub(super) struct Signs {
    pub(super) ready: watch::Sender<Ready>,
    /// What is wrong with the file, for whoever asks.
    pub(super) problem: watch::Sender<Option<String>>,
    pub(super) connected: QueueConnection,
}

/// The connection, and what its thread knows beside it.
pub(super) struct Writer {
    connection: Connection,
    clock: Clock,
    ladder: RetryLadder,
    max_bytes: u64,
    signs: Signs,
    released: Released,
    /// Holders that have released, and whose rows are not free yet.
    owed: Vec<u64>,
    synchronous: Option<Synchronous>,
    publishing: Health,
    consuming: Health,
    /// When it is tried whether the file has room again; while something is wrong with it.
    trial: Option<Instant>,
    trials: Backoff,
    /// For waiting with a time limit.
    runtime: Handle,
}

/// How far a commit goes. Either way it survives the death of the process.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Synchronous {
    /// Synced to the disk, survives a power failure: for publishes, because their confirm is what
    /// Svix is answered with.
    Full,
    /// Left to the system: for takes, settlements and releases. When a power failure undoes one,
    /// the event is delivered again, which is harmless. The next full commit syncs it too.
    Normal,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        clock: Clock,
        ladder: RetryLadder,
        max_bytes: u64,
        signs: Signs,
        released: Released,
        runtime: Handle,
    ) -> Self {
        Self {
            connection,
            clock,
            ladder,
            max_bytes,
            signs,
            released,
            owed: Vec::new(),
            synchronous: None,
            publishing: Health::new("publish"),
            consuming: Health::new("consume"),
            trial: None,
            trials: Backoff::weather(),
            runtime,
        }
    }

    /// Serves commands until the queue is closed, or nobody is left to send one.
    pub(super) fn run(mut self, mut inbox: mpsc::Receiver<Command>, lock: &File) {
        self.signs.connected.set(true);
        let closing = self.serve(&mut inbox);
        self.signs.connected.set(false);
        file::close(self.connection);
        // Closing the file would do, were it not for a child process forked this moment that has
        // a copy of it.
        let _ = lock.unlock();
        if let Some(answer) = closing {
            let _ = answer.send(());
        }
    }

    fn serve(&mut self, inbox: &mut mpsc::Receiver<Command>) -> Option<oneshot::Sender<()>> {
        let mut closing = None;
        // What the file holds from before is ready at once.
        self.tell();
        while let Some(first) = self.next(inbox) {
            let (mut publishes, mut others) = (Vec::new(), Vec::new());
            for command in group(first, inbox) {
                match command {
                    Command::Publish { .. } => publishes.push(command),
                    Command::Close { answer } => {
                        inbox.close();
                        closing = Some(answer);
                    }
                    _ => others.push(command),
                }
            }
            // Two transactions: settlements make room on a full disk, and must not fail together
            // with the publishes that need it. They go first: they need not wait for the sync, and
            // are synced by it all the same.
            self.consume(others);
            self.publish(publishes);
        }
        closing
    }

    /// The next command. While something is wrong, trials go on with nobody asking: a process that
    /// is not ready may get no event that could show that it is well again.
    fn next(&mut self, inbox: &mut mpsc::Receiver<Command>) -> Option<Command> {
        loop {
            let Some(trial) = self.trial else {
                return inbox.blocking_recv();
            };
            if trial > Instant::now() {
                // The timer is made inside: this thread is none of the runtime's.
                let next = async { timeout_at(trial.into(), inbox.recv()).await };
                if let Ok(next) = self.runtime.block_on(next) {
                    return next;
                }
            }
            self.probe_disk();
        }
    }

    fn probe_disk(&mut self) {
        self.trial = None;
        self.synchronous = None;
        let found = file::set_synchronous(&self.connection, true)
            .and_then(|()| file::probe_disk(&mut self.connection));
        match found {
            Ok(()) => {
                self.publishing.recovered();
                self.consuming.recovered();
                self.trials.reset();
            }
            Err(error) => file::make_room(&self.connection, &error),
        }
        self.tell_health();
        self.tell();
    }

    /// Everything but publishes.
    fn consume(&mut self, mut commands: Vec<Command>) {
        self.owed.extend(self.released.take());
        if commands.is_empty() && self.owed.is_empty() {
            return;
        }
        let wakes = |command: &Command| matches!(command, Command::Wake);
        if commands.iter().all(wakes) && self.owed.is_empty() && !self.consuming.is_failing {
            // A look, which is no reason to take the file's write lock.
            self.tell();
            return;
        }
        let committed = self.commit(Synchronous::Normal, &mut commands);
        if committed.is_ok() {
            self.owed.clear();
        }
        let committed = self.consuming.note(committed);
        self.answer(commands, &committed);
    }

    fn publish(&mut self, mut commands: Vec<Command>) {
        if commands.is_empty() {
            return;
        }
        let committed = if self.is_full() {
            Err(format!("it holds its limit of {} bytes", self.max_bytes))
        } else {
            let committed = self.commit(Synchronous::Full, &mut commands);
            self.publishing.note(committed)
        };
        self.answer(commands, &committed);
    }

    /// Executes all of the commands, or none.
    fn commit(
        &mut self,
        synchronous: Synchronous,
        commands: &mut [Command],
    ) -> rusqlite::Result<()> {
        let committed = self.try_commit(synchronous, commands);
        if let Err(error) = &committed {
            self.synchronous = None;
            file::make_room(&self.connection, error);
        }
        committed
    }

    fn try_commit(
        &mut self,
        synchronous: Synchronous,
        commands: &mut [Command],
    ) -> rusqlite::Result<()> {
        if self.synchronous != Some(synchronous) {
            file::set_synchronous(&self.connection, synchronous == Synchronous::Full)?;
            self.synchronous = Some(synchronous);
        }
        let now = self.clock.now();
        let behavior = TransactionBehavior::Immediate;
        let transaction = self.connection.transaction_with_behavior(behavior)?;
        for command in commands {
            command.execute(&transaction, &self.ladder, now)?;
        }
        for holder in &self.owed {
            store::release(&transaction, *holder..=*holder)?;
        }
        // After an error, dropping the transaction rolls it back.
        transaction.commit()
    }

    /// Answers, but tells the consumers first, so that who is answered finds what is true now.
    fn answer(&mut self, commands: Vec<Command>, committed: &Result<(), String>) {
        self.tell_health();
        self.tell();
        for command in commands {
            command.answer(committed);
        }
    }

    fn tell_health(&mut self) {
        let problem = self.publishing.problem().or(self.consuming.problem());
        self.signs.connected.set(problem.is_none());
        self.trial = match (problem, self.trial) {
            (None, _) => None,
            // Whatever comes meanwhile does not put it off.
            (Some(_), Some(trial)) => Some(trial),
            (Some(_), None) => Some(Instant::now() + self.trials.next_delay()),
        };
        self.signs.problem.send_if_modified(|told| {
            let is_news = told.as_deref() != problem;
            if is_news {
                *told = problem.map(str::to_owned);
            }
            is_news
        });
    }

    fn tell(&mut self) {
        let found = if self.consuming.is_failing {
            None
        } else {
            store::ready(&self.connection, READY_COUNTED, self.clock.now()).ok()
        };
        let ready = match found {
            Some((count, next)) => {
                let next = next.map(|at| self.clock.instant(at));
                let look = (count == 0).then(|| Instant::now() + LOOK_AGAIN);
                Ready {
                    count,
                    next: next.into_iter().chain(look).min(),
                }
            }
            None => Ready {
                count: 0,
                next: Some(Instant::now() + self.consuming.backoff.next_delay()),
            },
        };
        self.signs.ready.send_replace(ready);
    }

    fn is_full(&self) -> bool {
        // Unreadable: the insert will say so, in better words.
        file::used_bytes(&self.connection).is_ok_and(|used| used >= self.max_bytes)
    }
}

/// What waits, up to the bounds of a group.
fn group(first: Command, inbox: &mut mpsc::Receiver<Command>) -> Vec<Command> {
    let mut bytes = first.body_bytes();
    let mut group = vec![first];
    while group.len() < GROUP_COMMANDS && bytes < GROUP_BYTES {
        let Ok(next) = inbox.try_recv() else { break };
        bytes += next.body_bytes();
        group.push(next);
    }
    group
}
