//! The ingester's settings. Each is checked while it is parsed, so that whoever has an
//! [`IngestArgs`] and a [`Verifier`] can start.

use std::{net::SocketAddr, str::FromStr as _, sync::LazyLock, time::Duration};

use clerk_sync_pipeline::{
    config::{AmqpArgs, ProcessArgs},
    queue::CONFIRM_TIMEOUT,
    secret::Secret,
};
use http::uri::PathAndQuery;

use crate::{verify::Verifier, webhook::ANSWER_WITHIN};

/// Room for verifying and answering, beside the body and the queue's confirm.
const ANSWER_MARGIN: Duration = Duration::from_millis(500);
/// Longest body to offer: RabbitMQ refuses messages over 16 MiB.
const MAX_MAX_BODY_BYTES: usize = 16 << 20;
/// Most connections and requests that make sense in one process; more is a typing error.
const MAX_COUNT: usize = 1_000_000;
/// Most that may be set for the bytes of all bodies together.
const MAX_BUFFERED_BYTES: usize = 1 << 40;
/// Longest of the timeouts; more is a typing error.
const MAX_TIMEOUT: Duration = Duration::from_secs(86_400);

/// Receives Clerk's webhooks: verifies each, queues its exact bytes in RabbitMQ, answers 204
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "clerk-sync-ingest", version)]
pub struct Args {
    /// The Clerk endpoint's Signing Secret (whsec_…), from the dashboard: Configure, Webhooks, the
    /// endpoint. Several, with commas between them, while it is rotated
    #[arg(
        long, env, hide_env_values = true, hide_default_value = true, value_name = "SECRETS",
        value_parser = signing_secret, default_value = older_signing_secret(),
        required = older_signing_secret().is_none()
    )]
    pub clerk_webhook_signing_secret: Verifier,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment would become the help's heading")]
    pub ingest: IngestArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment would become the help's heading")]
    pub amqp: AmqpArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment would become the help's heading")]
    pub process: ProcessArgs,
}

impl AsRef<ProcessArgs> for Args {
    fn as_ref(&self) -> &ProcessArgs {
        &self.process
    }
}

/// The webhook port and its limits.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Webhooks")]
pub struct IngestArgs {
    /// Address of the webhook port
    #[arg(long, env, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Path that Clerk posts to
    #[arg(long, env, default_value = "/api/webhooks/clerk", value_name = "PATH", value_parser = path)]
    pub webhook_path: String,
    /// Largest body; Svix sends up to about 350 KB
    #[arg(long, env, default_value = "524288", value_name = "BYTES", value_parser = body_bytes)]
    pub max_body_bytes: usize,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment would become the help's heading")]
    pub port: PortLimits,
    /// Longest time from the end of a request's head to the end of its body
    #[arg(long, env, default_value = "4s", value_name = "TIME", value_parser = body_timeout)]
    pub body_timeout: Duration,
    /// Most requests at a time, each with its body in memory; of more, the slowest are answered 503
    #[arg(long, env, default_value = "1024", value_name = "COUNT", value_parser = count)]
    pub max_in_flight: usize,
    /// Most bytes of bodies that come in several pieces, but room for one; of more, likewise
    #[arg(long, env, default_value = "67108864", value_name = "BYTES", value_parser = bytes)]
    pub max_buffered_bytes: usize,
}

/// Limits of a port, whoever answers on it.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct PortLimits {
    /// Longest time from the first byte of a request's head to its last
    #[arg(long, env, default_value = "5s", value_name = "TIME", value_parser = timeout)]
    pub head_timeout: Duration,
    /// Longest time that a connection may rest between requests
    #[arg(long, env, default_value = "75s", value_name = "TIME", value_parser = timeout)]
    pub idle_timeout: Duration,
    /// Most open connections; further ones wait, and meanwhile those at rest are closed early
    #[arg(long, env, default_value = "4096", value_name = "COUNT", value_parser = count)]
    pub max_connections: usize,
}

/// What to do about a wrong signing secret.
const WHERE: &str = "copy the endpoint's Signing Secret (whsec_…) from the Clerk dashboard: \
                     Configure, Webhooks, the endpoint";

/// Takes the value of `CLERK_WEBHOOK_SIGNING_SECRET`: one or several secrets with commas between
/// them. A blank one is as good as none, and [`older_signing_secret`] is taken instead.
///
/// # Errors
/// All that is wrong with them, and where to find the right ones; no secret is shown.
pub fn signing_secret(text: &str) -> Result<Verifier, String> {
    let blank = |text: &str| text.trim().is_empty();
    let text = if blank(text) {
        older_signing_secret().unwrap_or_default()
    } else {
        text
    };
    if blank(text) {
        return Err(format!("it is blank; {WHERE}"));
    }
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let secrets: Vec<_> = parts.map(Secret::new).collect();
    Verifier::new(&secrets).map_err(|problems| format!("{}; {WHERE}", problems.join(", ")))
}

/// The value of `CLERK_WEBHOOK_SECRET`, the same setting's name in older guides.
pub fn older_signing_secret() -> Option<&'static str> {
    static VALUE: LazyLock<Option<String>> =
        LazyLock::new(|| std::env::var("CLERK_WEBHOOK_SECRET").ok());
    VALUE.as_deref().filter(|text| !text.trim().is_empty())
}

fn path(text: &str) -> Result<String, String> {
    let whole = |path: PathAndQuery| text.starts_with('/') && path.path() == text;
    if PathAndQuery::from_str(text).is_ok_and(whole) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{text}` is not a path; use one like /api/webhooks/clerk"
        ))
    }
}

fn body_bytes(text: &str) -> Result<usize, String> {
    number(text, MAX_MAX_BODY_BYTES)
}

fn bytes(text: &str) -> Result<usize, String> {
    number(text, MAX_BUFFERED_BYTES)
}

fn count(text: &str) -> Result<usize, String> {
    number(text, MAX_COUNT)
}

fn number(text: &str, most: usize) -> Result<usize, String> {
    let number = text
        .parse()
        .ok()
        .filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| format!("`{text}` is not a number from 1 to {most}"))
}

fn timeout(text: &str) -> Result<Duration, String> {
    duration(text, MAX_TIMEOUT)
}

/// An answer leaves in time only if the queue still has its own when the body came late.
fn body_timeout(text: &str) -> Result<Duration, String> {
    duration(text, ANSWER_WITHIN - CONFIRM_TIMEOUT - ANSWER_MARGIN)
}

fn duration(text: &str, longest: Duration) -> Result<Duration, String> {
    let fits = |duration: &Duration| (Duration::from_millis(1)..=longest).contains(duration);
    humantime::parse_duration(text)
        .ok()
        .filter(fits)
        .ok_or_else(|| {
            let longest = humantime::format_duration(longest);
            format!("`{text}` is not a time of 1ms at least and {longest} at most")
        })
}
