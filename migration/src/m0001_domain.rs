//! The application's tables, when there are none.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

use crate::catalog;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration {
    pub(crate) domain: String,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// Makes all five tables as Prisma does. A database that has `users` is adopted: nothing of
    /// it is altered, and no related table is made.
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        if catalog::relation(db, &self.domain, "users")
            .await?
            .is_some()
        {
            return Ok(());
        }
        let tables = match db.get_database_backend() {
            DbBackend::Postgres => include_str!("m0001_domain/postgres.sql")
                .replace("{schema}", &catalog::quoted(&self.domain)),
            _ => include_str!("m0001_domain/sqlite.sql").to_owned(),
        };
        db.execute_unprepared(&tables).await?;
        Ok(())
    }

    /// Does nothing: these tables and their rows belong to the application.
    async fn down(&self, _: &SchemaManager) -> Result<(), DbErr> {
        Ok(())
    }
}
