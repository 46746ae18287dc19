//! The database: reached, migrated, adoptable, permitted, and when it last heard of Clerk.

use std::{sync::Arc, time::Duration};

use chrono::{TimeDelta, Utc};
use clerk_sync_entity::bookmarks;
use clerk_sync_migration::{self as migration, MigrateError, Wanted};
use clerk_sync_pipeline::{secret::ServerUrl, telemetry::Metrics};
use clerk_sync_projection::{
    Projection,
    database::{self, Database, Kind},
    inspect::{self, Fitness, LastEvent, is_right_refused},
};
use sea_orm::DbErr;
use tokio::time::timeout;

use super::{
    files,
    network::{ALL_QUESTIONS, PATIENCE, in_millis},
    postgres,
    report::{Group, Line, Status},
    settings::Settings,
};

/// A database that hears nothing for so long has lost its endpoint: Svix disables one that failed
/// for five days.
const SILENT: TimeDelta = TimeDelta::days(5);
/// Connections of this command: one that is asked, one to spare.
const CONNECTIONS: u32 = 2;

/// What a database says of the instance that its rows came from.
#[derive(Debug)]
pub(super) struct Origin {
    /// As a command has made sure.
    pub(super) instance: Option<String>,
    /// As the first event said.
    pub(super) first_instance: Option<String>,
}

/// Where the tables are, as somebody who writes to them.
pub(super) async fn open(settings: &Settings, url: &ServerUrl) -> Result<Projection, DbErr> {
    let prepare = settings.tables.session.database_prepared_statements;
    let db = database::open_to_look(url, CONNECTIONS, prepare).await?;
    Ok(of(db, settings))
}

fn of(db: Database, settings: &Settings) -> Projection {
    let config = settings.worker.projection.config_of_any_instance();
    Projection::new(db, config, Arc::new(Metrics::new(0)))
}

/// No origin where it could not be asked for.
pub(super) async fn examine(settings: &Settings, url: &ServerUrl) -> (Group, Option<Origin>) {
    let name = match database::kind(url) {
        Ok(Kind::Sqlite) => "sqlite",
        _ => "postgresql",
    };
    let (mut lines, mut origin) = (Vec::new(), None);
    let asked = timeout(ALL_QUESTIONS, ask(settings, url, &mut lines, &mut origin)).await;
    if asked.is_err() {
        lines.push(Line::problem(
            "reachable",
            format!("it took the connection, and then did not answer within {ALL_QUESTIONS:?}"),
            "look at the server's log; does somebody hold locks on the catalog?",
        ));
    }
    (Group::new(name, lines), origin)
}

async fn ask(
    settings: &Settings,
    url: &ServerUrl,
    lines: &mut Vec<Line>,
    origin: &mut Option<Origin>,
) {
    if let Some(path) = inspect::file(url) {
        if !path.exists() {
            lines.push(files::missing(&path));
            return;
        }
        lines.push(files::writable(&path));
    }
    let prepare = settings.tables.session.database_prepared_statements;
    let db = match database::open_to_look(url, CONNECTIONS, prepare).await {
        Ok(db) => db,
        Err(error) => return lines.push(away(url, &error.to_string())),
    };
    match inspect::reach(&db, PATIENCE).await {
        Ok(took) => lines.push(reached(url, took)),
        Err(cause) => return lines.push(away(url, &cause)),
    }
    let projection = of(db.clone(), settings);
    if database::kind(url) == Ok(Kind::Postgres) {
        postgres::examine(&projection, settings, url, lines).await;
    }
    let migrated = migrations(&db, lines).await;
    schema(&db, settings, lines).await;
    if !migrated {
        lines.push(Line::skipped("rights", "the migrations come first"));
        return;
    }
    rights(&projection, lines).await;
    // Why these cannot be read, `rights` has told.
    let instance = projection.bookmark(bookmarks::INSTANCE).await;
    let first_instance = projection.bookmark(bookmarks::FIRST_INSTANCE).await;
    if let (Ok(instance), Ok(first_instance)) = (instance, first_instance) {
        *origin = Some(Origin {
            instance,
            first_instance,
        });
    }
    if let Ok(last) = projection.last_event().await {
        lines.push(last_event(last));
    }
}

fn reached(url: &ServerUrl, took: Duration) -> Line {
    Line::ok("reachable", format!("{url}, in {}", in_millis(took))).took(took)
}

pub(super) fn away(url: &ServerUrl, cause: &str) -> Line {
    Line::problem(
        "reachable",
        format!("{url}: {cause}"),
        "is it running there? DATABASE_URL has its host and port, role and password, and after the \
         last slash the database",
    )
}

