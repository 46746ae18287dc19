//! `users`: one row per Clerk user, the table this whole program is about.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{
    BinOper, DeleteStatement, ExprTrait, InsertStatement, LikeExpr, OnConflict, Order, Query,
    SelectStatement, UpdateStatement,
};
use sea_orm::{DbBackend, FromQueryResult};

use crate::{rows, user_versions};

/// What follows the Clerk id in the placeholder address of a row whose address has moved on.
pub const REASSIGNED: &str = "@reassigned.invalid";

/// A user as the application sees it.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "users")]
pub struct Model {
    /// The application's own key: a cuid, never changed.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Clerk's id (`user_…`).
    #[sea_orm(column_name = "clerkId", unique)]
    pub clerk_id: String,
    /// The primary address, or a placeholder under `.invalid`.
    #[sea_orm(unique)]
    pub email: String,
    /// First and last name, if Clerk knows one.
    pub name: Option<String>,
    /// Clerk's `image_url`.
    #[sea_orm(column_name = "imageUrl")]
    pub image_url: Option<String>,
    /// When Clerk made the user, in UTC.
    #[sea_orm(column_name = "createdAt")]
    pub created_at: DateTime,
    /// When Clerk last changed the user, in UTC.
    #[sea_orm(column_name = "updatedAt")]
    pub updated_at: DateTime,
    /// The user's projects.
    #[sea_orm(has_many)]
    pub projects: HasMany<super::projects::Entity>,
    /// The user's designs.
    #[sea_orm(has_many)]
    pub designs: HasMany<super::designs::Entity>,
    /// The user's credits.
    #[sea_orm(has_many)]
    pub credits: HasMany<super::credits::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}

/// A row that holds an address, with the version of ours it was written by.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Holder {
    /// Clerk's id of the holder; empty where an adopted table allows NULL and has it.
    pub clerk_id: String,
    /// The address it holds.
    pub email: String,
    /// First part of its version; `None` when the sync has never written this row.
    pub updated_at_ms: Option<i64>,
    /// Second part of its version.
    pub occurred_at_ms: Option<i64>,
    /// Third part of its version.
    pub event_id: Option<String>,
}

/// Inserts users, or overwrites those already there; all columns but `id`.
///
/// Every row must be sorted by `clerk_id` and free of addresses that other rows hold (see
/// [`release`]): uniqueness is checked row by row.
/// Returns `id` and `clerkId` of every row; an `id` other than the one given means that the user
/// was there before. Served by `users_clerkId_key`.
pub fn upsert(backend: DbBackend, rows: impl IntoIterator<Item = Model>) -> InsertStatement {
    let mut insert = Query::insert();
    insert.into_table(Entity);
    let columns = [
        (Column::Id, "text[]"),
        (Column::ClerkId, "text[]"),
        (Column::Email, "text[]"),
        (Column::Name, "text[]"),
        (Column::ImageUrl, "text[]"),
        (Column::CreatedAt, "timestamp[]"),
        (Column::UpdatedAt, "timestamp[]"),
    ];
    let values = |row: Model| {
        [
            row.id.into(),
            row.clerk_id.into(),
            row.email.into(),
            row.name.into(),
            row.image_url.into(),
            row.created_at.into(),
            row.updated_at.into(),
        ]
    };
    rows::insert(backend, &mut insert, columns, rows.into_iter().map(values));
    insert
        .on_conflict(
            OnConflict::column(Column::ClerkId)
                .update_columns([
                    Column::Email,
                    Column::Name,
                    Column::ImageUrl,
                    Column::CreatedAt,
                    Column::UpdatedAt,
                ])
                .to_owned(),
        )
        .returning(Query::returning().columns([Column::Id, Column::ClerkId]))
        .to_owned()
}

/// Who holds these addresses now, and by which version.
///
/// Returns [`Holder`] rows. A holder without a version was never written by the sync and is not
/// ours to touch. Served by `users_email_key` and the primary key of `user_versions`.
pub fn holders(backend: DbBackend, emails: &[&str]) -> SelectStatement {
    // Spelled out on PostgreSQL, where `user_versions` compares bytewise: a column of `users`
    // adopted with a collation of its own would else be an error (42P22).
    let clerk_id = match backend {
        DbBackend::Postgres => Expr::cust(r#""u"."clerkId" COLLATE "C""#),
        _ => Expr::col(("u", Column::ClerkId)),
    };
    Query::select()
        .expr_as(
            Expr::col(("u", Column::ClerkId)).if_null(Expr::cust("''")),
            "clerk_id",
        )
        .column(("u", Column::Email))
        .columns([
            ("v", user_versions::Column::UpdatedAtMs),
            ("v", user_versions::Column::OccurredAtMs),
            ("v", user_versions::Column::EventId),
        ])
        .from_as(Entity, "u")
        .left_join(
            user_versions::table(backend).alias("v"),
            Expr::col(("v", user_versions::Column::ClerkId)).eq(clerk_id),
        )
        .and_where(rows::among(backend, ("u", Column::Email), emails))
        .to_owned()
}

/// A row, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Listed {
    /// Clerk's id of the user.
    pub clerk_id: String,
    /// Whether the sync has written it.
    pub managed: bool,
}

