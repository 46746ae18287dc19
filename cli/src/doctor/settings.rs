//! The settings of every process, and what is wrong with them.

use std::str::FromStr as _;

use clerk_sync_api::ApiArgs;
use clerk_sync_clerk::backend::SecretKey;
use clerk_sync_ingest::{
    IngestArgs,
    config::{older_signing_secret, signing_secret},
};
use clerk_sync_pipeline::{
    config::{Given, ProcessArgs, WrongSetting, given},
    secret::{Secret, ServerUrl},
    telemetry,
};
use clerk_sync_worker::config::WorkerArgs;

use super::report::{Group, Line};
use crate::{
    data::{self, DataFolder},
    servers::{BrokerArgs, TablesArgs},
};

/// Everything that a process of ours may be told.
#[derive(clap::Args)]
pub(super) struct Settings {
    /// The data folder of `clerk-sync up`, when there is no AMQP_URL or no DATABASE_URL
    #[arg(long, env = "CLERK_SYNC_DATA", default_value = data::DEFAULT, value_name = "FOLDER")]
    pub(super) data: DataFolder,
    #[command(flatten)]
    pub(super) tables: TablesArgs,
    /// RabbitMQ's management API, http://user:password@host:15672: with it, bindings are looked at
    #[arg(long, env, hide_env_values = true, value_name = "URL", value_parser = http_url)]
    pub(super) rabbitmq_management_url: Option<ServerUrl>,
    /// The Clerk endpoint's Signing Secret (whsec_…); several with commas between them
    #[arg(long, env, hide_env_values = true, value_name = "SECRETS")]
    pub(super) clerk_webhook_signing_secret: Option<Secret>,
    /// Secret key of the Clerk instance (sk_live_…)
    #[arg(
        long, env, hide_env_values = true, hide_default_value = true, default_value = "",
        value_name = "KEY", value_parser = given(SecretKey::from_str)
    )]
    pub(super) clerk_secret_key: Given<SecretKey>,
    /// Where Clerk posts to, to be called from here: it must refuse what Clerk has not signed
    #[arg(long, env, hide_env_values = true, value_name = "URL", value_parser = http_url)]
    pub(super) webhook_url: Option<ServerUrl>,
    #[command(flatten)]
    pub(super) api: ApiArgs,
    #[command(flatten)]
    pub(super) broker: BrokerArgs,
    #[command(flatten)]
    pub(super) ingest: IngestArgs,
    #[command(flatten)]
    pub(super) worker: WorkerArgs,
    #[command(flatten)]
    pub(super) process: ProcessArgs,
}

/// Takes the address of something that speaks HTTP.
pub(super) fn http_url(text: &str) -> Result<ServerUrl, String> {
    let url: ServerUrl = text.parse()?;
    match url.expose().scheme() {
        "http" | "https" => Ok(url),
        scheme => Err(format!("`{scheme}:` is neither http: nor https:")),
    }
}

/// Signing secrets, and where they were found.
pub(super) struct Secrets {
    pub(super) text: Secret,
    /// Variable or file.
    pub(super) place: String,
}

impl Settings {
    /// The configured ones, else those that `up` has made, if any.
    pub(super) fn secrets(&self) -> anyhow::Result<Option<Secrets>> {
        let not_blank = |secret: &&Secret| !secret.expose().trim().is_empty();
        let newer = self.clerk_webhook_signing_secret.as_ref();
        if let Some(secret) = newer.filter(not_blank) {
            return Ok(Some(Secrets {
                text: secret.clone(),
                place: "CLERK_WEBHOOK_SIGNING_SECRET".to_owned(),
            }));
        }
        if let Some(secret) = older_signing_secret() {
            return Ok(Some(Secrets {
                text: Secret::new(secret),
                place: "CLERK_WEBHOOK_SECRET".to_owned(),
            }));
        }
        let made = self.data.secret()?;
        Ok(made.map(|text| Secrets {
            text,
            place: format!("the secret of `up` in {}", self.data.path().display()),
        }))
    }
}