/// Whether every migration was applied, as far as that may be looked at.
async fn migrations(db: &Database, lines: &mut Vec<Line>) -> bool {
    const NAME: &str = "migrations";
    let history = async {
        let transaction = db.begin().await?;
        let pending = migration::pending(&transaction).await?;
        let unknown = migration::unknown(&transaction).await?;
        Ok::<_, DbErr>((pending, unknown))
    };
    match history.await {
        Ok((pending, unknown)) => {
            if !pending.is_empty() {
                lines.push(Line::problem(
                    NAME,
                    format!("pending: {}", pending.join(", ")),
                    "run `clerk-sync migrate up`, as the owner of the tables",
                ));
            }
            if !unknown.is_empty() {
                lines.push(Line::warning(
                    NAME,
                    format!("of a newer clerk-sync than this: {}", unknown.join(", ")),
                    "run the newer version; this one goes on as long as it finds what it needs",
                ));
            }
            if pending.is_empty() && unknown.is_empty() {
                lines.push(Line::ok(NAME, "all are applied"));
            }
            pending.is_empty()
        }
        Err(error) if is_right_refused(&error) => {
            lines.push(Line::skipped(
                NAME,
                "their history is not for this role to read, as deploy/postgres/roles.sql has it; \
                 `rights` looks for the tables themselves",
            ));
            true
        }
        Err(error) => {
            let cure = "run `clerk-sync migrate status` for more";
            lines.push(Line::problem(NAME, error.to_string(), cure));
            false
        }
    }
}

async fn schema(db: &Database, settings: &Settings, lines: &mut Vec<Line>) {
    const NAME: &str = "schema";
    let wanted = Wanted {
        credits: settings.worker.projection.grants(),
    };
    let adoptable = async {
        let transaction = db.begin().await?;
        migration::adoptable(&transaction, wanted).await
    };
    match adoptable.await {
        Ok(true) => lines.push(Line::ok(NAME, "the application's tables fit")),
        Ok(false) => lines.push(Line::ok(NAME, "no tables yet: the migration makes them")),
        Err(MigrateError::Schema(errors)) => lines.extend(errors.0.iter().map(|problem| {
            Line::problem(
                NAME,
                problem.to_string(),
                "change the application's schema to that: clerk-sync alters no table of yours",
            )
        })),
        Err(error) => lines.push(Line::problem(
            NAME,
            format!("{:#}", anyhow::Error::from(error)),
            "does `?schema=` in DATABASE_URL name a schema that is there and open to the role?",
        )),
    }
}

async fn rights(projection: &Projection, lines: &mut Vec<Line>) {
    const NAME: &str = "rights";
    let fitness = projection.fitness().await;
    if fitness == Fitness::default() {
        lines.push(Line::ok(NAME, "the role may do all that a worker does"));
    }
    if fitness.is_held {
        lines.push(Line::warning(
            NAME,
            "somebody keeps writers off a table, so not everything could be asked; nor can a worker \
             write meanwhile",
            "run this again in a moment; if it stays so, docs/OPERATIONS.md has the query for who it \
             is (ClerkSyncConsumptionPaused)",
        ));
    }
    for reason in fitness.reasons {
        // What to do is said below.
        let what = reason.split(": run ").next().unwrap_or(&reason);
        let cure = "run deploy/postgres/roles.sql for the worker's role, after `clerk-sync migrate \
                    up`";
        lines.push(Line::problem(NAME, what, cure));
    }
}

fn last_event(last: Option<LastEvent>) -> Line {
    const NAME: &str = "last_event";
    let Some(last) = last else {
        return Line::skipped(NAME, "no event was applied yet");
    };
    let age = Utc::now() - last.received_at;
    let shown = last.received_at.format("%Y-%m-%d %H:%M:%S UTC");
    let text = format!("received {} ago, at {shown}", in_words(age));
    if age > SILENT {
        Line::warning(
            NAME,
            text,
            "does the Clerk dashboard (Webhooks, Message Attempts) show deliveries since? Svix \
             disables an endpoint that has failed for five days",
        )
    } else {
        Line::ok(NAME, text)
    }
}

/// `12s`, `3h 20m`: two units at most.
fn in_words(age: TimeDelta) -> String {
    let seconds = age.num_seconds().max(0).unsigned_abs();
    let rounded = match seconds {
        0..3600 => seconds,
        3600..86_400 => seconds / 60 * 60,
        _ => seconds / 3600 * 3600,
    };
    humantime::format_duration(Duration::from_secs(rounded)).to_string()
}

/// Whether a group is about a database that answers and has all its tables.
pub(super) fn is_to_be_asked(group: &Group) -> bool {
    let is_ok = |name: &str| {
        let mut lines = group.lines.iter();
        lines.any(|line| line.name == name && line.status == Status::Ok)
    };
    let is_migrated = !group
        .lines
        .iter()
        .any(|line| line.name == "migrations" && line.status == Status::Problem);
    matches!(group.name, "sqlite" | "postgresql") && is_ok("reachable") && is_migrated
}