/// The next rows, as [`Listed`], in the order that the column has.
///
/// Served by `users_clerkId_key` and the primary key of `user_versions`.
pub fn list_after(backend: DbBackend, after: &str, limit: u64) -> SelectStatement {
    // As in `holders`.
    let clerk_id = match backend {
        DbBackend::Postgres => Expr::cust(r#""u"."clerkId" COLLATE "C""#),
        _ => Expr::col(("u", Column::ClerkId)),
    };
    let managed = Expr::col(("v", user_versions::Column::ClerkId)).is_not_null();
    Query::select()
        .expr_as(Expr::col(("u", Column::ClerkId)), "clerk_id")
        .expr_as(managed, "managed")
        .from_as(Entity, "u")
        .left_join(
            user_versions::table(backend).alias("v"),
            Expr::col(("v", user_versions::Column::ClerkId)).eq(clerk_id),
        )
        .and_where(Expr::col(("u", Column::ClerkId)).gt(after))
        .order_by(("u", Column::ClerkId), Order::Asc)
        .limit(limit)
        .to_owned()
}

/// `clerkId` of rows with an id of Clerk's: the first ones by it, and the last ones.
///
/// Served by `users_clerkId_key`.
pub fn ends(backend: DbBackend, limit: u64) -> [SelectStatement; 2] {
    // As in `holders`: LIKE takes no collation that is not deterministic.
    let clerk_id = match backend {
        DbBackend::Postgres => Expr::cust(r#""clerkId" COLLATE "C""#),
        _ => Expr::col(Column::ClerkId),
    };
    let of_clerk = clerk_id.like(LikeExpr::new("user!_%").escape('!'));
    [Order::Asc, Order::Desc].map(|order| {
        Query::select()
            .column(Column::ClerkId)
            .from(Entity)
            .and_where(of_clerk.clone())
            .order_by(Column::ClerkId, order)
            .limit(limit)
            .to_owned()
    })
}

/// What these users' rows say: `clerkId`, `email`, `name`, `imageUrl` and `createdAt`.
///
/// Served by `users_clerkId_key`.
pub fn rows(backend: DbBackend, clerk_ids: &[&str]) -> SelectStatement {
    Query::select()
        .columns([
            Column::ClerkId,
            Column::Email,
            Column::Name,
            Column::ImageUrl,
            Column::CreatedAt,
        ])
        .from(Entity)
        .and_where(rows::among(backend, Column::ClerkId, clerk_ids))
        .to_owned()
}

/// The Clerk id of the row that has this address. Served by `users_email_key`.
pub fn by_email(email: &str) -> SelectStatement {
    Query::select()
        .column(Column::ClerkId)
        .from(Entity)
        .and_where(Expr::col(Column::Email).eq(email))
        .to_owned()
}

/// Takes the address from these users and gives them the placeholder `<clerk id>@reassigned.invalid`.
///
/// Served by `users_clerkId_key`.
pub fn release(backend: DbBackend, clerk_ids: &[&str]) -> UpdateStatement {
    let placeholder = Expr::col(Column::ClerkId).binary(BinOper::Custom("||"), REASSIGNED);
    Query::update()
        .table(Entity)
        .value(Column::Email, placeholder)
        .and_where(rows::among(backend, Column::ClerkId, clerk_ids))
        .to_owned()
}

/// Deletes users, and by the application's foreign keys what belongs to them.
///
/// Served by `users_clerkId_key`; the cascades by our partial indexes on the related tables.
pub fn delete(backend: DbBackend, clerk_ids: &[&str]) -> DeleteStatement {
    Query::delete()
        .from_table(Entity)
        .and_where(rows::among(backend, Column::ClerkId, clerk_ids))
        .to_owned()
}

#[cfg(test)]
mod tests {
    use sea_orm::DatabaseBackend::{Postgres, Sqlite};
    use sea_orm::StatementBuilder;

    use super::*;

    /// The statement on both backends.
    fn sql<S: StatementBuilder>(statement: impl Fn(DbBackend) -> S) -> [String; 2] {
        [Postgres, Sqlite].map(|backend| statement(backend).build(&backend).sql)
    }

    #[test]
    fn upsert_never_changes_the_id() {
        let user = Model {
            id: "cuid".into(),
            clerk_id: "user_a".into(),
            email: "a@example.com".into(),
            name: None,
            image_url: None,
            created_at: DateTime::default(),
            updated_at: DateTime::default(),
        };
        let expected = |values: &str| {
            [
                r#"INSERT INTO "users" ("id", "clerkId", "email", "name", "imageUrl", "createdAt", "updatedAt")"#,
                values,
                r#"ON CONFLICT ("clerkId") DO UPDATE SET "email" = "excluded"."email", "name" = "excluded"."name","#,
                r#""imageUrl" = "excluded"."imageUrl", "createdAt" = "excluded"."createdAt", "updatedAt" = "excluded"."updatedAt""#,
                r#"RETURNING "id", "clerkId""#,
            ]
            .join(" ")
        };
        assert_eq!(
            sql(|backend| upsert(backend, [user.clone(), user.clone()])),
            [
                expected(
                    &[
                        "SELECT unnest(CAST($1 AS text[])), unnest(CAST($2 AS text[])),",
                        "unnest(CAST($3 AS text[])), unnest(CAST($4 AS text[])),",
                        "unnest(CAST($5 AS text[])), unnest(CAST($6 AS timestamp[])),",
                        "unnest(CAST($7 AS timestamp[]))",
                    ]
                    .join(" ")
                ),
                expected("VALUES (?, ?, ?, ?, ?, ?, ?), (?, ?, ?, ?, ?, ?, ?)"),
            ]
        );
    }

    #[test]
    fn holders_come_with_the_version_they_were_written_by() {
        let emails = ["a@example.com", "b@example.com"];
        assert_eq!(
            Postgres.build(&holders(Postgres, &emails)).sql,
            [
                r#"SELECT COALESCE("u"."clerkId", '') AS "clerk_id", "u"."email", "v"."updated_at_ms", "v"."occurred_at_ms", "v"."event_id""#,
                r#"FROM "users" AS "u" LEFT JOIN "clerk_sync"."user_versions" AS "v" ON "v"."clerk_id" = ("u"."clerkId" COLLATE "C")"#,
                r#"WHERE "u"."email" = ANY(CAST($1 AS text[]))"#,
            ]
            .join(" ")
        );
        assert_eq!(
            Sqlite.build(&holders(Sqlite, &emails)).sql,
            [
                r#"SELECT IFNULL("u"."clerkId", '') AS "clerk_id", "u"."email", "v"."updated_at_ms", "v"."occurred_at_ms", "v"."event_id""#,
                r#"FROM "users" AS "u" LEFT JOIN "clerk_sync_user_versions" AS "v" ON "v"."clerk_id" = "u"."clerkId""#,
                r#"WHERE "u"."email" IN (?, ?)"#,
            ]
            .join(" ")
        );
    }

    #[test]
    fn release_names_the_placeholder_after_the_clerk_id() {
        assert_eq!(
            sql(|backend| release(backend, &["user_a", "user_b"])),
            [
                r#"UPDATE "users" SET "email" = "clerkId" || $1 WHERE "clerkId" = ANY(CAST($2 AS text[]))"#,
                r#"UPDATE "users" SET "email" = "clerkId" || ? WHERE "clerkId" IN (?, ?)"#,
            ]
        );
    }

    #[test]
    fn rows_are_listed_with_whether_they_are_ours() {
        assert_eq!(
            Postgres.build(&list_after(Postgres, "user_a", 500)).sql,
            [
                r#"SELECT "u"."clerkId" AS "clerk_id", "v"."clerk_id" IS NOT NULL AS "managed" FROM "users" AS "u""#,
                r#"LEFT JOIN "clerk_sync"."user_versions" AS "v" ON "v"."clerk_id" = ("u"."clerkId" COLLATE "C")"#,
                r#"WHERE "u"."clerkId" > $1 ORDER BY "u"."clerkId" ASC LIMIT $2"#,
            ]
            .join(" ")
        );
    }

    #[test]
    fn the_ends_are_of_rows_with_an_id_of_clerks() {
        let [first, _] = ends(Postgres, 9);
        let [_, last] = ends(Sqlite, 9);
        assert_eq!(
            Postgres.build(&first).sql,
            [
                r#"SELECT "clerkId" FROM "users" WHERE ("clerkId" COLLATE "C") LIKE $1 ESCAPE '!'"#,
                r#"ORDER BY "clerkId" ASC LIMIT $2"#,
            ]
            .join(" ")
        );
        assert_eq!(
            Sqlite.build(&last).sql,
            [
                r#"SELECT "clerkId" FROM "users" WHERE "clerkId" LIKE ? ESCAPE '!'"#,
                r#"ORDER BY "clerkId" DESC LIMIT ?"#,
            ]
            .join(" ")
        );
    }

    #[test]
    fn rows_are_by_clerk_id() {
        let expected = |values| {
            format!(
                r#"SELECT "clerkId", "email", "name", "imageUrl", "createdAt" FROM "users" WHERE "clerkId" {values}"#
            )
        };
        assert_eq!(
            sql(|backend| rows(backend, &["user_a", "user_b"])),
            [expected("= ANY(CAST($1 AS text[]))"), expected("IN (?, ?)"),]
        );
    }

    #[test]
    fn delete_is_by_clerk_id() {
        assert_eq!(
            sql(|backend| delete(backend, &["user_a", "user_b"])),
            [
                r#"DELETE FROM "users" WHERE "clerkId" = ANY(CAST($1 AS text[]))"#,
                r#"DELETE FROM "users" WHERE "clerkId" IN (?, ?)"#,
            ]
        );
    }
}
