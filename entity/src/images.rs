//! `images`: images of projects and designs. The application's; we only read and cascade.

use sea_orm::entity::prelude::*;

/// An image, of a project or of a design.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "images")]
pub struct Model {
    /// A cuid.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Where it is.
    pub url: String,
    /// Key of the project it belongs to.
    #[sea_orm(column_name = "projectId")]
    pub project_id: Option<String>,
    /// Key of the design it belongs to.
    #[sea_orm(column_name = "designId")]
    pub design_id: Option<String>,
    /// In UTC.
    #[sea_orm(column_name = "createdAt")]
    pub created_at: DateTime,
    /// The project it belongs to.
    #[sea_orm(
        belongs_to,
        from = "project_id",
        to = "id",
        on_delete = "Cascade",
        on_update = "Cascade"
    )]
    pub project: BelongsTo<Option<super::projects::Entity>>,
    /// The design it belongs to.
    #[sea_orm(
        belongs_to,
        from = "design_id",
        to = "id",
        on_delete = "Cascade",
        on_update = "Cascade"
    )]
    pub design: BelongsTo<Option<super::designs::Entity>>,
}

impl ActiveModelBehavior for ActiveModel {}
