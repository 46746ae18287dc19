//! `processed_events`: the ledger, one row per delivery and what became of it.
//!
//! Its key makes a delivery count once. It is pruned after a while, and no promise of the sync
//! rests on rows that are gone: an old event that returns loses against the user's version.

use sea_orm::sea_query::{
    CaseStatement, DeleteStatement, ExprTrait, Func, InsertStatement, LockBehavior, LockType,
    OnConflict, Order, Query, SelectStatement, TableRef, UpdateStatement,
    extension::postgres::PgFunc,
};
use sea_orm::{DbBackend, DeriveIden, FromQueryResult, prelude::*};

use crate::rows;

/// What the ids of events begin with that `clerk-sync doctor --probe` makes. Svix's never do.
pub const PROBES: &str = "msg_clerk_sync_";

/// Outcomes of an event that has not been applied, only put aside: it may be claimed again.
pub const UNAPPLIED: [&str; 2] = ["retried", "dead_lettered"];

/// The columns.
#[derive(Clone, Copy, Debug, DeriveIden)]
pub enum Column {
    /// `svix-id`, the idempotency key: TEXT, primary key.
    EventId,
    /// The envelope's `type`: TEXT.
    Type,
    /// The Clerk id the event is about: TEXT or NULL.
    Subject,
    /// Clerk's time of the event: timestamptz or NULL.
    OccurredAt,
    /// When the ingester had the request: timestamptz.
    ReceivedAt,
    /// When the outcome was written: timestamptz.
    ProcessedAt,
    /// What became of it: TEXT.
    Outcome,
}

/// A row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Row {
    /// `svix-id`, the idempotency key.
    pub event_id: String,
    /// The envelope's `type`.
    #[sea_orm(from_alias = "type")]
    pub event_type: String,
    /// The Clerk id the event is about, if it is about one.
    pub subject: Option<String>,
    /// Clerk's time of the event, if the event was readable.
    pub occurred_at: Option<DateTimeUtc>,
    /// When the ingester had the request.
    pub received_at: DateTimeUtc,
    /// When the outcome was written.
    pub processed_at: DateTimeUtc,
    /// What became of it: `created`, `updated`, `deleted`, `stale`, `ignored`, `retried`, …
    pub outcome: String,
}

/// The table's bare name, by which a statement on it qualifies its columns.
const fn name(backend: DbBackend) -> &'static str {
    match backend {
        DbBackend::Postgres => "processed_events",
        _ => "clerk_sync_processed_events",
    }
}

/// The table, on this backend.
pub fn table(backend: DbBackend) -> TableRef {
    match backend {
        DbBackend::Postgres => ("clerk_sync", name(backend)).into(),
        _ => name(backend).into(),
    }
}

/// Claims events: inserts a row each, unless the event was applied before.
///
/// An event that was only put aside ([`UNAPPLIED`]) is claimed again, with the new row's values;
/// `received_at` stays the first one. Returns `event_id` of every event claimed; one not returned
/// is a duplicate. Served by the primary key.
pub fn claim(backend: DbBackend, rows: impl IntoIterator<Item = Row>) -> InsertStatement {
    let mut insert = Query::insert();
    insert.into_table(table(backend));
    let columns = [
        (Column::EventId, "text[]"),
        (Column::Type, "text[]"),
        (Column::Subject, "text[]"),
        (Column::OccurredAt, "timestamptz[]"),
        (Column::ReceivedAt, "timestamptz[]"),
        (Column::ProcessedAt, "timestamptz[]"),
        (Column::Outcome, "text[]"),
    ];
    let values = |row: Row| {
        [
            row.event_id.into(),
            row.event_type.into(),
            row.subject.into(),
            row.occurred_at.into(),
            row.received_at.into(),
            row.processed_at.into(),
            row.outcome.into(),
        ]
    };
    rows::insert(backend, &mut insert, columns, rows.into_iter().map(values));
    insert
        .on_conflict(
            OnConflict::column(Column::EventId)
                .update_columns([
                    Column::Type,
                    Column::Subject,
                    Column::OccurredAt,
                    Column::ProcessedAt,
                    Column::Outcome,
                ])
                .action_and_where(Expr::col((name(backend), Column::Outcome)).is_in(UNAPPLIED))
                .to_owned(),
        )
        .returning_col(Column::EventId)
        .to_owned()
}

