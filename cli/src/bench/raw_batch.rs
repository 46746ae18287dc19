//! References of `worker`: the statements that the promise needs, written by hand over sqlx, on
//! events that need not be parsed; without a queue, and consumed from one. Same tables, same sizes
//! of batches, as many connections.

use std::{
    collections::{BTreeMap, HashSet},
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use chrono::{DateTime, NaiveDateTime, Utc};
use clerk_sync_pipeline::{queue::amqp::Server, secret::ServerUrl};
use sqlx::{Connection as _, PgConnection};
use tokio::{task::JoinSet, time::sleep};

use super::{
    raw_consume::RawConsumer,
    raw_publish,
    stock::{self, Stock},
};

const CLAIM: &str = r"
    INSERT INTO clerk_sync.processed_events
        (event_id, type, subject, occurred_at, received_at, processed_at, outcome)
    SELECT e.id, $2, e.subject, e.at, $5, $5, $6
    FROM unnest($1::text[], $3::text[], $4::timestamptz[]) AS e (id, subject, at)
    ON CONFLICT (event_id) DO NOTHING
    RETURNING event_id";
const HOLDERS: &str = r#"
    SELECT u."clerkId", u.email, v.updated_at_ms, v.occurred_at_ms, v.event_id
    FROM users u
    LEFT JOIN clerk_sync.user_versions v ON v.clerk_id = (u."clerkId" COLLATE "C")
    WHERE u.email = ANY ($1)"#;
const ADVANCE: &str = r"
    INSERT INTO clerk_sync.user_versions AS held
        (clerk_id, updated_at_ms, occurred_at_ms, event_id)
    SELECT * FROM unnest($1::text[], $2::bigint[], $2::bigint[], $3::text[])
    ON CONFLICT (clerk_id) DO UPDATE SET
        updated_at_ms = excluded.updated_at_ms, occurred_at_ms = excluded.occurred_at_ms,
        event_id = excluded.event_id, deleted_at = excluded.deleted_at
    WHERE held.deleted_at IS NULL
        AND (held.updated_at_ms, held.occurred_at_ms, held.event_id)
            < (excluded.updated_at_ms, excluded.occurred_at_ms, excluded.event_id)
    RETURNING clerk_id";
const UPSERT: &str = r#"
    INSERT INTO users (id, "clerkId", email, name, "imageUrl", "createdAt", "updatedAt")
    SELECT u.id, u.clerk_id, u.email, $4, $5, $6, u.updated_at
    FROM unnest($1::text[], $2::text[], $3::text[], $7::timestamp[])
        AS u (id, clerk_id, email, updated_at)
    ON CONFLICT ("clerkId") DO UPDATE SET
        email = excluded.email, name = excluded.name, "imageUrl" = excluded."imageUrl",
        "createdAt" = excluded."createdAt", "updatedAt" = excluded."updatedAt"
    RETURNING id, "clerkId""#;

/// How often it is looked whether everything is applied.
const LOOK: Duration = Duration::from_millis(5);

/// As long as in the sample.
const NAME: &str = "Maren Holt-Aas";
const IMAGE_URL: &str = "https://img.clerk.com/eyJ0eXBlIjoiZGVmYXVsdCIsImlpZCI6Imluc18zN2RHYW9Hd09TZnlCbVNNMHBCcjEweng3UEEiLCJyaWQiOiJ1c2VyXzNFV3B2bld6OFZFNU1FTnFUT3ozZTJjWURubCIsImluaXRpYWxzIjoiTUgifQ";

/// Applies the first `count` events of a stock; `applied` counts along.
pub(super) async fn apply(
    database: &ServerUrl,
    stock: &Arc<Stock>,
    count: u64,
    batch: u64,
    lanes: usize,
    applied: &Arc<AtomicU64>,
) -> anyhow::Result<()> {
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..lanes {
        let connection = PgConnection::connect(database.expose().as_str()).await?;
        let (stock, next, applied) = (stock.clone(), next.clone(), applied.clone());
        tasks.spawn(async move {
            let mut lane = Lane { connection, stock };
            loop {
                let from = next.fetch_add(batch, Ordering::Relaxed);
                if from >= count {
                    return lane.connection.close().await;
                }
                let numbers: Vec<u64> = (from..(from + batch).min(count)).collect();
                lane.apply(&numbers).await?;
                applied.fetch_add(numbers.len() as u64, Ordering::Relaxed);
            }
        });
    }
    while let Some(lane) = tasks.join_next().await {
        lane??;
    }
    Ok(())
}

/// Applies what is in the queue, `count` events of a stock, and acknowledges each batch after its
/// commit; `applied` counts along.
pub(super) async fn consume(
    broker: &Server,
    database: &ServerUrl,
    stock: &Arc<Stock>,
    count: u64,
    batch: u16,
    lanes: usize,
    applied: &Arc<AtomicU64>,
) -> anyhow::Result<()> {
    let broker = (raw_publish::connect(broker).await?, broker.topology.apply());
    let mut tasks: JoinSet<anyhow::Result<Infallible>> = JoinSet::new();
    // Kept open until the connection closes them: one that closes by itself is in its way.
    let mut channels = Vec::with_capacity(lanes);
    for _ in 0..lanes {
        let connection = PgConnection::connect(database.expose().as_str()).await?;
        let mut consumer = RawConsumer::start(&broker.0, &broker.1, batch).await?;
        channels.push(consumer.channel());
        let (stock, applied) = (stock.clone(), applied.clone());
        tasks.spawn(async move {
            let mut lane = Lane { connection, stock };
            loop {
                let letters = consumer.batch().await?;
                let numbers: Option<Vec<u64>> = letters
                    .iter()
                    .map(|letter| lane.stock.number(letter.id()?))
                    .collect();
                let numbers = numbers.context("a message of another run")?;
                lane.apply(&numbers).await?;
                consumer.ack(&letters).await?;
                applied.fetch_add(numbers.len() as u64, Ordering::Relaxed);
            }
        });
    }
    // A lane ends by failing; all of them, when everything is applied.
    let finished = async {
        while applied.load(Ordering::Relaxed) < count {
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        failed = tasks.join_next() => match failed.context("no lanes")??? {},
        () = finished => {}
    }
    tasks.shutdown().await;
    broker.0.close(200, "done".into()).await?;
    drop(channels);
    Ok(())
}

struct Lane {
    connection: PgConnection,
    stock: Arc<Stock>,
}

impl Lane {
    /// One batch, one transaction. Rows in the order of their keys, so that no two deadlock.
    async fn apply(&mut self, numbers: &[u64]) -> Result<(), sqlx::Error> {
        let stock = &self.stock;
        let ids: Vec<String> = numbers.iter().map(|n| stock.event_id(*n)).collect();
        let subjects: Vec<String> = numbers
            .iter()
            .map(|number| stock::clerk_id(stock.user(*number)))
            .collect();
        let times: Vec<DateTime<Utc>> = numbers
            .iter()
            .map(|number| stock.time(*number).and_utc())
            .collect();
        // The newest of each user.
        let mut winners: BTreeMap<u64, u64> = BTreeMap::new();
        for number in numbers {
            let newest = winners.entry(stock.user(*number)).or_default();
            *newest = (*newest).max(*number);
        }
        let emails: Vec<String> = winners.keys().map(|user| stock::address(*user)).collect();
        let clerk_ids: Vec<String> = winners.keys().map(|user| stock::clerk_id(*user)).collect();
        let versions: Vec<i64> = winners
            .values()
            .map(|number| i64::try_from(stock.updated_at(*number)).unwrap_or(i64::MAX))
            .collect();
        let newest: Vec<String> = winners
            .values()
            .map(|number| stock.event_id(*number))
            .collect();

        let mut tx = self.connection.begin().await?;
        sqlx::raw_sql("SET LOCAL lock_timeout = '8s'; SET LOCAL statement_timeout = '20s'")
            .execute(&mut *tx)
            .await?;
        sqlx::query(CLAIM)
            .bind(&ids)
            .bind(stock.event_type())
            .bind(&subjects)
            .bind(&times)
            .bind(Utc::now())
            .bind("updated")
            .fetch_all(&mut *tx)
            .await?;
        sqlx::query(HOLDERS)
            .bind(&emails)
            .fetch_all(&mut *tx)
            .await?;
        let won: Vec<(String,)> = sqlx::query_as(ADVANCE)
            .bind(&clerk_ids)
            .bind(&versions)
            .bind(&newest)
            .fetch_all(&mut *tx)
            .await?;
        let won: HashSet<&str> = won.iter().map(|(clerk_id,)| clerk_id.as_str()).collect();
        let rows: Vec<(u64, u64)> = winners
            .into_iter()
            .filter(|(user, _)| won.contains(stock::clerk_id(*user).as_str()))
            .collect();
        let keys: Vec<String> = rows.iter().map(|(user, _)| stock::key(*user)).collect();
        let clerk_ids: Vec<String> = rows
            .iter()
            .map(|(user, _)| stock::clerk_id(*user))
            .collect();
        let emails: Vec<String> = rows.iter().map(|(user, _)| stock::address(*user)).collect();
        let times: Vec<NaiveDateTime> =
            rows.iter().map(|(_, number)| stock.time(*number)).collect();
        sqlx::query(UPSERT)
            .bind(&keys)
            .bind(&clerk_ids)
            .bind(&emails)
            .bind(NAME)
            .bind(IMAGE_URL)
            .bind(stock.time(0))
            .bind(&times)
            .fetch_all(&mut *tx)
            .await?;
        tx.commit().await
    }
}
