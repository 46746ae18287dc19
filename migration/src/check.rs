//! Whether the application's tables are what we can write to.

use std::fmt;

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

use crate::MigrateError;
use crate::catalog::{self, Column, Relation};

/// What the caller is going to write besides `users`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Rows in `credits` for new users.
    pub credits: bool,
}

/// Everything that is wrong with the application's tables; at least one problem.
#[derive(Debug, thiserror::Error)]
pub struct SchemaErrors(pub Vec<Problem>);

impl fmt::Display for SchemaErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the application's tables do not fit:")?;
        self.0
            .iter()
            .try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The table.
    pub table: String,
    /// The column, unless it is the table itself.
    pub column: Option<String>,
    /// What is there.
    pub found: String,
    /// What should be.
    pub wanted: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.column {
            Some(column) => write!(f, "column {}.\"{column}\"", self.table)?,
            None => write!(f, "table {}", self.table)?,
        }
        write!(f, ": found {}, wanted {}", self.found, self.wanted)
    }
}

/// Looks at the application's tables, and lists every problem at once. Changes nothing.
///
/// `up` does the same for `users` before it commits; a process that writes `credits` asks again.
pub async fn check(db: &impl ConnectionTrait, wanted: Wanted) -> Result<(), MigrateError> {
    let domain = catalog::domain(db).await?.ok_or(MigrateError::NoSchema)?;
    check_in(db, &domain, wanted).await
}

/// The same, in a schema already known.
pub(crate) async fn check_in(
    db: &impl ConnectionTrait,
    domain: &str,
    wanted: Wanted,
) -> Result<(), MigrateError> {
    let backend = db.get_database_backend();
    let mut tables = vec![USERS];
    if wanted.credits {
        tables.push(CREDITS);
    }
    let mut problems = Vec::new();
    for table in tables {
        let relation = catalog::relation(db, domain, table.name).await?;
        table.compare(backend, relation.as_ref(), &mut problems);
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(SchemaErrors(problems).into())
    }
}

/// A type of ours, which each backend spells in its own ways.
#[derive(Clone, Copy)]
enum Type {
    Text,
    Timestamp,
    Integer,
}

/// What we write to a table.
struct Table {
    name: &'static str,
    /// The columns we write, and those of them that must take NULL.
    columns: &'static [(&'static str, Type)],
    nullable: &'static [&'static str],
    /// Columns that identify a row.
    unique: &'static [&'static str],
}

const USERS: Table = Table {
    name: "users",
    columns: &[
        ("id", Type::Text),
        ("clerkId", Type::Text),
        ("email", Type::Text),
        ("name", Type::Text),
        ("imageUrl", Type::Text),
        ("createdAt", Type::Timestamp),
        ("updatedAt", Type::Timestamp),
    ],
    nullable: &["name", "imageUrl"],
    unique: &["clerkId", "email"],
};

const CREDITS: Table = Table {
    name: "credits",
    columns: &[
        ("id", Type::Text),
        ("userId", Type::Text),
        ("amount", Type::Integer),
        ("createdAt", Type::Timestamp),
        ("updatedAt", Type::Timestamp),
    ],
    nullable: &[],
    unique: &[],
};

impl Table {
    fn compare(&self, backend: DbBackend, relation: Option<&Relation>, all: &mut Vec<Problem>) {
        let mut problem = |column: Option<&str>, found: &str, wanted: &str| {
            all.push(Problem {
                table: self.name.to_owned(),
                column: column.map(str::to_owned),
                found: found.to_owned(),
                wanted: wanted.to_owned(),
            });
        };
        let Some(relation) = relation else {
            return problem(None, "nothing of this name", "a table");
        };
        if !relation.is_table() {
            return problem(None, &format!("a {}", relation.kind), "a table");
        }
        for &(name, kind) in self.columns {
            match relation.column(name) {
                None => problem(Some(name), "no such column", kind.wanted(backend)),
                Some(column) if !kind.fits(backend, column) => {
                    problem(Some(name), &column.shown, kind.wanted(backend));
                }
                Some(column) if kind.loses_milliseconds(backend, column) => {
                    let cure = format!(
                        r#"{}: ALTER TABLE {} ALTER COLUMN "{name}" TYPE TIMESTAMP(3)"#,
                        kind.wanted(backend),
                        self.name
                    );
                    problem(Some(name), &column.shown, &cure);
                }
                Some(column) if column.generated => {
                    problem(Some(name), "a generated column", "one that can be written");
                }
                Some(column) if column.not_null && self.nullable.contains(&name) => {
                    problem(
                        Some(name),
                        "NOT NULL",
                        "NULL allowed: Clerk has users without it",
                    );
                }
                Some(_) if self.unique.contains(&name) && !relation.is_unique(name) => {
                    let wanted = "a unique index on exactly this column, neither partial nor \
                                  deferrable";
                    problem(Some(name), "none", wanted);
                }
                Some(_) => {}
            }
        }
        for column in &relation.columns {
            let ours = self.columns.iter().any(|(name, _)| column.name == *name);
            if !ours && column.not_null && !column.has_default && !column.generated {
                let wanted = "a default or NULL allowed: an insert of ours does not name it";
                problem(Some(&column.name), "NOT NULL without a default", wanted);
            }
        }
    }
}

impl Type {
    fn fits(self, backend: DbBackend, column: &Column) -> bool {
        let base = column.base.as_str();
        match (backend, self) {
            (DbBackend::Postgres, Self::Text) => matches!(base, "text" | "character varying"),
            // Never `with time zone`: what we write is UTC, and would be taken for local time.
            (DbBackend::Postgres, Self::Timestamp) => base == "timestamp without time zone",
            (DbBackend::Postgres, Self::Integer) => base == "integer",
            // SQLite's rules of affinity: https://sqlite.org/datatype3.html
            (_, Self::Text) => ["char", "clob", "text"]
                .iter()
                .any(|part| base.contains(part)),
            (_, Self::Timestamp) => matches!(base, "datetime" | "timestamp" | "text"),
            (_, Self::Integer) => base.contains("int"),
        }
    }

    /// Clerk's times have milliseconds. A rounded one is never equal to Clerk's, and its row would
    /// be written again and again. SQLite keeps what it is given.
    fn loses_milliseconds(self, backend: DbBackend, column: &Column) -> bool {
        let too_coarse = ["timestamp(0)", "timestamp(1)", "timestamp(2)"];
        backend == DbBackend::Postgres
            && matches!(self, Self::Timestamp)
            && too_coarse.iter().any(|it| column.shown.starts_with(it))
    }

    fn wanted(self, backend: DbBackend) -> &'static str {
        match (backend, self) {
            (DbBackend::Postgres, Self::Text) => "text or character varying",
            (DbBackend::Postgres, Self::Timestamp) => "timestamp(3) without time zone",
            (_, Self::Text) => "TEXT",
            (_, Self::Timestamp) => "DATETIME",
            (_, Self::Integer) => "integer",
        }
    }
}
