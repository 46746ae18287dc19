//! The statements: what happens to the rows of the queue.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use rusqlite::{Connection, OptionalExtension as _, Row, named_params, types::Type};

use super::{DeadLetter, Depths};
use crate::{
    event::{Event, EventId, EventType, Millis},
    queue::{DELIVERY_LIMIT, Delivery, Failure, RetryLadder, Settlement, Tag, parked},
    telemetry::Label as _,
};

pub(super) fn insert(connection: &Connection, event: &Event, now: Millis) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO events
                (event_id, type, received_at, attempted_at, traceparent, visible_at, body)
             VALUES (:event_id, :type, :received_at, :attempted_at, :traceparent, :now, :body)",
        )?
        .execute(named_params! {
            ":event_id": event.id.as_str(),
            ":type": event.event_type.as_str(),
            ":received_at": event.received_at.0,
            ":attempted_at": event.attempted_at,
            ":traceparent": event.traceparent,
            ":now": now.0,
            ":body": &event.body[..],
        })
        .map(drop)
}

/// How many are ready, counted up to `limit`, and if none is, when the next will be.
pub(super) fn ready(
    connection: &Connection,
    limit: usize,
    now: Millis,
) -> rusqlite::Result<(usize, Option<Millis>)> {
    let mut count = connection.prepare_cached(
        "SELECT count(*) FROM (
             SELECT 1 FROM events
             WHERE state = 'apply' AND holder IS NULL AND visible_at <= :now LIMIT :limit)",
    )?;
    let count = count.query_row(
        named_params! { ":now": now.0, ":limit": signed(limit) },
        |row| unsigned(row, 0),
    )?;
    let mut next = connection.prepare_cached(
        "SELECT visible_at FROM events
         WHERE state = 'apply' AND holder IS NULL AND visible_at > :now
         ORDER BY visible_at LIMIT 1",
    )?;
    let next = next
        .query_row(named_params! { ":now": now.0 }, |row| row.get(0))
        .optional()?;
    Ok((count, next.map(Millis)))
}

