//! What is remembered of the whole.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        let table = match db.get_database_backend() {
            DbBackend::Postgres => include_str!("m0003_bookmarks/postgres.sql"),
            _ => include_str!("m0003_bookmarks/sqlite.sql"),
        };
        db.execute_unprepared(table).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        let drop = match db.get_database_backend() {
            DbBackend::Postgres => "DROP TABLE clerk_sync.bookmarks",
            _ => "DROP TABLE clerk_sync_bookmarks",
        };
        db.execute_unprepared(drop).await?;
        Ok(())
    }
}
