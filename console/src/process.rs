//! The console as a process of its own: a browser on one side, the database and RabbitMQ on the
//! other.

use anyhow::Context as _;
use clerk_sync_entity::processed_events;
use clerk_sync_pipeline::{admin::Readiness, config, lifecycle::Shutdown, telemetry::Metrics};
use clerk_sync_projection::Projection;

use crate::{
    config::{Args, CONNECTIONS, Clerk, ConsoleParts, Queue},
    reader::Reader,
};

/// Shows until shutdown is requested.
///
/// # Errors
/// A port cannot be had, or the database's URL cannot be understood.
pub async fn show(args: Args, shutdown: Shutdown) -> anyhow::Result<()> {
    let listener = config::bind("LISTEN", args.listen).await?;
    let admin = args.process.bind_admin(Metrics::new(0)).await?;
    let db = args.database.open(CONNECTIONS).await;
    let db = db.context("DATABASE_URL")?;
    watch_database(Reader::new(db.clone()), &admin.readiness);
    let config = args.projection.config_of_any_instance();
    let projection = Projection::new(db.clone(), config, admin.metrics.clone());
    let numbers = args.numbers();
    let clerk = match args.clerk_secret_key.0 {
        Some(key) => Some(Clerk::new(
            key,
            args.clerk_api_url,
            args.projection.instance(),
            projection,
            admin.metrics.clone(),
        )?),
        None => None,
    };
    let parts = ConsoleParts {
        token: args.console_token,
        database: db,
        queue: Queue::Rabbit(args.amqp.server()),
        numbers,
        readiness: admin.readiness.clone(),
        clerk,
        shutdown: shutdown.clone(),
    };
    let (console, watch) = parts.build()?;
    let work = async {
        let serving = async {
            let stopping = shutdown.clone();
            clerk_sync_ingest::serve(console.clone(), args.port, listener, stopping).await;
            console.close().await;
        };
        tokio::join!(serving, watch.run());
    };
    // Large, and only once.
    Box::pin(admin.serve(shutdown.clone(), work)).await;
    Ok(())
}

/// Makes the ledger a part of readiness, asked for each `/readyz`.
fn watch_database(reader: Reader, readiness: &Readiness) {
    readiness.asked("database", move || {
        let reader = reader.clone();
        async move {
            // Nothing has this id.
            let nothing = processed_events::by_id(reader.backend(), "");
            let rows = reader.rows(&nothing).await;
            rows.map(drop).map_err(|unavailable| unavailable.0)
        }
    });
}
