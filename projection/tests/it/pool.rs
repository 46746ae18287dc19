//! What the metrics say of the pool of connections.

use std::time::Duration;

use clerk_sync_pipeline::telemetry::ConnectionState;
use clerk_sync_projection::{Projection, ProjectionConfig, database};
use sea_orm::TransactionTrait as _;
use tokio::time::{sleep, timeout};

use crate::database::{Db, metrics};

/// Longest wait for a connection that is given back.
const PATIENCE: Duration = Duration::from_secs(20);

on_both_databases! {
    connections_in_use_are_counted_against_their_limit,
}

async fn connections_in_use_are_counted_against_their_limit(db: &Db) {
    let metrics = metrics();
    let pool = database::connect(&db.url, 3).await.unwrap();
    let _projection = Projection::new(pool.clone(), ProjectionConfig::default(), metrics.clone());
    let counted = || {
        let _measured = metrics.render();
        let in_use = metrics.db_connections.get(ConnectionState::InUse).get();
        (in_use, metrics.db_connections_limit.get())
    };
    // A connection is looked at before it is back.
    let all_rest = async || {
        let rest = async {
            while counted() != (0, 3) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, rest).await.unwrap();
    };
    all_rest().await;
    let transactions = [pool.begin().await.unwrap(), pool.begin().await.unwrap()];
    assert_eq!(counted(), (2, 3));
    for transaction in transactions {
        transaction.rollback().await.unwrap();
    }
    all_rest().await;
    let idle = metrics.db_connections.get(ConnectionState::Idle).get();
    assert!(idle >= 1, "{idle}");
}
