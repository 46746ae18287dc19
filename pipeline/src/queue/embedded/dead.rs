//! The statements of an operator: on dead rows only, which the queue's thread leaves alone.

use rusqlite::{Connection, named_params};

use super::store::{identity, signed, unsigned};
use crate::{
    event::Millis,
    queue::parked::{self, Letter},
};

/// A dead row, and which of its deaths it is about: a row that is replayed and dies again has
/// another first failure.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeadRow {
    pub(super) id: i64,
    pub(super) first_failed_at: Option<i64>,
    pub(super) bytes: u64,
}

pub(super) fn count(connection: &Connection) -> rusqlite::Result<u64> {
    let count = "SELECT count(*) FROM events WHERE state = 'dead'";
    connection.query_row(count, [], |row| unsigned(row, 0))
}

/// The greatest number of a dead row, 0 when there is none.
pub(super) fn last(connection: &Connection) -> rusqlite::Result<i64> {
    let last = "SELECT coalesce(max(id), 0) FROM events WHERE state = 'dead'";
    connection.query_row(last, [], |row| row.get(0))
}

/// Dead rows with numbers above `id`, up to `last`, without their bodies.
pub(super) fn after(
    connection: &Connection,
    id: i64,
    last: i64,
    limit: usize,
) -> rusqlite::Result<Vec<(DeadRow, Letter)>> {
    let mut statement = connection.prepare_cached(
        "SELECT event_id, type, received_at, attempted_at, traceparent, length(body),
                attempt, first_failed_at, reason, detail, id
         FROM events WHERE state = 'dead' AND id > :after AND id <= :last
         ORDER BY id LIMIT :limit",
    )?;
    let parameters = named_params! { ":after": id, ":last": last, ":limit": signed(limit) };
    let rows = statement.query_map(parameters, |row| {
        let (id, event_type) = identity(row)?;
        let received_at = row.get(2)?;
        let dead = DeadRow {
            id: row.get(10)?,
            first_failed_at: row.get(7)?,
            bytes: unsigned(row, 5)?,
        };
        let header = |name: &str, value: String| (name.to_owned(), value);
        let mut headers = vec![
            header("svix-timestamp", row.get::<_, i64>(3)?.to_string()),
            header("x-received-at", i64::to_string(&received_at)),
        ];
        if let Some(traceparent) = row.get(4)? {
            headers.insert(1, header("traceparent", traceparent));
        }
        let letter = Letter {
            id,
            event_type,
            code: row
                .get::<_, Option<String>>(8)?
                .unwrap_or_else(|| parked::UNKNOWN.to_owned()),
            detail: row.get(9)?,
            attempts: row.get(6)?,
            first_failed_at: dead.first_failed_at.map(Millis),
            received_at: Some(Millis(received_at)),
            bytes: dead.bytes,
            headers,
        };
        Ok((dead, letter))
    })?;
    rows.collect()
}

/// Makes a dead row what it was when it was published, ready at once by whatever clock the queue
/// goes: an operator's may be ahead of it. Does nothing to a row that is dead no more.
pub(super) fn replay(connection: &Connection, row: &DeadRow) -> rusqlite::Result<usize> {
    connection
        .prepare_cached(
            "UPDATE events
             SET state = 'apply', visible_at = 0, delay = 0, holder = NULL, deliveries = 0,
                 attempt = 0, first_failed_at = NULL, reason = NULL, detail = NULL
             WHERE id = :id AND state = 'dead' AND first_failed_at IS :first_failed_at",
        )?
        .execute(named_params! { ":id": row.id, ":first_failed_at": row.first_failed_at })
}

/// Deletes a row that is dead still.
pub(super) fn discard(connection: &Connection, row: &DeadRow) -> rusqlite::Result<usize> {
    connection
        .prepare_cached(
            "DELETE FROM events
             WHERE id = :id AND state = 'dead' AND first_failed_at IS :first_failed_at",
        )?
        .execute(named_params! { ":id": row.id, ":first_failed_at": row.first_failed_at })
}
