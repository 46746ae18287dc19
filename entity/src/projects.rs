//! `projects`: a user's interior design projects. The application's; we only read and cascade.

use sea_orm::entity::prelude::*;

/// A project.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "projects")]
pub struct Model {
    /// A cuid.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Key of the owner.
    #[sea_orm(column_name = "userId")]
    pub user_id: String,
    /// What the owner calls it.
    pub name: String,
    /// The owner's words on it.
    pub description: Option<String>,
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
    /// Designs made in the project.
    #[sea_orm(has_many)]
    pub designs: HasMany<super::designs::Entity>,
    /// Images of the project.
    #[sea_orm(has_many)]
    pub images: HasMany<super::images::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}
