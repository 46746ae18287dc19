//! Settings of everybody who has a database.

use clerk_sync_pipeline::secret::ServerUrl;

use crate::database;

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

/// Takes a database's address.
///
/// # Errors
/// It names no database that is known here; the text does not repeat it.
pub fn database_url(text: &str) -> Result<ServerUrl, String> {
    let url: ServerUrl = text.parse()?;
    database::kind(&url)?;
    Ok(url)
}
