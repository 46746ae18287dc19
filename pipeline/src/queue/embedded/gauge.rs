//! How much is where in the file, seen by a reader of its own: the queue's thread is not kept from
//! its work. The calls block their thread.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::{OpenError, file, store};
use crate::{
    event::Millis,
    queue::{RetryLadder, stock::Stock},
};

/// A reader of a queue's file.
pub struct EmbeddedGauge {
    connection: Connection,
    path: PathBuf,
    ladder: RetryLadder,
}

impl EmbeddedGauge {
    /// Opens a file that is there.
    ///
    /// # Errors
    /// There is none, it is of a newer version, or it cannot be opened.
    pub fn open(path: &Path, ladder: RetryLadder) -> Result<Self, OpenError> {
        let sqlite = |source| OpenError::Sqlite {
            path: path.to_owned(),
            source,
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
        file::version(&connection).map_err(sqlite)?.check(path)?;
        Ok(Self {
            connection,
            path: path.to_owned(),
            ladder,
        })
    }

    /// How many events are where, at this moment.
    ///
    /// # Errors
    /// The file cannot be read; for an operator.
    pub fn read(&self) -> Result<Stock, String> {
        let depths = store::depths(&self.connection, &self.ladder, Millis::now())
            .map_err(|error| format!("{}: {error}", self.path.display()))?;
        Ok(Stock {
            ready: depths.ready,
            delayed: depths.delayed.iter().map(|(_, count)| count).sum(),
            in_flight: Some(depths.in_flight),
            dead: depths.dead,
            unrouted: 0,
        })
    }
}
