//! `clerk-sync migrate`.

use std::process::ExitCode;

use clerk_sync_migration as migration;
use clerk_sync_projection::{config::DatabaseArgs, database::Database};

/// Database connections: everything is one transaction; one to spare.
const CONNECTIONS: u32 = 2;

/// Make, look at, or take away the tables
#[derive(clap::Subcommand)]
#[command(after_help = "\
Examples:
  clerk-sync migrate up --database-url postgres://user:password@localhost/app
  clerk-sync migrate status --database-url sqlite:clerk-sync-data/clerk-sync.db
  clerk-sync migrate down --yes     (DATABASE_URL from the environment or .env)")]
pub(crate) enum MigrateCommand {
    /// Bring the database up to date, or adopt an existing Prisma database as it is
    Up(DatabaseArgs),
    /// Show which migrations are applied
    Status(DatabaseArgs),
    /// Remove the bookkeeping; users and every other table of the application stay
    Down(DownArgs),
}

#[derive(clap::Args)]
pub(crate) struct DownArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Yes: forget which versions and which deleted users were seen
    #[arg(long)]
    yes: bool,
}

pub(crate) fn run(command: MigrateCommand) -> ExitCode {
    crate::finish(async {
        match command {
            MigrateCommand::Up(args) => up(&args.open(CONNECTIONS).await?).await,
            MigrateCommand::Status(args) => status(&args.open(CONNECTIONS).await?).await,
            MigrateCommand::Down(args) => down(args).await,
        }
    })
}

async fn up(db: &Database) -> anyhow::Result<ExitCode> {
    let report = migration::up_with(&db.pool, db.opening()).await?;
    match (report.adopted, report.applied.is_empty()) {
        (_, true) => say!("nothing to do: the database is up to date"),
        (true, false) => say!(
            "adopted the existing tables of `{}` as they are",
            report.domain
        ),
        (false, false) => say!("made the application's tables in `{}`", report.domain),
    }
    for name in report.applied {
        say!("  applied {name}");
    }
    for name in report.indexes {
        say!("  made index {name}");
    }
    Ok(ExitCode::SUCCESS)
}

async fn status(db: &Database) -> anyhow::Result<ExitCode> {
    let transaction = db.begin().await?;
    let mut pending = 0;
    for step in migration::status(&transaction).await? {
        let state = if step.applied { "applied" } else { "pending" };
        pending += usize::from(!step.applied);
        say!("{state}  {}", step.name);
    }
    if pending > 0 {
        say!("\n{pending} pending: run `clerk-sync migrate up`");
        return Ok(ExitCode::FAILURE);
    }
    migration::check(&transaction, migration::Wanted::default()).await?;
    Ok(ExitCode::SUCCESS)
}

async fn down(args: DownArgs) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        args.yes,
        "this forgets every version and every deleted user that was seen: events that are \
         delivered again could bring old values and deleted users back. Add --yes if that is meant",
    );
    let db = args.database.open(CONNECTIONS).await?;
    let removed = migration::down_with(&db.pool, db.opening()).await?;
    if removed.is_empty() {
        say!("nothing of ours was there");
    }
    for name in removed {
        say!("removed {name}");
    }
    Ok(ExitCode::SUCCESS)
}