/// Corrects the outcome of events already claimed: `(event_id, outcome)`, at least one.
///
/// One statement, whatever the number of events. Returns nothing. Served by the primary key.
pub fn set_outcomes(backend: DbBackend, outcomes: &[(&str, &str)]) -> UpdateStatement {
    let outcome = outcomes
        .iter()
        .fold(CaseStatement::new(), |case, (id, outcome)| {
            case.case(Expr::col(Column::EventId).eq(*id), *outcome)
        });
    Query::update()
        .table(table(backend))
        .value(Column::Outcome, outcome)
        .and_where(Expr::col(Column::EventId).is_in(outcomes.iter().map(|(id, _)| *id)))
        .to_owned()
}

/// What became of these events: `event_id` and `outcome` of those in the ledger.
///
/// Served by the primary key.
pub fn outcomes(backend: DbBackend, event_ids: &[&str]) -> SelectStatement {
    Query::select()
        .columns([Column::EventId, Column::Outcome])
        .from(table(backend))
        .and_where(rows::among(backend, Column::EventId, event_ids))
        .to_owned()
}

/// A place between two rows of the ledger: before this row, the newest row first.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Place {
    /// When its outcome was written.
    pub processed_at: DateTimeUtc,
    /// Among those of the same moment: its id.
    pub event_id: String,
}

/// Which rows are looked for; what is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The Clerk id that they are about.
    pub subject: Option<String>,
    /// The envelope's `type`.
    pub event_type: Option<String>,
    /// What became of them.
    pub outcome: Option<String>,
}

