//! `designs`: generated designs. The application's; we only read and cascade.

use sea_orm::entity::prelude::*;

/// A generated design.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "designs")]
pub struct Model {
    /// A cuid.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Key of the owner.
    #[sea_orm(column_name = "userId")]
    pub user_id: String,
    /// Key of the project; a design outlives its project.
    #[sea_orm(column_name = "projectId")]
    pub project_id: Option<String>,
    /// What it was generated from.
    pub prompt: Option<String>,
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
    /// The project it was made in.
    #[sea_orm(
        belongs_to,
        from = "project_id",
        to = "id",
        on_delete = "SetNull",
        on_update = "Cascade"
    )]
    pub project: BelongsTo<Option<super::projects::Entity>>,
    /// Images of the design.
    #[sea_orm(has_many)]
    pub images: HasMany<super::images::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}
