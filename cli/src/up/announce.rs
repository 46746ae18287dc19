//! What is served where, for the person who started it.

use std::{net::SocketAddr, path::Path};

use clerk_sync_pipeline::{
    admin::reachable,
    secret::{Secret, ServerUrl},
};

use super::UpArgs;
use crate::data::DataFolder;

/// What is served where.
pub(super) struct Served {
    pub(super) webhooks: String,
    pub(super) api: Option<SocketAddr>,
    /// With the token, if it was made by us.
    pub(super) console: Option<(SocketAddr, Option<Secret>)>,
}

pub(super) fn announce(
    args: &UpArgs,
    served: &Served,
    database: &ServerUrl,
    folder: &DataFolder,
    secret: Option<&Path>,
) {
    say!("clerk-sync {}", env!("CARGO_PKG_VERSION"));
    say!("  webhooks  {}", served.webhooks);
    match served.api {
        Some(host) => say!("  api       http://{host}/api/users/me, /sync"),
        None if args.demo => {}
        None => say!("  api       off; with CLERK_SECRET_KEY=sk_… it is served too"),
    }
    match &served.console {
        Some((host, Some(token))) => say!(
            "  console   http://{host}/console\n  token     {}",
            token.expose()
        ),
        Some((host, None)) => say!("  console   http://{host}/console, with CONSOLE_TOKEN"),
        None => say!("  console   off"),
    }
    match &args.broker.amqp_url {
        Some(nodes) => say!("  queue     {nodes}"),
        None => say!("  queue     {}", folder.queue().display()),
    }
    say!("  database  {database}");
    match secret {
        Some(path) => say!(
            "  secret    none is configured: ours is in {}\n            \
             (Clerk's own: set CLERK_WEBHOOK_SIGNING_SECRET=whsec_…)",
            path.display()
        ),
        None => say!("  secret    as configured"),
    }
    say!(
        "  admin     http://{}/readyz, /metrics",
        reachable(args.process.admin_listen)
    );
    say!();
}
