//! `user_versions`: the newest version written of each user, and the tombstones of deleted ones.
//!
//! A version is `(updated_at_ms, occurred_at_ms, event_id)`, compared in that order and bytewise,
//! in the database as in Rust. Locking this row is locking the user.

use sea_orm::sea_query::{
    DeleteStatement, ExprTrait, InsertStatement, OnConflict, Order, Query, SelectStatement,
    TableRef,
};
use sea_orm::{DbBackend, DeriveIden, FromQueryResult, prelude::*};

use crate::rows;

/// What the ids of users begin with that `clerk-sync doctor --probe` makes. Clerk's never do.
pub const PROBES: &str = "user_clerk_sync_";

/// The columns.
#[derive(Clone, Copy, Debug, DeriveIden)]
pub enum Column {
    /// Clerk's id of the user: TEXT, primary key.
    ClerkId,
    /// Clerk's `updated_at`: BIGINT.
    UpdatedAtMs,
    /// The envelope's `timestamp`: BIGINT.
    OccurredAtMs,
    /// The event's id: TEXT.
    EventId,
    /// When the user was deleted; never NULL again: timestamptz or NULL.
    DeletedAt,
}

/// A user's version.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Row {
    /// Clerk's id of the user.
    pub clerk_id: String,
    /// Clerk's `updated_at`, in milliseconds since 1970.
    pub updated_at_ms: i64,
    /// The envelope's `timestamp`, in milliseconds since 1970.
    pub occurred_at_ms: i64,
    /// The event's id.
    pub event_id: String,
    /// When the user was deleted, if it was: a tombstone, which no later row beats.
    pub deleted_at: Option<DateTimeUtc>,
}

impl Row {
    /// A row that only locks: it loses against every version held, and is itself a version older
    /// than all others where none is held.
    pub fn lock_only(clerk_id: impl Into<String>) -> Self {
        Self {
            clerk_id: clerk_id.into(),
            updated_at_ms: -1,
            occurred_at_ms: -1,
            event_id: String::new(),
            deleted_at: None,
        }
    }
}

/// The table's bare name, by which a statement on it qualifies its columns.
const fn name(backend: DbBackend) -> &'static str {
    match backend {
        DbBackend::Postgres => "user_versions",
        _ => "clerk_sync_user_versions",
    }
}

/// The table, on this backend.
pub fn table(backend: DbBackend) -> TableRef {
    match backend {
        DbBackend::Postgres => ("clerk_sync", name(backend)).into(),
        _ => name(backend).into(),
    }
}

/// What is held of a user, as [`Row`]. Served by the primary key.
pub fn of(backend: DbBackend, clerk_id: &str) -> SelectStatement {
    Query::select()
        .columns([
            Column::ClerkId,
            Column::UpdatedAtMs,
            Column::OccurredAtMs,
            Column::EventId,
            Column::DeletedAt,
        ])
        .from(table(backend))
        .and_where(Expr::col(Column::ClerkId).eq(clerk_id))
        .to_owned()
}

/// Writes the versions that are newer than the ones held, and locks the rows of all.
///
/// A tombstone beats every version and is never overwritten, not even by another tombstone.
/// Rows sorted by `clerk_id` (see [`Row::lock_only`] for users to lock without a version).
/// Returns `clerk_id` of the winners: whose version was inserted or advanced. Served by the
/// primary key.
pub fn advance(backend: DbBackend, rows: impl IntoIterator<Item = Row>) -> InsertStatement {
    let mut insert = Query::insert();
    insert.into_table(table(backend));
    let columns = [
        (Column::ClerkId, "text[]"),
        (Column::UpdatedAtMs, "bigint[]"),
        (Column::OccurredAtMs, "bigint[]"),
        (Column::EventId, "text[]"),
        (Column::DeletedAt, "timestamptz[]"),
    ];
    let values = |row: Row| {
        [
            row.clerk_id.into(),
            row.updated_at_ms.into(),
            row.occurred_at_ms.into(),
            row.event_id.into(),
            row.deleted_at.into(),
        ]
    };
    rows::insert(backend, &mut insert, columns, rows.into_iter().map(values));
    let version = |table: &'static str| {
        Expr::tuple([
            Expr::col((table, Column::UpdatedAtMs)),
            Expr::col((table, Column::OccurredAtMs)),
            Expr::col((table, Column::EventId)),
        ])
    };
    let held = name(backend);
    let deletes = Expr::col(("excluded", Column::DeletedAt)).is_not_null();
    let newer = version(held).lt(version("excluded"));
    insert
        .on_conflict(
            OnConflict::column(Column::ClerkId)
                .update_columns([
                    Column::UpdatedAtMs,
                    Column::OccurredAtMs,
                    Column::EventId,
                    Column::DeletedAt,
                ])
                .action_and_where(Expr::col((held, Column::DeletedAt)).is_null())
                .action_and_where(deletes.or(newer))
                .to_owned(),
        )
        .returning_col(Column::ClerkId)
        .to_owned()
}

