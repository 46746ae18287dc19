//! `clerk-sync doctor`: every dependency and every setting, and the cure for what is wrong.
//!
//! All servers are asked at once, each with bounded patience. Nothing is changed anywhere; only with
//! `--probe` is an event sent, which goes away again.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clerk_sync_pipeline::{
    config::{self, WrongSetting},
    lifecycle::Shutdown,
    secret::ServerUrl,
};
use clerk_sync_projection::Projection;

mod broker;
mod clerk;
mod clock;
mod database;
mod depths;
mod file_queue;
mod files;
mod management;
mod network;
mod postgres;
mod probe;
mod report;
mod settings;
mod webhook;
mod wording;

use clerk::NotAsked;
use database::Origin;
use report::{Group, Line, Report};
use settings::{Settings, http_url};

/// Find out what is wrong, and how to cure it
///
/// Asks the settings, the queue, the database, Clerk and the webhook's address, all at once, and
/// changes nothing. Each line is `ok`, `skipped` (not asked, and why), `warning` or `problem`, with
/// the cure beneath it.
#[derive(clap::Args)]
#[command(
    after_help = "\
Examples:
  clerk-sync doctor
  clerk-sync doctor --webhook-url https://example.com/api/webhooks/clerk
  clerk-sync doctor --json --strict
  clerk-sync doctor --probe https://example.com/api/webhooks/clerk

Exit codes: 0 well, or only warnings; 1 a problem, with --strict a warning too;
64 wrong usage. docs/DOCTOR.md describes each check.",
    // It is no process that could be asked.
    mut_arg("healthcheck", |arg| arg.hide(true))
)]
pub(crate) struct DoctorArgs {
    /// Also post a signed event of a made-up user here, and follow it to its row and away again. No
    /// row is left, whatever happens
    #[arg(long, value_name = "URL", value_parser = http_url)]
    probe: Option<ServerUrl>,
    /// How long the probe waits for each step
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = config::time, requires = "probe")]
    within: Duration,
    /// Exit with 1 for a warning, too
    #[arg(long)]
    strict: bool,
    /// As JSON, whose shape docs/DOCTOR.md has
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

/// `wrong` are the settings that could not be read.
pub(crate) fn run(mut args: DoctorArgs, wrong: Vec<WrongSetting>) -> ExitCode {
    crate::finish_itself(async move {
        let started = Instant::now();
        let shutdown = Shutdown::on_signals().context("signals cannot be heard")?;
        if args.settings.webhook_url.is_none() {
            args.settings.webhook_url = args.probe.clone();
        }
        let mut report = Report {
            groups: crate::unless_stopped(&shutdown, async {
                Ok(Box::pin(examine(&args.settings, &wrong)).await)
            })
            .await?,
            ..Report::default()
        };
        let colour = wording::wants_colour();
        let tell = |group: &Group| {
            if !args.json {
                wording::tell(group, colour);
            }
        };
        report.groups.iter().for_each(tell);
        if let Some(url) = &args.probe {
            let probe = Box::pin(probe(&args, url, &wrong, &report, &shutdown)).await;
            tell(&probe);
            report.groups.push(probe);
        }
        report.took = started.elapsed();
        if args.json {
            say!("{}", report.json()?);
        } else {
            wording::tell_total(&report);
        }
        Ok(report.exit_code(args.strict))
    })
}

/// Sends the probe. A signal ends it, and it cleans up.
async fn probe(
    args: &DoctorArgs,
    url: &ServerUrl,
    wrong: &[WrongSetting],
    report: &Report,
    shutdown: &Shutdown,
) -> Group {
    let database = if report.groups.iter().any(database::is_to_be_asked) {
        tables_of_probe(&args.settings, wrong).await
    } else {
        None
    };
    probe::run(&args.settings, url, database, args.within, shutdown).await
}

async fn tables_of_probe(settings: &Settings, wrong: &[WrongSetting]) -> Option<Projection> {
    let url = named_tables(settings, wrong)?.ok()?;
    database::open(settings, &url).await.ok()
}

async fn examine(settings: &Settings, wrong: &[WrongSetting]) -> Vec<Group> {
    let (queue, (database, origin), clerk, webhook) = tokio::join!(
        queue(settings, wrong),
        tables(settings, wrong),
        clerk(settings, wrong),
        webhook(settings),
    );
    let mut groups = vec![settings::judge(settings, wrong), queue, database];
    groups.push(clerk::judge(
        clerk,
        &settings.api.clerk_api_url,
        settings.worker.projection.instance(),
        origin.as_ref(),
    ));
    groups.push(webhook);
    groups
}

/// RabbitMQ where it is named, else the file of `up`.
async fn queue(settings: &Settings, wrong: &[WrongSetting]) -> Group {
    match settings.broker.server() {
        Some(server) => {
            Box::pin(broker::examine(
                &server,
                settings.rabbitmq_management_url.as_ref(),
            ))
            .await
        }
        None if is_wrong(wrong, "AMQP_URL") => unnamed("rabbitmq", "AMQP_URL"),
        None => {
            let ladder = settings.broker.topology.retry_delays.clone();
            file_queue::examine(settings.data.queue(), ladder).await
        }
    }
}

/// The database that is named, else the file of `up`; `None` where the name cannot be read.
fn named_tables(settings: &Settings, wrong: &[WrongSetting]) -> Option<anyhow::Result<ServerUrl>> {
    match &settings.tables.database_url {
        Some(url) => Some(Ok(url.clone())),
        None if is_wrong(wrong, "DATABASE_URL") => None,
        None => Some(settings.data.tables()),
    }
}

async fn tables(settings: &Settings, wrong: &[WrongSetting]) -> (Group, Option<Origin>) {
    match named_tables(settings, wrong) {
        None => (unnamed("database", "DATABASE_URL"), None),
        Some(Ok(url)) => Box::pin(database::examine(settings, &url)).await,
        Some(Err(error)) => {
            let cure = "name another folder with --data or CLERK_SYNC_DATA";
            let line = Line::problem("file", format!("{error:#}"), cure);
            (Group::new("database", vec![line]), None)
        }
    }
}

async fn clerk(settings: &Settings, wrong: &[WrongSetting]) -> Result<clerk::Answer, NotAsked> {
    match &settings.clerk_secret_key.0 {
        Some(key) => Ok(Box::pin(clerk::ask(&settings.api.clerk_api_url, key)).await),
        None if is_wrong(wrong, "CLERK_SECRET_KEY") => Err(NotAsked::Unreadable),
        None => Err(NotAsked::Unset),
    }
}

async fn webhook(settings: &Settings) -> Group {
    match &settings.webhook_url {
        Some(url) => webhook::examine(url).await,
        None => {
            let text = "no address is given: --webhook-url, WEBHOOK_URL";
            Group::new("webhook", vec![Line::skipped("webhook", text)])
        }
    }
}

fn is_wrong(wrong: &[WrongSetting], name: &str) -> bool {
    wrong.iter().any(|wrong| wrong.name == name)
}

fn unnamed(group: &'static str, setting: &str) -> Group {
    let text = format!("{setting} cannot be read, see the settings above");
    Group::new(group, vec![Line::skipped("reachable", text)])
}
