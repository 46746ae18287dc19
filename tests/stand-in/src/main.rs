//! The stand-in as a program, for trials by hand and for tests in other languages.

use std::{io::Write as _, net::SocketAddr};

use clap::Parser;
use clerk_sync_stand_in::{Settings, StandIn};

/// A stand-in for Clerk: its Backend API, with users that are made up
#[derive(Parser)]
#[command(name = "clerk-stand-in", version)]
struct Args {
    /// Address to listen on; port 0 takes any
    #[arg(long, default_value = "127.0.0.1:9090", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Users to begin with
    #[arg(long, default_value = "0", value_name = "COUNT")]
    users: usize,
    /// Be a production instance: a live key, 1000 requests per 10 s instead of 100
    #[arg(long)]
    production: bool,
    /// Requests allowed in any 10 s
    #[arg(long, value_name = "COUNT")]
    requests_per_10s: Option<usize>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let settings = if args.production {
        Settings::production()
    } else {
        Settings::default()
    };
    let stand_in = StandIn::start_as(Settings {
        listen: args.listen,
        requests_per_10s: args.requests_per_10s,
        ..settings
    })
    .await;
    stand_in.fill(args.users);
    announce(&stand_in)?;
    stand_in.serve().await;
    Ok(())
}

/// What to set, as a shell reads it; `# listening` comes last.
fn announce(stand_in: &StandIn) -> std::io::Result<()> {
    let settings = stand_in.settings();
    let mut out = std::io::stdout().lock();
    writeln!(out, "CLERK_API_URL={}", stand_in.url())?;
    writeln!(out, "CLERK_SECRET_KEY={}", settings.secret_key)?;
    writeln!(out, "CLERK_PUBLISHABLE_KEY={}", settings.publishable_key())?;
    writeln!(out, "CLERK_INSTANCE_ID={}", settings.instance_id)?;
    let pem = stand_in.jwt_key().trim_end().replace('\n', "\\n");
    writeln!(out, "CLERK_JWT_KEY=\"{pem}\"")?;
    writeln!(out, "# listening, with {} users", stand_in.count())?;
    out.flush()
}