/// `clerk_id` of users that are not deleted: the first ones by their id, and the last ones.
///
/// Served by the primary key.
pub fn ends(backend: DbBackend, limit: u64) -> [SelectStatement; 2] {
    [Order::Asc, Order::Desc].map(|order| {
        Query::select()
            .column(Column::ClerkId)
            .from(table(backend))
            .and_where(Expr::col(Column::DeletedAt).is_null())
            .order_by(Column::ClerkId, order)
            .limit(limit)
            .to_owned()
    })
}

/// What is held of these users: `clerk_id`, `updated_at_ms`, `occurred_at_ms`, `is_tombstone`.
///
/// Served by the primary key.
pub fn held(backend: DbBackend, clerk_ids: &[&str]) -> SelectStatement {
    Query::select()
        .columns([Column::ClerkId, Column::UpdatedAtMs, Column::OccurredAtMs])
        .expr_as(Expr::col(Column::DeletedAt).is_not_null(), "is_tombstone")
        .from(table(backend))
        .and_where(rows::among(backend, Column::ClerkId, clerk_ids))
        .to_owned()
}

/// Forgets the tombstones of [`PROBES`] that were deleted before `before`. A worker has no right to
/// it. Scans the table: for a person's command, not for a process.
pub fn forget_probes(backend: DbBackend, before: DateTimeUtc) -> DeleteStatement {
    Query::delete()
        .from_table(table(backend))
        .and_where(Expr::col(Column::ClerkId).like(rows::beginning_with(PROBES)))
        .and_where(Expr::col(Column::DeletedAt).lt(before))
        .to_owned()
}

#[cfg(test)]
mod tests {
    use sea_orm::DatabaseBackend::{Postgres, Sqlite};

    use super::*;

    #[test]
    fn advance_guards_by_tombstone_then_by_version() {
        let insert = advance(
            Postgres,
            [Row::lock_only("user_a"), Row::lock_only("user_b")],
        );
        assert_eq!(
            Postgres.build(&insert).sql,
            [
                r#"INSERT INTO "clerk_sync"."user_versions" ("clerk_id", "updated_at_ms", "occurred_at_ms", "event_id", "deleted_at")"#,
                r#"SELECT unnest(CAST($1 AS text[])), unnest(CAST($2 AS bigint[])), unnest(CAST($3 AS bigint[])), unnest(CAST($4 AS text[])),"#,
                r#"unnest(CAST($5 AS timestamptz[]))"#,
                r#"ON CONFLICT ("clerk_id") DO UPDATE SET "updated_at_ms" = "excluded"."updated_at_ms", "occurred_at_ms" = "excluded"."occurred_at_ms","#,
                r#""event_id" = "excluded"."event_id", "deleted_at" = "excluded"."deleted_at""#,
                r#"WHERE "user_versions"."deleted_at" IS NULL AND ("excluded"."deleted_at" IS NOT NULL"#,
                r#"OR ("user_versions"."updated_at_ms", "user_versions"."occurred_at_ms", "user_versions"."event_id")"#,
                r#"< ("excluded"."updated_at_ms", "excluded"."occurred_at_ms", "excluded"."event_id"))"#,
                r#"RETURNING "clerk_id""#,
            ]
            .join(" ")
        );

        assert_eq!(
            Postgres.build(&held(Postgres, &["user_a", "user_b"])).sql,
            [
                r#"SELECT "clerk_id", "updated_at_ms", "occurred_at_ms", "deleted_at" IS NOT NULL AS "is_tombstone""#,
                r#"FROM "clerk_sync"."user_versions" WHERE "clerk_id" = ANY(CAST($1 AS text[]))"#,
            ]
            .join(" ")
        );

        let insert = advance(Sqlite, [Row::lock_only("user_a")]);
        assert_eq!(
            Sqlite.build(&insert).sql,
            [
                r#"INSERT INTO "clerk_sync_user_versions" ("clerk_id", "updated_at_ms", "occurred_at_ms", "event_id", "deleted_at")"#,
                r#"VALUES (?, ?, ?, ?, ?)"#,
                r#"ON CONFLICT ("clerk_id") DO UPDATE SET "updated_at_ms" = "excluded"."updated_at_ms", "occurred_at_ms" = "excluded"."occurred_at_ms","#,
                r#""event_id" = "excluded"."event_id", "deleted_at" = "excluded"."deleted_at""#,
                r#"WHERE "clerk_sync_user_versions"."deleted_at" IS NULL AND ("excluded"."deleted_at" IS NOT NULL"#,
                r#"OR ("clerk_sync_user_versions"."updated_at_ms", "clerk_sync_user_versions"."occurred_at_ms", "clerk_sync_user_versions"."event_id")"#,
                r#"< ("excluded"."updated_at_ms", "excluded"."occurred_at_ms", "excluded"."event_id"))"#,
                r#"RETURNING "clerk_id""#,
            ]
            .join(" ")
        );
    }
}
