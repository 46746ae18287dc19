//! Parked letters in the file, also while a `clerk-sync up` runs on it.
//!
//! It takes no part in the queue's lock: that keeps two queues apart, and this is none. It touches
//! dead rows only, which the queue's thread never does, in short transactions that the thread waits
//! out as it waits for anybody. A consumer notices what was replayed when it looks again, within half a
//! second. The calls block their thread: they are for a command, not a server.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, TransactionBehavior, named_params};

use super::{
    Depths, OpenError,
    dead::{self, DeadRow},
    file::{self, Version},
    store,
};
use crate::{
    event::{EventId, Millis},
    queue::{
        RetryLadder,
        parked::{Fate, Interrupted, Letter, Parked, Place},
    },
};

/// Rows that are read at a time, and most rows in one transaction: some milliseconds of work.
const ROWS: usize = 200;
/// Most bytes of bodies in one transaction, give or take one: moving a row writes all of it.
const BYTES: u64 = 4 << 20;
/// How long the queue's own transactions are waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The dead letters of a queue's file.
pub struct EmbeddedParked {
    connection: Connection,
    path: PathBuf,
    /// What the last walk marked.
    marked: Vec<DeadRow>,
}

impl EmbeddedParked {
    /// Opens a file that is there. It is neither created nor brought up to date.
    ///
    /// # Errors
    /// There is none, it is of a newer version, or it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let missing = || OpenError::Missing {
            path: path.to_owned(),
        };
        let sqlite = |source| OpenError::Sqlite {
            path: path.to_owned(),
            source,
        };
        match path.try_exists() {
            Ok(true) => {}
            Ok(false) => return Err(missing()),
            Err(source) => {
                return Err(OpenError::Io {
                    path: path.to_owned(),
                    source,
                });
            }
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
        connection.busy_timeout(PATIENCE).map_err(sqlite)?;
        match file::version(&connection).map_err(sqlite)? {
            Version::Empty => return Err(missing()),
            version => version.check(path)?,
        }
        Ok(Self {
            connection,
            path: path.to_owned(),
            marked: Vec::new(),
        })
    }

    /// How many events are where in the file, those included that a queue has in hand.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn depths(&self, ladder: &RetryLadder) -> Result<Depths, Interrupted> {
        store::depths(&self.connection, ladder, Millis::now()).map_err(self.interrupted(0))
    }

    fn interrupted(&self, done: u64) -> impl Fn(rusqlite::Error) -> Interrupted + use<> {
        let path = self.path.clone();
        move |error| Interrupted {
            done,
            cause: format!("{}: {error}", path.display()),
        }
    }

    /// Does something to rows that are dead still, in one transaction; how many there were.
    fn change(
        &mut self,
        rows: &[DeadRow],
        change: impl Fn(&Connection, &DeadRow) -> rusqlite::Result<usize>,
    ) -> rusqlite::Result<u64> {
        let immediate = TransactionBehavior::Immediate;
        let transaction = self.connection.transaction_with_behavior(immediate)?;
        let mut changed = 0;
        for row in rows {
            changed += change(&transaction, row)? as u64;
        }
        transaction.commit()?;
        Ok(changed)
    }
}

impl Parked for EmbeddedParked {
    fn name(&self, _: Place) -> String {
        self.path.display().to_string()
    }

    async fn count(&mut self, place: Place) -> Result<u64, Interrupted> {
        match place {
            Place::Dead => dead::count(&self.connection).map_err(self.interrupted(0)),
            Place::Unrouted => Ok(0),
        }
    }

    async fn walk(
        &mut self,
        place: Place,
        mut judge: impl FnMut(&Letter) -> Fate + Send,
    ) -> Result<u64, Interrupted> {
        self.marked.clear();
        if place == Place::Unrouted {
            return Ok(0);
        }
        let mut done = 0;
        let failed = self.interrupted(0);
        // New letters have greater numbers, so they cannot make the walk longer.
        let last = dead::last(&self.connection).map_err(&failed)?;
        let mut after = 0;
        loop {
            let rows =
                dead::after(&self.connection, after, last, ROWS).map_err(self.interrupted(done))?;
            let Some((row, _)) = rows.last() else {
                return Ok(done);
            };
            after = row.id;
            let mut replayed = Vec::new();
            for (row, letter) in rows {
                match judge(&letter) {
                    Fate::Keep => {}
                    Fate::Replay => replayed.push(row),
                    Fate::Mark => self.marked.push(row),
                }
            }
            for rows in portions(&replayed) {
                let changed = self.change(rows, dead::replay);
                done += changed.map_err(self.interrupted(done))?;
            }
        }
    }

    async fn discard_marked(&mut self) -> Result<u64, Interrupted> {
        let mut done = 0;
        let marked = std::mem::take(&mut self.marked);
        for rows in portions(&marked) {
            let changed = self.change(rows, dead::discard);
            done += changed.map_err(self.interrupted(done))?;
        }
        Ok(done)
    }

    async fn body(&mut self, place: Place, id: &EventId) -> Result<Option<Bytes>, Interrupted> {
        if place == Place::Unrouted {
            return Ok(None);
        }
        let body = self.connection.query_row(
            "SELECT body FROM events WHERE state = 'dead' AND event_id = :id ORDER BY id LIMIT 1",
            named_params! { ":id": id.as_str() },
            |row| row.get::<_, Vec<u8>>(0),
        );
        let body = body.optional().map_err(self.interrupted(0))?;
        Ok(body.map(Bytes::from))
    }

    fn replay_delay(&self) -> Duration {
        Duration::ZERO
    }

    async fn close(self) {
        // What cannot be folded into the file now is found by the next who opens it.
        let _ = self.connection.close();
    }
}

/// Rows for one transaction after the other.
fn portions(mut rows: &[DeadRow]) -> impl Iterator<Item = &[DeadRow]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |row: &&DeadRow| {
            let fits = bytes < BYTES;
            bytes += row.bytes;
            fits
        };
        let count = rows.iter().take(ROWS).take_while(fits).count();
        let (portion, rest) = rows.split_at(count);
        rows = rest;
        (count > 0).then_some(portion)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_bounded_in_rows_and_bytes_and_none_is_left_out() {
        let row = |bytes| DeadRow {
            id: 1,
            first_failed_at: None,
            bytes,
        };
        let counts = |rows: &[DeadRow]| portions(rows).map(<[_]>::len).collect::<Vec<_>>();
        assert_eq!(counts(&[]), [0_usize; 0]);
        let small: Vec<_> = (0..450).map(|_| row(10)).collect();
        assert_eq!(counts(&small), [200, 200, 50]);
        let large: Vec<_> = (0..3).map(|_| row(BYTES)).collect();
        assert_eq!(counts(&large), [1, 1, 1]);
    }
}
