//! A user's row together with what belongs to it: what an application asks for first.

use sea_orm::sea_query::{Alias, ExprTrait, Func, Query, SelectStatement, SimpleExpr};
use sea_orm::{DbBackend, FromQueryResult, prelude::*};

use crate::{credits, designs, projects, users};

/// A user, the balance of its credits, and how much it has of the rest. `None` where the
/// application has no such table.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Account {
    /// The application's own key.
    pub id: String,
    /// Clerk's id.
    pub clerk_id: String,
    /// The primary address.
    pub email: String,
    /// First and last name.
    pub name: Option<String>,
    /// Clerk's `image_url`.
    pub image_url: Option<String>,
    /// In UTC.
    pub created_at: DateTime,
    /// In UTC.
    pub updated_at: DateTime,
    /// The sum of its entries; 0 without any.
    pub credits: Option<i64>,
    /// How many.
    pub projects: Option<i64>,
    /// How many.
    pub designs: Option<i64>,
}

/// Which of the related tables the application has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromQueryResult)]
pub struct Related {
    /// `users` itself: without it nothing can be said of the others.
    pub users: bool,
    /// `credits`
    pub credits: bool,
    /// `projects`
    pub projects: bool,
    /// `designs`
    pub designs: bool,
}

/// Which of the related tables there are. Returns one [`Related`].
pub fn related(backend: DbBackend) -> SelectStatement {
    let exists = |table: &str| match backend {
        // As the search path finds it, like every other statement.
        DbBackend::Postgres => format!("to_regclass('{table}') IS NOT NULL"),
        _ => format!(
            "EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '{table}')"
        ),
    };
    let mut related = Query::select();
    for table in ["users", "credits", "projects", "designs"] {
        related.expr_as(Expr::cust(exists(table)), table);
    }
    related
}

/// The account of a user. Returns an [`Account`], or nothing.
///
/// Served by `users_clerkId_key`, and by our partial indexes on the related tables.
pub fn by_clerk_id(clerk_id: &str, related: Related) -> SelectStatement {
    let user = |column| Expr::col((users::Entity, column));
    let amount = Expr::col((credits::Entity, credits::Column::Amount));
    let balance = SimpleExpr::from(Func::coalesce([amount.sum(), Expr::val(0)]));
    Query::select()
        .expr(user(users::Column::Id))
        .expr_as(user(users::Column::ClerkId), "clerk_id")
        .expr(user(users::Column::Email))
        .expr(user(users::Column::Name))
        .expr_as(user(users::Column::ImageUrl), "image_url")
        .expr_as(user(users::Column::CreatedAt), "created_at")
        .expr_as(user(users::Column::UpdatedAt), "updated_at")
        .expr_as(
            of_user(
                related.credits,
                balance,
                credits::Entity,
                credits::Column::UserId,
            ),
            "credits",
        )
        .expr_as(
            of_user(
                related.projects,
                Expr::cust("COUNT(*)"),
                projects::Entity,
                projects::Column::UserId,
            ),
            "projects",
        )
        .expr_as(
            of_user(
                related.designs,
                Expr::cust("COUNT(*)"),
                designs::Entity,
                designs::Column::UserId,
            ),
            "designs",
        )
        .from(users::Entity)
        .and_where(user(users::Column::ClerkId).eq(clerk_id))
        .to_owned()
}

/// A number about the user's rows of a related table; NULL if there is no such table.
fn of_user<E: EntityTrait + 'static, C: ColumnTrait>(
    exists: bool,
    number: SimpleExpr,
    table: E,
    owner: C,
) -> SimpleExpr {
    let bigint = Alias::new("BIGINT");
    if !exists {
        return Expr::cust("NULL").cast_as(bigint);
    }
    let number = Query::select()
        .expr(number.cast_as(bigint))
        .from(table)
        .and_where(Expr::col((table, owner)).equals((users::Entity, users::Column::Id)))
        .to_owned();
    SimpleExpr::SubQuery(None, Box::new(number.into()))
}

#[cfg(test)]
mod tests {
    use sea_orm::DatabaseBackend::Postgres;

    use super::*;

    #[test]
    fn an_account_is_one_statement_over_the_tables_there_are() {
        let all = Related {
            users: true,
            credits: true,
            projects: true,
            designs: true,
        };
        let sql = Postgres.build(&by_clerk_id("user_a", all)).sql;
        for part in [
            r#"COALESCE(SUM("credits"."amount"), $1)"#,
            r#"FROM "credits" WHERE "credits"."userId" = "users"."id""#,
            r#"FROM "projects" WHERE "projects"."userId" = "users"."id""#,
            r#"FROM "designs" WHERE "designs"."userId" = "users"."id""#,
            r#"FROM "users" WHERE "users"."clerkId" = $2"#,
        ] {
            assert!(sql.contains(part), "{part} is not in {sql}");
        }
        let none = Postgres
            .build(&by_clerk_id("user_a", Related::default()))
            .sql;
        assert!(!none.contains(r#""credits"."#), "{none}");
        assert!(none.contains(r#"NULL) AS BIGINT) AS "credits""#), "{none}");
    }
}
