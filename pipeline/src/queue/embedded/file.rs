//! The file: who may have it, its schema, and its care.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, named_params};

use super::{OpenError, store};
use crate::event::Millis;

/// Bodies hold names and addresses: the owner's only. SQLite gives its log the same mode.
const FILE_MODE: u32 = 0o600;
/// `PRAGMA user_version` of the schema below.
pub(super) const SCHEMA_VERSION: i64 = 1;

/// `state` is `apply` or `dead`; a retry is an `apply` whose `visible_at` lies ahead by `delay`.
/// `deliveries` counts hand-outs without an answer, `holder` says whose the present one is.
/// Times are in milliseconds. The body comes last, so that reading the rest stops before it.
///
/// The indexes are partial: each holds just the rows that its reader wants. `holder` and `delay`
/// are in the first so that what waits is counted without looking at the rows.
const SCHEMA: &str = "
    CREATE TABLE events (
        id INTEGER PRIMARY KEY,
        event_id TEXT NOT NULL,
        type TEXT NOT NULL,
        received_at INTEGER NOT NULL,
        attempted_at INTEGER NOT NULL,
        traceparent TEXT,
        state TEXT NOT NULL DEFAULT 'apply' CHECK (state IN ('apply', 'dead')),
        visible_at INTEGER NOT NULL,
        delay INTEGER NOT NULL DEFAULT 0,
        deliveries INTEGER NOT NULL DEFAULT 0,
        holder INTEGER,
        attempt INTEGER NOT NULL DEFAULT 0,
        first_failed_at INTEGER,
        reason TEXT,
        detail TEXT,
        body BLOB NOT NULL
    ) STRICT;
    CREATE INDEX events_waiting ON events (visible_at, id, holder, delay)
        WHERE state = 'apply' AND holder IS NULL;
    CREATE INDEX events_held ON events (holder) WHERE holder IS NOT NULL;
    CREATE INDEX events_dead ON events (id) WHERE state = 'dead';
";

/// Takes the lock that lives as long as the queue's thread. The lock is on a file of its own:
/// SQLite's locks on the database are not ours to touch.
pub(super) fn lock(path: &Path) -> Result<File, OpenError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let failed = |source| OpenError::Io {
        path: lock_path.clone(),
        source,
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(FILE_MODE)
        .open(&lock_path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Opens the file, brings its schema up, and frees what the process before held.
pub(super) fn open(path: &Path, now: Millis) -> Result<Connection, OpenError> {
    // SQLite would create it with the mode of the umask.
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(FILE_MODE)
        .open(path)
        .map_err(|source| OpenError::Io {
            path: path.to_owned(),
            source,
        })?;
    let sqlite = |source| OpenError::Sqlite {
        path: path.to_owned(),
        source,
    };
    let mut connection = Connection::open(path).map_err(sqlite)?;
    version(&connection).map_err(sqlite)?.check(path)?;
    prepare(&mut connection, now).map_err(sqlite)?;
    Ok(connection)
}

pub(super) enum Version {
    /// A new file.
    Empty,
    Ours(i64),
    /// Somebody else's tables.
    Foreign,
}

impl Version {
    /// Refuses what is not ours to touch.
    pub(super) fn check(&self, path: &Path) -> Result<(), OpenError> {
        match *self {
            Self::Ours(SCHEMA_VERSION) | Self::Empty => Ok(()),
            Self::Ours(found) => Err(OpenError::NewerSchema {
                path: path.to_owned(),
                found,
            }),
            Self::Foreign => Err(OpenError::NotAQueue {
                path: path.to_owned(),
            }),
        }
    }
}

pub(super) fn version(connection: &Connection) -> rusqlite::Result<Version> {
    let found = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(match (found, tables) {
        (0, 0) => Version::Empty,
        (0, _) => Version::Foreign,
        (found, _) => Version::Ours(found),
    })
}

fn prepare(connection: &mut Connection, now: Millis) -> rusqlite::Result<()> {
    // Somebody looks at the file with a tool: wait for them, but less than a publish may take.
    connection.busy_timeout(Duration::from_secs(2))?;
    connection.set_prepared_statement_cache_capacity(32);
    // 16 MiB of log between checkpoints: fewer of them pay for the same pages less often. The log
    // is cut to 64 MiB after a burst. `fullfsync` is for macOS, where a plain fsync does not reach
    // the disk. 16 MiB of cache hold the indexes of a long backlog.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA wal_autocheckpoint = 4000;
         PRAGMA journal_size_limit = 67108864;
         PRAGMA fullfsync = ON;
         PRAGMA checkpoint_fullfsync = ON;
         PRAGMA cache_size = -16384;
         PRAGMA temp_store = MEMORY;",
    )?;
    let transaction = connection.transaction()?;
    if matches!(version(&transaction)?, Version::Empty) {
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    store::release(&transaction, 0..=u64::MAX)?;
    // Nothing waits longer than its delay, though the system's clock was set back meanwhile.
    transaction.execute(
        "UPDATE events SET visible_at = :now
         WHERE state = 'apply' AND holder IS NULL AND visible_at > :now
           AND visible_at > :now + delay",
        named_params! { ":now": now.0 },
    )?;
    transaction.commit()
}

/// Room that must be there before a full disk counts as mended: for the largest body that Svix sends
/// and its share of the log.
const ROOM_BYTES: u32 = 512 << 10;

/// Finds out whether there is room, by taking some and giving it back, each durably. What a kill in
/// between has left is taken away by the next probe.
pub(super) fn probe_disk(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(&format!(
        "DROP TABLE IF EXISTS disk_probe;
         CREATE TABLE disk_probe (bytes BLOB);
         INSERT INTO disk_probe VALUES (randomblob({ROOM_BYTES}));"
    ))?;
    transaction.commit()?;
    connection.execute_batch("DROP TABLE disk_probe")
}

/// Whether an error may mean a full disk.
pub(super) fn may_be_disk_full(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure)
    )
}

/// After an error that may mean a full disk: folds the log, which cannot grow, into the file, which
/// may have free pages, so that the log starts again from its beginning.
pub(super) fn make_room(connection: &Connection, error: &rusqlite::Error) {
    if may_be_disk_full(error) {
        // It may fail as well; the next error tries again.
        let _ = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    }
}

/// Closes the file, which folds the log into it. What cannot be folded now is found at the next
/// opening.
pub(super) fn close(connection: Connection) {
    if let Err((_, error)) = connection.close() {
        tracing::warn!(%error, "the queue's file was not closed cleanly");
    }
}

pub(super) fn set_synchronous(connection: &Connection, full: bool) -> rusqlite::Result<()> {
    connection.pragma_update(None, "synchronous", if full { "FULL" } else { "NORMAL" })
}

/// What the file holds, free pages left out.
pub(super) fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached(
        "SELECT page_size * (page_count - freelist_count)
         FROM pragma_page_size, pragma_page_count, pragma_freelist_count",
    )?;
    statement.query_row([], |row| store::unsigned(row, 0))
}