/// Hands the longest ready events to a holder, and counts it.
pub(super) fn take(
    connection: &Connection,
    holder: u64,
    limit: usize,
    now: Millis,
) -> rusqlite::Result<Vec<Delivery>> {
    let mut statement = connection.prepare_cached(
        "UPDATE events SET holder = :holder, deliveries = deliveries + 1
         WHERE id IN (
             SELECT id FROM events
             WHERE state = 'apply' AND holder IS NULL AND visible_at <= :now
             ORDER BY visible_at, id LIMIT :limit)
         RETURNING event_id, type, received_at, attempted_at, traceparent, body,
                   attempt, first_failed_at, deliveries - 1, id, visible_at",
    )?;
    let parameters = named_params! {
        ":holder": signed(holder), ":now": now.0, ":limit": signed(limit)
    };
    let mut taken = statement
        .query_map(parameters, |row| {
            let number = unsigned(row, 9)?;
            let delivery = Delivery {
                event: event(row)?,
                attempt: row.get(6)?,
                first_failed_at: row.get::<_, Option<i64>>(7)?.map(Millis),
                redeliveries: row.get(8)?,
                tag: Tag {
                    incarnation: holder,
                    number,
                },
            };
            Ok((row.get::<_, i64>(10)?, delivery))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    // RETURNING promises no order.
    taken.sort_unstable_by_key(|(visible_at, delivery)| (*visible_at, delivery.tag.number));
    Ok(taken.into_iter().map(|(_, delivery)| delivery).collect())
}

/// Settles one delivery, if the tag still holds it; else it was released and comes again.
pub(super) fn settle(
    connection: &Connection,
    tag: Tag,
    settlement: &Settlement,
    ladder: &RetryLadder,
    now: Millis,
) -> rusqlite::Result<()> {
    match settlement {
        Settlement::Done => connection
            .prepare_cached("DELETE FROM events WHERE id = :id AND holder = :holder")?
            .execute(named_params! {
                ":id": signed(tag.number), ":holder": signed(tag.incarnation)
            })
            .map(drop),
        Settlement::Retry(rung, failure) => {
            let delay = ladder.delay(*rung);
            fail(connection, tag, ("apply", delay, 1), failure, now)
        }
        Settlement::Postpone(rung, failure) => {
            let delay = ladder.delay(*rung);
            fail(connection, tag, ("apply", delay, 0), failure, now)
        }
        Settlement::DeadLetter(failure) => {
            fail(connection, tag, ("dead", Duration::ZERO, 1), failure, now)
        }
    }
}

/// Puts a delivery into a state, with a delay, and counts so many attempts.
fn fail(
    connection: &Connection,
    tag: Tag,
    (state, delay, attempts): (&str, Duration, u32),
    failure: &Failure,
    now: Millis,
) -> rusqlite::Result<()> {
    let delay = signed(delay.as_millis());
    connection
        .prepare_cached(
            "UPDATE events
             SET state = :state, visible_at = :visible_at, delay = :delay, holder = NULL,
                 deliveries = 0, attempt = attempt + :attempts, reason = :reason, detail = :detail,
                 first_failed_at = coalesce(first_failed_at, :failed_at)
             WHERE id = :id AND holder = :holder",
        )?
        .execute(named_params! {
            ":state": state,
            ":visible_at": now.0.saturating_add(delay),
            ":delay": delay,
            ":attempts": attempts,
            ":reason": failure.reason.as_str(),
            ":detail": failure.detail,
            // For people: the system's clock, not the queue's.
            ":failed_at": Millis::now().0,
            ":id": signed(tag.number),
            ":holder": signed(tag.incarnation),
        })
        .map(drop)
}

/// Frees what the holders have and did not answer. As with RabbitMQ the hand-out stays counted,
/// and one too many makes a dead letter.
pub(super) fn release(
    connection: &Connection,
    holders: RangeInclusive<u64>,
) -> rusqlite::Result<()> {
    let (first, last) = (signed(*holders.start()), signed(*holders.end()));
    let mut bury = connection.prepare_cached(
        "UPDATE events
         SET state = 'dead', holder = NULL, reason = :reason,
             detail = 'handed out ' || deliveries || ' times without an answer',
             first_failed_at = coalesce(first_failed_at, :failed_at)
         WHERE holder >= :first AND holder <= :last AND deliveries > :limit
         RETURNING event_id, type",
    )?;
    let parameters = named_params! {
        ":reason": parked::DELIVERY_LIMIT, ":failed_at": Millis::now().0,
        ":first": first, ":last": last, ":limit": DELIVERY_LIMIT
    };
    for buried in bury.query_map(parameters, identity)? {
        let (id, event_type) = buried?;
        tracing::error!(
            event.id = %id,
            event.r#type = %event_type,
            reason = parked::DELIVERY_LIMIT,
            "an event was dead-lettered: handed out too often without an answer"
        );
    }
    connection
        .prepare_cached(
            "UPDATE events SET holder = NULL WHERE holder >= :first AND holder <= :last",
        )?
        .execute(named_params! { ":first": first, ":last": last })
        .map(drop)
}

pub(super) fn depths(
    connection: &Connection,
    ladder: &RetryLadder,
    now: Millis,
) -> rusqlite::Result<Depths> {
    let (ready, in_flight, dead) = connection.query_row(
        "SELECT
             (SELECT count(*) FROM events
              WHERE state = 'apply' AND holder IS NULL AND visible_at <= :now),
             (SELECT count(*) FROM events WHERE holder IS NOT NULL),
             (SELECT count(*) FROM events WHERE state = 'dead')",
        named_params! { ":now": now.0 },
        |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?, unsigned(row, 2)?)),
    )?;
    let mut delayed: BTreeMap<_, _> = ladder.rungs().map(|rung| (ladder.delay(rung), 0)).collect();
    let mut waiting = connection.prepare_cached(
        "SELECT delay, count(*) FROM events
         WHERE state = 'apply' AND holder IS NULL AND visible_at > :now GROUP BY delay",
    )?;
    let rows = waiting.query_map(named_params! { ":now": now.0 }, |row| {
        Ok((Duration::from_millis(unsigned(row, 0)?), unsigned(row, 1)?))
    })?;
    for row in rows {
        let (delay, count) = row?;
        delayed.insert(delay, count);
    }
    Ok(Depths {
        ready,
        delayed: delayed.into_iter().collect(),
        in_flight,
        dead,
    })
}

pub(super) fn dead_letters(
    connection: &Connection,
    limit: usize,
) -> rusqlite::Result<Vec<DeadLetter>> {
    let mut statement = connection.prepare_cached(
        "SELECT event_id, type, received_at, attempted_at, traceparent, body,
                attempt, first_failed_at, reason, detail
         FROM events WHERE state = 'dead' ORDER BY id LIMIT :limit",
    )?;
    let rows = statement.query_map(named_params! { ":limit": signed(limit) }, |row| {
        Ok(DeadLetter {
            event: event(row)?,
            attempt: row.get(6)?,
            first_failed_at: row.get::<_, Option<i64>>(7)?.map(Millis),
            reason: row.get(8)?,
            detail: row.get(9)?,
        })
    })?;
    rows.collect()
}

/// The event in a row that starts with its six columns.
fn event(row: &Row<'_>) -> rusqlite::Result<Event> {
    let (id, event_type) = identity(row)?;
    Ok(Event {
        id,
        event_type,
        received_at: Millis(row.get(2)?),
        attempted_at: row.get(3)?,
        traceparent: row.get(4)?,
        body: row.get::<_, Vec<u8>>(5)?.into(),
    })
}

/// Id and type in a row that starts with them.
pub(super) fn identity(row: &Row<'_>) -> rusqlite::Result<(EventId, EventType)> {
    let text = |column| row.get::<_, String>(column);
    let malformed = |column| {
        let error = "not what this queue writes".into();
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error)
    };
    Ok((
        EventId::parse(&text(0)?).ok_or_else(|| malformed(0))?,
        EventType::parse(&text(1)?).ok_or_else(|| malformed(1))?,
    ))
}

/// SQLite's integers are signed; ours are ids, counts and delays, far from the end.
pub(super) fn signed(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

pub(super) fn unsigned<T: TryFrom<i64> + Default>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<T> {
    row.get::<_, i64>(column)
        .map(|number| number.try_into().unwrap_or_default())
}
