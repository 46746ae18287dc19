//! Settings of everybody who has a database.

use clerk_sync_pipeline::secret::ServerUrl;
use sea_orm::DbErr;

use crate::{
    MissingEmail, ProjectionConfig,
    change::Rules,
    database::{self, Database},
};

/// The application's database.
#[derive(Clone, Debug, clap::Args)]
pub struct DatabaseArgs {
    /// The application's database: postgres://… or sqlite:…
    #[arg(
        long, env, hide_env_values = true, value_name = "URL", value_parser = database_url,
        help_heading = "Database"
    )]
    pub database_url: ServerUrl,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment would become the help's heading")]
    pub session: SessionArgs,
}

impl DatabaseArgs {
    /// A pool of at most so many connections.
    ///
    /// # Errors
    /// The URL cannot be understood.
    pub async fn open(&self, connections: u32) -> Result<Database, DbErr> {
        self.session.open(&self.database_url, connections).await
    }
}

/// How the database is spoken to.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct SessionArgs {
    /// Keep prepared statements on each connection. Say false behind PgBouncer in transaction mode,
    /// unless DATABASE_URL has pgbouncer=true
    #[arg(
        long, env, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL",
        help_heading = "Database"
    )]
    pub database_prepared_statements: bool,
}

impl SessionArgs {
    /// A pool of at most so many connections to this database.
    ///
    /// # Errors
    /// The URL cannot be understood.
    pub async fn open(&self, url: &ServerUrl, connections: u32) -> Result<Database, DbErr> {
        database::open(url, connections, self.database_prepared_statements).await
    }
}

/// How users become rows. Whoever does not read events says in the help what becomes of a user
/// there.
#[derive(Clone, Debug, clap::Args)]
pub struct ProjectionArgs {
    /// The only Clerk instance whose events are applied (ins_…); others are dead-lettered
    #[arg(long, env, value_name = "ID")]
    clerk_instance_id: Option<String>,
    /// Credits granted to a new user, once. 0 grants none
    #[arg(long, env, default_value_t = 0, value_name = "AMOUNT", value_parser = clap::value_parser!(i32).range(0..))]
    initial_credits: i32,
    /// A user without any address: dead-letter the event, or write `<clerk id>@no-email.invalid`
    #[arg(
        long,
        env,
        default_value = "dead-letter",
        value_enum,
        ignore_case = true
    )]
    missing_email: MissingEmail,
}

impl ProjectionArgs {
    /// How events and users become rows: only those of the one instance, if it is named.
    #[must_use]
    pub fn config(&self) -> ProjectionConfig {
        ProjectionConfig {
            rules: Rules {
                missing_email: self.missing_email,
                instance_id: self.instance().map(str::to_owned),
            },
            initial_credits: self.initial_credits,
        }
    }

    /// The same, of whichever instance: for whoever compares the instance's id with
    /// [`ProjectionArgs::instance`] and with what the database remembers.
    #[must_use]
    pub fn config_of_any_instance(&self) -> ProjectionConfig {
        let mut config = self.config();
        config.rules.instance_id = None;
        config
    }

    /// The only instance that the rows may be of, if it is named. A blank name is none.
    #[must_use]
    pub fn instance(&self) -> Option<&str> {
        let id = self.clerk_instance_id.as_deref();
        id.filter(|id| !id.is_empty())
    }

    /// Whether a new user is granted credits.
    #[must_use]
    pub fn grants(&self) -> bool {
        self.initial_credits > 0
    }
}

/// Takes a database's address.
///
/// # Errors
/// It names no database that is known here; the text does not repeat it.
pub fn database_url(text: &str) -> Result<ServerUrl, String> {
    let url: ServerUrl = text.parse()?;
    database::kind(&url)?;
    Ok(url)
}