/// Everything that is wrong with the settings, or that nothing is.
pub(super) fn judge(settings: &Settings, wrong: &[WrongSetting]) -> Group {
    let mut lines: Vec<Line> = wrong.iter().map(unreadable).collect();
    if let Err(problem) = telemetry::log_filter(&settings.process.rust_log) {
        lines.push(Line::problem(
            "settings",
            format!("RUST_LOG: {problem}"),
            "write it as info, or by module: info,clerk_sync_worker=debug",
        ));
    }
    lines.extend(secrets(settings));
    lines.extend(api(settings));
    // Said only where it is so: a secret that is malformed cannot be read either.
    if lines.iter().all(|line| line.cure.is_none()) {
        lines.insert(0, Line::ok("settings", "all can be read"));
    }
    Group::new("settings", lines)
}

fn unreadable(wrong: &WrongSetting) -> Line {
    let (what, cure) = wrong.reason.split_once("; ").unwrap_or((
        &wrong.reason,
        "correct it; `clerk-sync up --help` says what it takes",
    ));
    Line::problem("settings", format!("{}: {what}", wrong.name), cure)
}

fn secrets(settings: &Settings) -> Vec<Line> {
    const NAME: &str = "secrets";
    let secrets = match settings.secrets() {
        Ok(Some(secrets)) => secrets,
        Ok(None) => {
            return vec![Line::skipped(
                NAME,
                "no signing secret is set: `clerk-sync up` makes one of its own, an ingester needs \
                 CLERK_WEBHOOK_SIGNING_SECRET",
            )];
        }
        Err(error) => {
            let cure = "make it readable for whoever runs this";
            return vec![Line::problem(NAME, format!("{error:#}"), cure)];
        }
    };
    let mut lines = match signing_secret(secrets.text.expose()) {
        Ok(verifier) => {
            let (count, are) = match verifier.secrets() {
                1 => ("one secret".to_owned(), "is"),
                many => (format!("{many} secrets"), "are"),
            };
            let text = format!("{}: {count}, which {are} well-formed", secrets.place);
            vec![Line::ok(NAME, text)]
        }
        Err(reason) => {
            let (what, cure) = reason.split_once("; ").unwrap_or((&reason, "correct it"));
            let text = format!("{}: {what}", secrets.place);
            vec![Line::problem(NAME, text, cure)]
        }
    };
    let other = older_signing_secret().filter(|older| *older != secrets.text.expose());
    if other.is_some() && secrets.place == "CLERK_WEBHOOK_SIGNING_SECRET" {
        lines.push(Line::warning(
            NAME,
            "CLERK_WEBHOOK_SECRET is set too, to something else, and is not looked at",
            "put all secrets into CLERK_WEBHOOK_SIGNING_SECRET, with commas between them, and \
             remove the other",
        ));
    }
    lines
}

/// What only the API for applications needs: nothing where it is not served.
fn api(settings: &Settings) -> Vec<Line> {
    const NAME: &str = "api";
    let Some(secret_key) = &settings.clerk_secret_key.0 else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    if let Some(publishable) = &settings.api.clerk_publishable_key.0
        && publishable.kind() != secret_key.kind()
    {
        lines.push(Line::problem(
            NAME,
            format!(
                "CLERK_SECRET_KEY is of a {} instance, CLERK_PUBLISHABLE_KEY of a {} one",
                secret_key.kind(),
                publishable.kind()
            ),
            "take both keys from the same instance: Clerk dashboard, Configure, API keys",
        ));
    }
    let parties = &settings.api.authorized_parties;
    if parties.iter().all(|origin| origin.0.is_none()) {
        lines.push(Line::warning(
            NAME,
            "AUTHORIZED_PARTIES is not set: tokens that Clerk made for any other application of \
             the instance are taken too",
            "set it to the origins of your application: https://app.example.com",
        ));
    }
    if lines.is_empty() {
        lines.push(Line::ok(NAME, "tokens are taken of the authorized parties"));
    }
    lines
}
