//! The ledger of events and the users' versions.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        let tables = match db.get_database_backend() {
            DbBackend::Postgres => include_str!("m0002_bookkeeping/postgres.sql"),
            _ => include_str!("m0002_bookkeeping/sqlite.sql"),
        };
        db.execute_unprepared(tables).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        let drops = match db.get_database_backend() {
            DbBackend::Postgres => {
                "DROP TABLE clerk_sync.processed_events; DROP TABLE clerk_sync.user_versions;"
            }
            _ => "DROP TABLE clerk_sync_processed_events; DROP TABLE clerk_sync_user_versions;",
        };
        db.execute_unprepared(drops).await?;
        Ok(())
    }
}
