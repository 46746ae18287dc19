//! `bookmarks`: what is remembered of the whole, by name.

use sea_orm::sea_query::{
    DeleteStatement, ExprTrait, InsertStatement, OnConflict, Query, SelectStatement, TableRef,
};
use sea_orm::{DbBackend, DeriveIden, prelude::*};

/// Of which Clerk instance the rows are, as a command has made sure: its id.
pub const INSTANCE: &str = "instance";
/// Which Clerk instance the first event came from: its id.
pub const FIRST_INSTANCE: &str = "first_instance";
/// How far a backfill is that has not ended: JSON of `clerk-sync backfill`.
pub const BACKFILL: &str = "backfill";

/// The columns.
#[derive(Clone, Copy, Debug, DeriveIden)]
pub enum Column {
    /// What it is about: TEXT, primary key.
    Name,
    /// What is remembered: TEXT.
    Value,
    /// Since when: timestamptz.
    ChangedAt,
}

/// The table, on this backend.
pub fn table(backend: DbBackend) -> TableRef {
    match backend {
        DbBackend::Postgres => ("clerk_sync", "bookmarks").into(),
        _ => "clerk_sync_bookmarks".into(),
    }
}

/// What is remembered: one text, if anything. Served by the primary key.
pub fn find(backend: DbBackend, name: &str) -> SelectStatement {
    Query::select()
        .column(Column::Value)
        .from(table(backend))
        .and_where(Expr::col(Column::Name).eq(name))
        .to_owned()
}

/// Remembers, instead of what was there. Returns nothing.
pub fn put(backend: DbBackend, name: &str, value: &str, now: DateTimeUtc) -> InsertStatement {
    let replace = OnConflict::column(Column::Name)
        .update_columns([Column::Value, Column::ChangedAt])
        .to_owned();
    insert(backend, name, value, now)
        .on_conflict(replace)
        .to_owned()
}

/// Remembers, unless something is remembered already. Returns nothing.
pub fn put_first(backend: DbBackend, name: &str, value: &str, now: DateTimeUtc) -> InsertStatement {
    let keep = OnConflict::column(Column::Name).do_nothing().to_owned();
    insert(backend, name, value, now)
        .on_conflict(keep)
        .to_owned()
}

/// Forgets. Served by the primary key.
pub fn remove(backend: DbBackend, name: &str) -> DeleteStatement {
    Query::delete()
        .from_table(table(backend))
        .and_where(Expr::col(Column::Name).eq(name))
        .to_owned()
}

fn insert(backend: DbBackend, name: &str, value: &str, now: DateTimeUtc) -> InsertStatement {
    Query::insert()
        .into_table(table(backend))
        .columns([Column::Name, Column::Value, Column::ChangedAt])
        .values_panic([name.into(), value.into(), now.into()])
        .to_owned()
}

#[cfg(test)]
mod tests {
    use sea_orm::DatabaseBackend::{Postgres, Sqlite};

    use super::*;

    #[test]
    fn a_bookmark_is_one_row_by_its_name() {
        let now = DateTimeUtc::UNIX_EPOCH;
        assert_eq!(
            Postgres.build(&find(Postgres, INSTANCE)).sql,
            r#"SELECT "value" FROM "clerk_sync"."bookmarks" WHERE "name" = $1"#
        );
        assert_eq!(
            Postgres.build(&put(Postgres, INSTANCE, "ins_1", now)).sql,
            [
                r#"INSERT INTO "clerk_sync"."bookmarks" ("name", "value", "changed_at") VALUES ($1, $2, $3)"#,
                r#"ON CONFLICT ("name") DO UPDATE SET "value" = "excluded"."value", "changed_at" = "excluded"."changed_at""#,
            ]
            .join(" ")
        );
        assert_eq!(
            Sqlite
                .build(&put_first(Sqlite, INSTANCE, "ins_1", now))
                .sql,
            [
                r#"INSERT INTO "clerk_sync_bookmarks" ("name", "value", "changed_at") VALUES (?, ?, ?)"#,
                r#"ON CONFLICT ("name") DO NOTHING"#,
            ]
            .join(" ")
        );
        assert_eq!(
            Sqlite.build(&remove(Sqlite, BACKFILL)).sql,
            r#"DELETE FROM "clerk_sync_bookmarks" WHERE "name" = ?"#
        );
    }
}
