//! What a database has: read from PostgreSQL's catalog or SQLite's pragmas, in one shape.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{DbBackend, FromQueryResult, Statement, Value};

/// Something with a table's name, and what is known of it.
#[derive(Debug)]
pub(crate) struct Relation {
    /// `table`, or what it is instead: `view`, `foreign table` …
    pub(crate) kind: String,
    pub(crate) columns: Vec<Column>,
    pub(crate) indexes: Vec<Index>,
}

#[derive(Debug, FromQueryResult)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// The type as a person writes it: `timestamp(3) without time zone`.
    pub(crate) shown: String,
    /// The type without length or precision, in lower case.
    pub(crate) base: String,
    pub(crate) not_null: bool,
    /// Whether an insert may leave it out although it is NOT NULL.
    pub(crate) has_default: bool,
    /// Whether an insert may not name it.
    pub(crate) generated: bool,
}

/// An index.
#[derive(Debug, FromQueryResult)]
pub(crate) struct Index {
    pub(crate) name: String,
    /// Its first column; `None` when that is an expression.
    pub(crate) leading: Option<String>,
    /// How many key columns it has.
    pub(crate) width: i32,
    /// Unique, and checked at once, as `ON CONFLICT` needs it.
    pub(crate) is_unique: bool,
    pub(crate) partial: bool,
    /// Ready for use; one that `CONCURRENTLY` failed to build is not.
    pub(crate) valid: bool,
}

impl Relation {
    pub(crate) fn is_table(&self) -> bool {
        self.kind == "table"
    }

    pub(crate) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Whether each value of the column can occur only once.
    pub(crate) fn is_unique(&self, column: &str) -> bool {
        self.indexes.iter().any(|index| {
            index.is_unique
                && index.valid
                && !index.partial
                && index.width == 1
                && index.leading.as_deref() == Some(column)
        })
    }
}

/// The schema of the application: where an unqualified `users` is found or, if there is none yet,
/// would be created. `None` when the search_path names no schema that exists.
///
/// Our own schema is passed over: for a role named `clerk_sync` it comes first in the default
/// search_path (`"$user", public`), and the application's tables must not land in it.
pub(crate) async fn domain(db: &impl ConnectionTrait) -> Result<Option<String>, DbErr> {
    if db.get_database_backend() != DbBackend::Postgres {
        return Ok(Some("main".to_owned()));
    }
    let sql = r#"
        SELECT coalesce(
            (SELECT n.nspname FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.oid = to_regclass('users')),
            (SELECT schema FROM unnest(current_schemas(false)) WITH ORDINALITY AS path (schema, n)
             WHERE schema <> 'clerk_sync' ORDER BY n LIMIT 1))::text"#;
    let row = db
        .query_one_raw(Statement::from_string(DbBackend::Postgres, sql))
        .await?;
    row.map_or(Ok(None), |row| row.try_get_by_index(0))
}

/// What has this name in the schema, if anything.
pub(crate) async fn relation(
    db: &impl ConnectionTrait,
    schema: &str,
    name: &str,
) -> Result<Option<Relation>, DbErr> {
    let (sql, key): ([&str; 3], Vec<Value>) = match db.get_database_backend() {
        DbBackend::Postgres => (POSTGRES, vec![schema.into(), name.into()]),
        _ => (SQLITE, vec![name.into()]),
    };
    let statement =
        |sql| Statement::from_sql_and_values(db.get_database_backend(), sql, key.clone());
    let [kind, columns, indexes] = sql;
    let Some(row) = db.query_one_raw(statement(kind)).await? else {
        return Ok(None);
    };
    Ok(Some(Relation {
        kind: row.try_get_by_index(0)?,
        columns: Column::find_by_statement(statement(columns))
            .all(db)
            .await?,
        indexes: Index::find_by_statement(statement(indexes)).all(db).await?,
    }))
}

/// An identifier of PostgreSQL or SQLite, quoted.
pub(crate) fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// Kind, columns and indexes of the relation `$2` in schema `$1`.
const POSTGRES: [&str; 3] = [
    r#"
    SELECT CASE c.relkind
        WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'v' THEN 'view'
        WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' WHEN 'S' THEN 'sequence'
        WHEN 'i' THEN 'index' ELSE 'relation of kind ' || c.relkind::text END
    FROM pg_catalog.pg_class c WHERE c.oid = to_regclass(format('%I.%I', $1, $2))"#,
    r#"
    SELECT a.attname::text AS name,
        format_type(a.atttypid, a.atttypmod) AS shown,
        lower(format_type(a.atttypid, NULL)) AS base,
        a.attnotnull OR t.typnotnull AS not_null,
        a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL AS has_default,
        a.attgenerated <> '' OR a.attidentity = 'a' AS generated
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = to_regclass(format('%I.%I', $1, $2)) AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum"#,
    r#"
    SELECT c.relname::text AS name,
        (SELECT a.attname::text FROM pg_catalog.pg_attribute a
         WHERE a.attrelid = i.indrelid AND a.attnum = i.indkey[0]) AS leading,
        i.indnkeyatts::int4 AS width,
        i.indisunique AND i.indimmediate AS is_unique,
        i.indpred IS NOT NULL AS partial,
        i.indisvalid AS valid
    FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid = to_regclass(format('%I.%I', $1, $2))
    ORDER BY c.relname"#,
];

/// Kind, columns and indexes of the relation `?1`.
const SQLITE: [&str; 3] = [
    r#"SELECT "type" FROM sqlite_master WHERE "name" = ?1 AND "type" IN ('table', 'view')"#,
    r#"
    SELECT "name", "type" AS "shown",
        lower(trim(CASE instr("type", '(') WHEN 0 THEN "type"
            ELSE substr("type", 1, instr("type", '(') - 1) END)) AS "base",
        "notnull" AS "not_null", "dflt_value" IS NOT NULL AS "has_default",
        "hidden" IN (2, 3) AS "generated"
    FROM pragma_table_xinfo(?1) ORDER BY "cid""#,
    r#"
    SELECT l."name",
        (SELECT i."name" FROM pragma_index_info(l."name") i WHERE i."seqno" = 0) AS "leading",
        (SELECT count(*) FROM pragma_index_info(l."name")) AS "width",
        l."unique" AS "is_unique", l."partial", TRUE AS "valid"
    FROM pragma_index_list(?1) l ORDER BY l."name""#,
];
