//! An empty database.

use clerk_sync_migration::{Wanted, check, up};
use sea_orm_migration::sea_orm::ConnectionTrait;

use crate::database::{CASCADE, PRISMA, Postgres, Sqlite, added, postgres_catalog, texts};

#[tokio::test]
async fn an_empty_database_becomes_prismas() {
    let (ours, prismas) = (Postgres::new().await, Postgres::new().await);
    let report = up(&ours.db).await.unwrap();
    assert_eq!((report.domain.as_str(), report.adopted), ("public", false));
    assert_eq!(
        report.applied,
        ["m0001_domain", "m0002_bookkeeping", "m0003_bookmarks"]
    );
    assert_eq!(report.indexes, CASCADE);

    prismas.db.execute_unprepared(PRISMA).await.unwrap();
    let prismas = postgres_catalog(&prismas.db).await;
    let ours = postgres_catalog(&ours.db).await;
    assert_eq!(
        added(&ours, &prismas),
        [""; 0],
        "nothing of Prisma's is missing"
    );
    let more: Vec<_> = added(&prismas, &ours)
        .into_iter()
        .filter(|line| !line.contains("clerk_sync.") && line != "schema clerk_sync")
        .filter(|line| !line.contains(" on processed_events") && !line.contains("on migrations"))
        .collect();
    // Each partial index is a relation and an index.
    assert_eq!(more.len(), 2 * CASCADE.len(), "{more:#?}");
    assert!(
        more.iter()
            .all(|line| CASCADE.iter().any(|index| line.contains(index))),
        "{more:#?}"
    );
    assert!(
        more.iter()
            .filter(|line| line.starts_with("index"))
            .all(|l| l.contains("IS NOT NULL")),
        "Prisma sees an index that is not partial as drift: {more:#?}"
    );
}

#[tokio::test]
async fn an_empty_file_has_the_columns_and_keys_of_prisma() {
    let (file, prismas) = (Sqlite::new().await, Postgres::new().await);
    let report = up(&file.db).await.unwrap();
    assert_eq!((report.domain.as_str(), report.adopted), ("main", false));
    assert_eq!(report.indexes, CASCADE);
    check(&file.db, Wanted { credits: true }).await.unwrap();

    prismas.db.execute_unprepared(PRISMA).await.unwrap();
    let wanted = texts(
        &prismas.db,
        r#"
        SELECT format('%s.%s %s %s %s', table_name, column_name,
            CASE data_type WHEN 'timestamp without time zone' THEN 'DATETIME'
                ELSE upper(data_type) END,
            CASE is_nullable WHEN 'NO' THEN 1 ELSE 0 END, coalesce(column_default, '-')) COLLATE "C"
        FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1"#,
    )
    .await;
    let columns = texts(
        &file.db,
        r#"
        SELECT t.name || '.' || c.name || ' ' || c.type || ' ' || c."notnull" || ' '
            || coalesce(c.dflt_value, '-')
        FROM sqlite_master t, pragma_table_info(t.name) c
        WHERE t.type = 'table' AND t.name NOT LIKE 'clerk_sync%' ORDER BY 1"#,
    )
    .await;
    assert_eq!(columns, wanted);

    let wanted = texts(
        &prismas.db,
        r#"
        SELECT format('%s.%s %s %s', c.conrelid::regclass, a.attname, c.confrelid::regclass,
            CASE c.confdeltype WHEN 'c' THEN 'CASCADE' WHEN 'n' THEN 'SET NULL' END) COLLATE "C"
        FROM pg_constraint c JOIN pg_attribute a
            ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
        WHERE c.contype = 'f' ORDER BY 1"#,
    )
    .await;
    let keys = texts(
        &file.db,
        r#"
        SELECT t.name || '.' || k."from" || ' ' || k."table" || ' ' || k.on_delete
        FROM sqlite_master t, pragma_foreign_key_list(t.name) k WHERE t.type = 'table' ORDER BY 1"#,
    )
    .await;
    assert_eq!(keys, wanted);
}
