//! The API's process: applications on one side, Clerk and the database on the other.

use std::sync::Arc;

use anyhow::Context as _;
use clerk_sync_pipeline::{
    admin::{self, Readiness},
    config,
    lifecycle::Shutdown,
    telemetry::Metrics,
};
use clerk_sync_projection::Projection;

use crate::config::{Args, CONNECTIONS};

/// Answers until shutdown is requested.
///
/// # Errors
/// A port cannot be had, or the database's URL cannot be understood.
pub async fn answer(args: Args, shutdown: Shutdown) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::new(0));
    let readiness = Readiness::default();
    let listener = config::bind("LISTEN", args.listen)
        .await
        .map_err(anyhow::Error::msg)?;
    let admin_listener = args
        .process
        .bind_admin()
        .await
        .map_err(anyhow::Error::msg)?;
    let db = args.database.open(CONNECTIONS).await;
    let db = db.context("DATABASE_URL")?;
    let projection = Projection::new(db.clone(), args.projection.config(), metrics.clone());
    watch_database(&projection, &readiness);
    let api = args
        .api
        .build(&args.clerk_secret_key, db, projection, metrics.clone())?;
    api.watch(&readiness);
    let work = async {
        clerk_sync_ingest::serve(api.clone(), args.port, listener, shutdown.clone()).await;
        api.close().await;
    };
    admin::serve(admin_listener, metrics, readiness, shutdown.clone(), work).await;
    Ok(())
}

/// Makes the database a part of readiness, asked for each `/readyz`.
fn watch_database(projection: &Projection, readiness: &Readiness) {
    let projection = projection.clone();
    readiness.asked("database", move || {
        let projection = projection.clone();
        async move { projection.ping().await.map_err(|unavailable| unavailable.0) }
    });
}
