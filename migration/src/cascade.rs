//! Indexes on the foreign keys that deleting a user follows, so that a delete scans no table.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

use crate::catalog;

/// The foreign keys of the related tables.
const FOREIGN_KEYS: [(&str, &str); 6] = [
    ("projects", "userId"),
    ("designs", "userId"),
    ("designs", "projectId"),
    ("images", "projectId"),
    ("images", "designId"),
    ("credits", "userId"),
];

/// Makes the indexes that are missing, on those of the tables that exist; tells which.
///
/// They are partial, over all rows that have the key: Prisma sees a plain index as drift, a
/// partial one not. A key that an index of the application leads with needs none of ours.
/// It is looked at on every run, not once, since an adopted application may get these tables
/// later; a run with nothing to make takes no lock on them.
pub(crate) async fn ensure(db: &impl ConnectionTrait, domain: &str) -> Result<Vec<String>, DbErr> {
    let mut made = Vec::new();
    for (table, column) in FOREIGN_KEYS {
        let Some(relation) = catalog::relation(db, domain, table).await? else {
            continue;
        };
        let name = name(table, column);
        let served = relation.indexes.iter().any(|index| {
            let whole = !index.partial && index.leading.as_deref() == Some(column);
            index.valid && (index.name == name || whole)
        });
        if served || !relation.is_table() || relation.column(column).is_none() {
            continue;
        }
        if relation.indexes.iter().any(|index| index.name == name) {
            drop(db, domain, &name).await?; // left invalid by a build that failed
        }
        // PostgreSQL wants the schema with the table, SQLite (which has but one) with the index.
        let table = match db.get_database_backend() {
            DbBackend::Postgres => format!(r#"{}."{table}""#, catalog::quoted(domain)),
            _ => format!(r#""{table}""#),
        };
        let sql = format!(
            r#"CREATE INDEX IF NOT EXISTS "{name}" ON {table} ("{column}") WHERE "{column}" IS NOT NULL"#
        );
        db.execute_unprepared(&sql).await?;
        made.push(name);
    }
    Ok(made)
}

/// Drops the indexes that `ensure` made; tells which.
pub(crate) async fn remove(db: &impl ConnectionTrait, domain: &str) -> Result<Vec<String>, DbErr> {
    let mut removed = Vec::new();
    for (table, column) in FOREIGN_KEYS {
        let Some(relation) = catalog::relation(db, domain, table).await? else {
            continue;
        };
        let name = name(table, column);
        if relation.indexes.iter().any(|index| index.name == name) {
            drop(db, domain, &name).await?;
            removed.push(name);
        }
    }
    Ok(removed)
}

async fn drop(db: &impl ConnectionTrait, domain: &str, name: &str) -> Result<(), DbErr> {
    let sql = format!(r#"DROP INDEX {}."{name}""#, catalog::quoted(domain));
    db.execute_unprepared(&sql).await.map(|_| ())
}

fn name(table: &str, column: &str) -> String {
    format!("clerk_sync_{table}_{column}_idx")
}
