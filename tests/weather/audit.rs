//! The end of every test: what was answered 2xx is applied, exactly, and nothing else is anywhere.

use std::{collections::HashSet, sync::Arc, time::Duration};

use clerk_sync_entity::users;
use clerk_sync_pipeline::{queue::embedded::EmbeddedQueue, telemetry::Metrics};
use clerk_sync_projection::database;
use sea_orm::{ConnectionTrait as _, DbBackend, EntityTrait as _, QueryOrder as _, Statement};

use tokio::time::sleep;

use crate::{
    harness::{
        eventually,
        servers::{Row, patiently},
    },
    load::Delivered,
    site::Site,
};

/// So long without an outcome means that nothing is on its way.
const QUIET: Duration = Duration::from_secs(2);
/// Longest wait until everything is applied.
const APPLIED: Duration = Duration::from_mins(3);

impl Site {
    /// Waits until every event that was answered 2xx is in the ledger.
    pub(crate) async fn applied(&self, ids: &HashSet<String>) {
        let mut missing = Vec::new();
        let done = tokio::time::timeout(APPLIED, async {
            loop {
                let ledger = self.ledger().await;
                missing = ids
                    .iter()
                    .filter(|id| !ledger.contains(*id))
                    .cloned()
                    .collect();
                if missing.is_empty() {
                    return;
                }
                sleep(Duration::from_millis(250)).await;
            }
        });
        let done = done.await;
        assert!(
            done.is_ok(),
            "{} of {} events that were answered 2xx are not in the ledger: {:?} …",
            missing.len(),
            ids.len(),
            &missing[..missing.len().min(5)],
        );
    }

    /// The whole audit, then the polite end of every process, then a look for leftovers.
    pub(crate) async fn audit(self, delivered: &Delivered) {
        self.applied(&delivered.ids).await;
        for member in self.workers() {
            let retries = member.process.metric("clerk_sync_retries_total", "").await;
            assert!(retries < 0.5, "an event was retried or postponed");
        }
        self.audit_with_retries(delivered).await;
    }

    /// The same where some events had to climb the ladder.
    pub(crate) async fn audit_with_retries(mut self, delivered: &Delivered) {
        assert!(!delivered.ids.is_empty(), "nothing was delivered");
        self.applied(&delivered.ids).await;
        eventually("the table is right", APPLIED, async || {
            self.rows().await.is_some_and(|rows| rows == delivered.rows)
        })
        .await;
        let ledger = self.ledger().await;
        assert_eq!(ledger.len(), delivered.ids.len(), "events nobody delivered");
        // Credits are granted with a user's first row. Applied twice would be granted twice.
        let granted = self.db.count("SELECT count(*) FROM credits").await;
        assert_eq!(usize::try_from(granted).unwrap(), delivered.rows.len());
        for member in self.workers() {
            let dead = member
                .process
                .metric("clerk_sync_dead_letters_total", "")
                .await;
            assert!(dead < 0.5, "an event was dead-lettered");
        }
        self.is_quiet().await;
        self.stop().await;
        self.nothing_is_left().await;
        self.remove().await;
    }

    /// Waits until the duplicates that come last have been seen to as well.
    async fn is_quiet(&self) {
        let outcomes = async || {
            let mut sum = 0.0;
            for worker in self.workers() {
                sum += worker.process.metric("clerk_sync_events_total", "").await;
            }
            sum
        };
        let mut before = -1.0;
        loop {
            let now = outcomes().await;
            if (now - before).abs() < 0.5 {
                return;
            }
            before = now;
            sleep(QUIET).await;
        }
    }

    /// Every process is gone, so nothing is in anyone's hands: what is left is in a queue.
    pub(crate) async fn nothing_is_left(&self) {
        let Some(queue) = &self.queue else {
            let metrics = Arc::new(Metrics::new(0));
            let ladder = clerk_sync_pipeline::queue::RetryLadder::default();
            let queue = EmbeddedQueue::open(&self.queue_file(), ladder, metrics).unwrap();
            let depths = queue.depths().await.unwrap();
            let delayed: u64 = depths.delayed.iter().map(|(_, count)| count).sum();
            let left = (depths.ready, delayed, depths.in_flight, depths.dead);
            queue.close().await;
            assert_eq!(left, (0, 0, 0, 0), "ready, delayed, in flight, dead");
            let file = format!("sqlite:{}", self.queue_file().display());
            let file = database::connect(&file.parse().unwrap(), 1).await.unwrap();
            let check = Statement::from_string(DbBackend::Sqlite, "PRAGMA integrity_check");
            let found = file.query_one_raw(check).await.unwrap().unwrap();
            assert_eq!(found.try_get_by_index::<String>(0).unwrap(), "ok");
            file.close().await.unwrap();
            return;
        };
        let topology = &queue.server.topology;
        let rungs = topology.ladder.rungs().map(|rung| topology.rung(rung));
        let names = [topology.apply(), topology.unrouted(), topology.dead()];
        for name in names.into_iter().chain(rungs) {
            assert_eq!(queue.depth(&name).await, 0, "left over in {name}");
        }
    }

    /// The ids of what was applied, by the ledger.
    async fn ledger(&self) -> HashSet<String> {
        let backend = self.db.db.get_database_backend();
        let table = match backend {
            DbBackend::Postgres => "clerk_sync.processed_events",
            _ => "clerk_sync_processed_events",
        };
        let put_aside = "('retried', 'dead_lettered')";
        let sql = format!("SELECT event_id FROM {table} WHERE outcome NOT IN {put_aside}");
        let statement = || Statement::from_string(backend, &sql);
        let rows = patiently(async || self.db.db.query_all_raw(statement()).await).await;
        rows.iter()
            .map(|row| row.try_get_by_index(0).unwrap())
            .collect()
    }

    async fn rows(&self) -> Option<Vec<Row>> {
        let rows = users::Entity::find()
            .order_by_asc(users::Column::ClerkId)
            .all(&self.db.db)
            .await
            .ok()?;
        let mut rows: Vec<Row> = rows
            .into_iter()
            .map(|row| (row.clerk_id, row.email, row.name))
            .collect();
        rows.sort();
        Some(rows)
    }
}
