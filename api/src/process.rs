//! The API's process: applications on one side, Clerk and the database on the other.

use anyhow::Context as _;
use clerk_sync_pipeline::{admin::Readiness, config, lifecycle::Shutdown, telemetry::Metrics};
use clerk_sync_projection::Projection;

use crate::config::{Args, CONNECTIONS};

/// Answers until shutdown is requested.
///
/// # Errors
/// A port cannot be had, or the database's URL cannot be understood.
pub async fn answer(args: Args, shutdown: Shutdown) -> anyhow::Result<()> {
    let listener = config::bind("LISTEN", args.listen).await?;
    let admin = args.process.bind_admin(Metrics::new(0)).await?;
    let db = args.database.open(CONNECTIONS).await;
    let db = db.context("DATABASE_URL")?;
    let projection = Projection::new(db.clone(), args.projection.config(), admin.metrics.clone());
    watch_database(&projection, &admin.readiness);
    let api = args.api.build(
        &args.clerk_secret_key,
        db,
        projection,
        admin.metrics.clone(),
    )?;
    api.watch(&admin.readiness);
    let work = async {
        clerk_sync_ingest::serve(api.clone(), args.port, listener, shutdown.clone()).await;
        api.close().await;
    };
    admin.serve(shutdown.clone(), work).await;
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