impl Wanted {
    /// Whether every row is wanted.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

/// A row, by its event's id. Served by the primary key.
pub fn by_id(backend: DbBackend, event_id: &str) -> SelectStatement {
    whole(backend)
        .and_where(Expr::col(Column::EventId).eq(event_id))
        .to_owned()
}

/// Wanted rows as [`Row`], the newest first: after `after`, and down to `end`, that row included.
///
/// Served by `processed_events_processed_at_idx`. What is wanted is looked for row by row, as there
/// is no index for it: give an `end`, see [`end_of_stretch`].
pub fn newest_first(
    backend: DbBackend,
    wanted: &Wanted,
    after: Option<&Place>,
    end: Option<&Place>,
    limit: u64,
) -> SelectStatement {
    let mut select = whole(backend);
    only(&mut select, wanted);
    if let Some(end) = end {
        select
            .and_where(Expr::col(Column::ProcessedAt).gte(end.processed_at))
            .and_where(
                Expr::col(Column::ProcessedAt)
                    .gt(end.processed_at)
                    .or(Expr::col(Column::EventId).gte(end.event_id.as_str())),
            );
    }
    older_than(&mut select, after);
    select.limit(limit).to_owned()
}

/// The `rows`th row after `after`, the newest first: `processed_at` and `event_id`, or nothing where
/// there are not as many. Served by `processed_events_processed_at_idx`.
pub fn end_of_stretch(backend: DbBackend, after: Option<&Place>, rows: u64) -> SelectStatement {
    let mut select = Query::select();
    select
        .columns([Column::ProcessedAt, Column::EventId])
        .from(table(backend));
    older_than(&mut select, after);
    select.limit(1).offset(rows.saturating_sub(1)).to_owned()
}

/// How many events had each outcome from one moment to another, the second left out: `outcome` and
/// `count`. Served by `processed_events_processed_at_idx`.
pub fn count_between(backend: DbBackend, from: DateTimeUtc, to: DateTimeUtc) -> SelectStatement {
    Query::select()
        .column(Column::Outcome)
        .expr_as(Expr::cust("COUNT(*)"), "count")
        .from(table(backend))
        .and_where(Expr::col(Column::ProcessedAt).gte(from))
        .and_where(Expr::col(Column::ProcessedAt).lt(to))
        .group_by_col(Column::Outcome)
        .to_owned()
}

/// The newest rows from one moment to another, the second left out, as [`Row`].
/// Served by `processed_events_processed_at_idx`.
pub fn newest_between(
    backend: DbBackend,
    from: DateTimeUtc,
    to: DateTimeUtc,
    limit: u64,
) -> SelectStatement {
    whole(backend)
        .and_where(Expr::col(Column::ProcessedAt).gte(from))
        .and_where(Expr::col(Column::ProcessedAt).lt(to))
        .order_by(Column::ProcessedAt, Order::Desc)
        .limit(limit)
        .to_owned()
}

/// Wanted rows among the newest `among` since a moment, the newest first, as [`Row`]: however many
/// come, one look costs no more. Served by `processed_events_processed_at_idx`.
pub fn newest_among(
    backend: DbBackend,
    wanted: &Wanted,
    from: DateTimeUtc,
    among: u64,
    limit: u64,
) -> SelectStatement {
    let newest = whole(backend)
        .and_where(Expr::col(Column::ProcessedAt).gte(from))
        .order_by(Column::ProcessedAt, Order::Desc)
        .limit(among)
        .to_owned();
    let mut select = Query::select();
    select.columns(COLUMNS).from_subquery(newest, "newest");
    only(&mut select, wanted);
    select
        .order_by(Column::ProcessedAt, Order::Desc)
        .limit(limit)
        .to_owned()
}

/// The columns of a [`Row`].
const COLUMNS: [Column; 7] = [
    Column::EventId,
    Column::Type,
    Column::Subject,
    Column::OccurredAt,
    Column::ReceivedAt,
    Column::ProcessedAt,
    Column::Outcome,
];

fn whole(backend: DbBackend) -> SelectStatement {
    Query::select()
        .columns(COLUMNS)
        .from(table(backend))
        .to_owned()
}

fn only(select: &mut SelectStatement, wanted: &Wanted) {
    for (column, value) in [
        (Column::Subject, &wanted.subject),
        (Column::Type, &wanted.event_type),
        (Column::Outcome, &wanted.outcome),
    ] {
        if let Some(value) = value {
            select.and_where(Expr::col(column).eq(value.as_str()));
        }
    }
}

fn older_than(select: &mut SelectStatement, place: Option<&Place>) {
    if let Some(place) = place {
        // The first condition is what the index serves.
        select
            .and_where(Expr::col(Column::ProcessedAt).lte(place.processed_at))
            .and_where(
                Expr::col(Column::ProcessedAt)
                    .lt(place.processed_at)
                    .or(Expr::col(Column::EventId).lt(place.event_id.as_str())),
            );
    }
    select
        .order_by(Column::ProcessedAt, Order::Desc)
        .order_by(Column::EventId, Order::Desc);
}

/// The event that was processed last, [`PROBES`] left out: `received_at` and `processed_at`, if there
/// is any. Served by `processed_events_processed_at_idx`.
pub fn last(backend: DbBackend) -> SelectStatement {
    Query::select()
        .columns([Column::ReceivedAt, Column::ProcessedAt])
        .from(table(backend))
        .and_where(Expr::col(Column::EventId).not_like(rows::beginning_with(PROBES)))
        .order_by(Column::ProcessedAt, Order::Desc)
        .limit(1)
        .to_owned()
}

/// Deletes at most `limit` rows that were processed before `before`, the oldest first.
///
/// Rows another pruner or a worker holds are passed over on PostgreSQL. The number of rows
/// affected tells whether there may be more. Served by `processed_events_processed_at_idx` and
/// the primary key.
pub fn prune(backend: DbBackend, before: DateTimeUtc, limit: u64) -> DeleteStatement {
    let mut oldest = Query::select();
    oldest
        .column(Column::EventId)
        .from(table(backend))
        .and_where(Expr::col(Column::ProcessedAt).lt(before))
        .order_by(Column::ProcessedAt, Order::Asc)
        .limit(limit);
    let chosen = match backend {
        // An array instead of `IN (SELECT …)`: PostgreSQL evaluates it exactly once, where a
        // locking subquery inside a join may run again and pass the limit, and it never plans a
        // scan of the whole ledger.
        DbBackend::Postgres => {
            oldest.lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
            let ids = Func::cust("ARRAY").arg(Expr::SubQuery(None, Box::new(oldest.into())));
            Expr::col(Column::EventId).eq(PgFunc::any(ids))
        }
        _ => Expr::col(Column::EventId).in_subquery(oldest),
    };
    Query::delete()
        .from_table(table(backend))
        .and_where(chosen)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use sea_orm::DatabaseBackend::{Postgres, Sqlite};

    use super::*;

    fn row() -> Row {
        Row {
            event_id: "msg_1".into(),
            event_type: "user.created".into(),
            subject: None,
            occurred_at: None,
            received_at: DateTimeUtc::UNIX_EPOCH,
            processed_at: DateTimeUtc::UNIX_EPOCH,
            outcome: "created".into(),
        }
    }

    #[test]
    fn claim_takes_again_only_what_was_put_aside() {
        assert_eq!(
            Postgres.build(&claim(Postgres, [row(), row()])).sql,
            [
                r#"INSERT INTO "clerk_sync"."processed_events" ("event_id", "type", "subject", "occurred_at", "received_at", "processed_at", "outcome")"#,
                r#"SELECT unnest(CAST($1 AS text[])), unnest(CAST($2 AS text[])), unnest(CAST($3 AS text[])), unnest(CAST($4 AS timestamptz[])),"#,
                r#"unnest(CAST($5 AS timestamptz[])), unnest(CAST($6 AS timestamptz[])), unnest(CAST($7 AS text[]))"#,
                r#"ON CONFLICT ("event_id") DO UPDATE SET "type" = "excluded"."type", "subject" = "excluded"."subject","#,
                r#""occurred_at" = "excluded"."occurred_at", "processed_at" = "excluded"."processed_at", "outcome" = "excluded"."outcome""#,
                r#"WHERE "processed_events"."outcome" IN ($8, $9)"#,
                r#"RETURNING "event_id""#,
            ]
            .join(" ")
        );
        assert_eq!(
            Sqlite.build(&claim(Sqlite, [row()])).sql,
            [
                r#"INSERT INTO "clerk_sync_processed_events" ("event_id", "type", "subject", "occurred_at", "received_at", "processed_at", "outcome")"#,
                r#"VALUES (?, ?, ?, ?, ?, ?, ?)"#,
                r#"ON CONFLICT ("event_id") DO UPDATE SET "type" = "excluded"."type", "subject" = "excluded"."subject","#,
                r#""occurred_at" = "excluded"."occurred_at", "processed_at" = "excluded"."processed_at", "outcome" = "excluded"."outcome""#,
                r#"WHERE "clerk_sync_processed_events"."outcome" IN (?, ?)"#,
                r#"RETURNING "event_id""#,
            ]
            .join(" ")
        );
    }

    #[test]
    fn set_outcomes_is_one_statement() {
        let outcomes = [("msg_1", "stale"), ("msg_2", "retried")];
        assert_eq!(
            Postgres.build(&set_outcomes(Postgres, &outcomes)).sql,
            [
                r#"UPDATE "clerk_sync"."processed_events" SET"#,
                r#""outcome" = (CASE WHEN ("event_id" = $1) THEN $2 WHEN ("event_id" = $3) THEN $4 END)"#,
                r#"WHERE "event_id" IN ($5, $6)"#,
            ]
            .join(" ")
        );
        assert_eq!(
            Sqlite.build(&set_outcomes(Sqlite, &outcomes)).sql,
            [
                r#"UPDATE "clerk_sync_processed_events" SET"#,
                r#""outcome" = (CASE WHEN ("event_id" = ?) THEN ? WHEN ("event_id" = ?) THEN ? END)"#,
                r#"WHERE "event_id" IN (?, ?)"#,
            ]
            .join(" ")
        );
    }

    #[test]
    fn outcomes_are_read_by_event_id() {
        assert_eq!(
            Postgres.build(&outcomes(Postgres, &["msg_1", "msg_2"])).sql,
            [
                r#"SELECT "event_id", "outcome" FROM "clerk_sync"."processed_events""#,
                r#"WHERE "event_id" = ANY(CAST($1 AS text[]))"#,
            ]
            .join(" ")
        );
        assert_eq!(
            Sqlite.build(&outcomes(Sqlite, &["msg_1", "msg_2"])).sql,
            [
                r#"SELECT "event_id", "outcome" FROM "clerk_sync_processed_events""#,
                r#"WHERE "event_id" IN (?, ?)"#,
            ]
            .join(" ")
        );
    }

    #[test]
    fn prune_never_deletes_more_than_it_chose() {
        assert_eq!(
            Postgres.build(&prune(Postgres, DateTimeUtc::UNIX_EPOCH, 500)).sql,
            [
                r#"DELETE FROM "clerk_sync"."processed_events" WHERE "event_id" = ANY(ARRAY("#,
                r#"(SELECT "event_id" FROM "clerk_sync"."processed_events" WHERE "processed_at" < $1"#,
                r#" ORDER BY "processed_at" ASC LIMIT $2 FOR UPDATE SKIP LOCKED)))"#,
            ]
            .concat()
        );
        assert_eq!(
            Sqlite
                .build(&prune(Sqlite, DateTimeUtc::UNIX_EPOCH, 500))
                .sql,
            [
                r#"DELETE FROM "clerk_sync_processed_events" WHERE "event_id" IN"#,
                r#"(SELECT "event_id" FROM "clerk_sync_processed_events" WHERE "processed_at" < ?"#,
                r#"ORDER BY "processed_at" ASC LIMIT ?)"#,
            ]
            .join(" ")
        );
    }

    #[test]
    fn a_page_begins_where_the_last_one_ended() {
        let place = Place {
            processed_at: DateTimeUtc::UNIX_EPOCH,
            event_id: "msg_9".into(),
        };
        let wanted = Wanted {
            subject: Some("user_a".into()),
            ..Wanted::default()
        };
        let page = newest_first(Postgres, &wanted, Some(&place), Some(&place), 50);
        assert_eq!(
            Postgres.build(&page).sql,
            [
                r#"SELECT "event_id", "type", "subject", "occurred_at", "received_at", "processed_at", "outcome""#,
                r#"FROM "clerk_sync"."processed_events" WHERE "subject" = $1"#,
                r#"AND "processed_at" >= $2 AND ("processed_at" > $3 OR "event_id" >= $4)"#,
                r#"AND "processed_at" <= $5 AND ("processed_at" < $6 OR "event_id" < $7)"#,
                r#"ORDER BY "processed_at" DESC, "event_id" DESC LIMIT $8"#,
            ]
            .join(" ")
        );
    }

    #[test]
    fn a_look_at_the_end_is_about_so_many_rows() {
        let wanted = Wanted {
            outcome: Some("dead_lettered".into()),
            ..Wanted::default()
        };
        let looked = newest_among(Postgres, &wanted, DateTimeUtc::UNIX_EPOCH, 5000, 100);
        let columns = r#""event_id", "type", "subject", "occurred_at", "received_at", "processed_at", "outcome""#;
        assert_eq!(
            Postgres.build(&looked).sql,
            [
                &format!(r#"SELECT {columns} FROM"#),
                &format!(r#"(SELECT {columns} FROM "clerk_sync"."processed_events""#),
                r#"WHERE "processed_at" >= $1 ORDER BY "processed_at" DESC LIMIT $2) AS "newest""#,
                r#"WHERE "outcome" = $3 ORDER BY "processed_at" DESC LIMIT $4"#,
            ]
            .join(" ")
        );
    }
}
