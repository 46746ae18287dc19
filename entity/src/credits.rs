//! `credits`: a user's balance.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{InsertStatement, Query};

/// An entry of credits.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "credits")]
pub struct Model {
    /// A cuid.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Key of the owner.
    #[sea_orm(column_name = "userId")]
    pub user_id: String,
    /// How many.
    pub amount: i32,
    /// In UTC.
    #[sea_orm(column_name = "createdAt")]
    pub created_at: DateTime,
    /// In UTC.
    #[sea_orm(column_name = "updatedAt")]
    pub updated_at: DateTime,
    /// The owner.
    #[sea_orm(
        belongs_to,
        from = "user_id",
        to = "id",
        on_delete = "Cascade",
        on_update = "Cascade"
    )]
    pub user: BelongsTo<super::users::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}

/// Gives new users their first credits: one row each, in the transaction that made the user.
///
/// Returns nothing. A plain insert; the foreign key is checked by `users_pkey`.
pub fn grant(rows: impl IntoIterator<Item = Model>) -> InsertStatement {
    let mut insert = Query::insert();
    insert.into_table(Entity).columns([
        Column::Id,
        Column::UserId,
        Column::Amount,
        Column::CreatedAt,
        Column::UpdatedAt,
    ]);
    for row in rows {
        insert.values_panic([
            row.id.into(),
            row.user_id.into(),
            row.amount.into(),
            row.created_at.into(),
            row.updated_at.into(),
        ]);
    }
    insert
}

#[cfg(test)]
mod tests {
    use sea_orm::DatabaseBackend::{Postgres, Sqlite};

    use super::*;

    #[test]
    fn grant_is_one_insert() {
        let credit = Model {
            id: "cuid".into(),
            user_id: "user".into(),
            amount: 5,
            created_at: DateTime::default(),
            updated_at: DateTime::default(),
        };
        let grant = grant([credit.clone(), credit]);
        assert_eq!(
            Postgres.build(&grant).sql,
            [
                r#"INSERT INTO "credits" ("id", "userId", "amount", "createdAt", "updatedAt")"#,
                r#"VALUES ($1, $2, $3, $4, $5), ($6, $7, $8, $9, $10)"#,
            ]
            .join(" ")
        );
        assert_eq!(
            Sqlite.build(&grant).sql,
            [
                r#"INSERT INTO "credits" ("id", "userId", "amount", "createdAt", "updatedAt")"#,
                r#"VALUES (?, ?, ?, ?, ?), (?, ?, ?, ?, ?)"#,
            ]
            .join(" ")
        );
    }
}
