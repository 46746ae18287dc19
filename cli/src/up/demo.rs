//! `clerk-sync up --demo`: the samples through the whole pipeline, over HTTP, badly ordered.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use clerk_sync_entity::{processed_events, users};
use clerk_sync_pipeline::{
    lifecycle::Shutdown,
    secret::Secret,
    telemetry::{EventKind, Label as _, Metrics, Outcome},
};
use comfy_table::{Table, presets};
use futures_util::StreamExt as _;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use sea_orm::{ConnectionTrait as _, DatabaseConnection, EntityTrait as _, QueryOrder as _};
use tokio::time::{Instant, sleep};

use super::UpArgs;
use crate::{
    data::DataFolder,
    fixtures,
    send::{Letter, Sender, Spoil},
};

/// How many of the samples are delivered a second time.
const DUPLICATES: usize = 5;
/// Longest wait for the last event to be applied.
const PATIENCE: Duration = Duration::from_secs(20);
/// Width of the columns that could break an 80-column terminal.
const SAMPLE_WIDTH: usize = 46;
const EMAIL_WIDTH: usize = 44;

/// A demonstration about to start.
pub(crate) struct Demo {
    sender: Sender,
}

/// Makes `args` those of a demonstration: a fresh folder of its own, and no server.
pub(crate) async fn prepare(args: &mut UpArgs, folder: &DataFolder) -> anyhow::Result<()> {
    let database = args.tables.database_url.take();
    let broker = args.broker.amqp_url.take();
    if database.is_some() || broker.is_some() {
        say!("The demonstration leaves DATABASE_URL and AMQP_URL alone.\n");
    }
    folder.create()?;
    // Only a folder that nobody uses is cleared: the queue's lock is taken for a moment.
    let unused = clerk_sync_pipeline::queue::embedded::EmbeddedQueue::open(
        &folder.queue(),
        args.broker.topology.retry_delays.clone(),
        Arc::new(Metrics::new(0)),
    )?;
    unused.close().await;
    folder.clear()
}

impl Demo {
    pub(crate) fn new(webhook_url: &str, secret: &Secret) -> anyhow::Result<Self> {
        let sender = Sender::new(webhook_url.parse()?, secret, Spoil::default())?;
        Ok(Self { sender })
    }

    /// Posts, waits until everything is applied, and shows what became of it.
    pub(crate) async fn show(
        &self,
        db: &DatabaseConnection,
        metrics: &Metrics,
        shutdown: &Shutdown,
    ) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut letters: Vec<Letter> = fixtures::ALL
            .iter()
            .map(|(name, body)| Letter::new(name, body.to_vec()))
            .collect();
        let twice: Vec<Letter> = letters
            .choose_multiple(&mut rand::rng(), DUPLICATES)
            .cloned()
            .collect();
        letters.extend(twice);
        letters.shuffle(&mut rand::rng());
        let deliveries = letters.len();

        let mut shown: BTreeMap<Arc<str>, Shown> = BTreeMap::new();
        let mut answers = std::pin::pin!(self.sender.post_all(letters, 4, None));
        while let Some(answer) = answers.next().await {
            let sample = shown
                .entry(answer.letter.id.clone())
                .or_insert_with(|| Shown {
                    name: answer.letter.name.clone(),
                    answers: Vec::new(),
                    outcome: "still on its way".to_owned(),
                });
            sample.answers.push(match answer.status {
                Ok(status) => status.as_u16().to_string(),
                Err(problem) => problem,
            });
        }
        while settled(metrics) < deliveries as u64 && started.elapsed() < PATIENCE {
            tokio::select! {
                () = sleep(Duration::from_millis(10)) => {}
                () = shutdown.requested() => return Ok(()),
            }
        }
        let took = started.elapsed();
        outcomes(db, &mut shown).await?;
        let rows = users::Entity::find()
            .order_by_asc(users::Column::CreatedAt)
            .all(db)
            .await?;
        print(deliveries, took, &shown, &rows);
        Ok(())
    }
}

/// A sample, and what became of it.
struct Shown {
    name: Arc<str>,
    answers: Vec<String>,
    outcome: String,
}

fn settled(metrics: &Metrics) -> u64 {
    let of_kind = |kind: &EventKind| {
        Outcome::ALL
            .iter()
            .map(|outcome| metrics.events.get(*kind, *outcome).get())
            .sum::<u64>()
    };
    EventKind::ALL.iter().map(of_kind).sum()
}

async fn outcomes(
    db: &DatabaseConnection,
    shown: &mut BTreeMap<Arc<str>, Shown>,
) -> anyhow::Result<()> {
    let ids: Vec<&str> = shown.keys().map(AsRef::as_ref).collect();
    let query = processed_events::outcomes(db.get_database_backend(), &ids);
    for row in db.query_all(&query).await? {
        let id: String = row.try_get_by_index(0)?;
        if let Some(sample) = shown.get_mut(id.as_str()) {
            sample.outcome = row.try_get_by_index(1)?;
        }
    }
    Ok(())
}

fn print(
    deliveries: usize,
    took: Duration,
    shown: &BTreeMap<Arc<str>, Shown>,
    rows: &[users::Model],
) {
    say!(
        "{deliveries} signed deliveries of {} events over HTTP, shuffled, {} of them twice:\n",
        shown.len(),
        deliveries - shown.len(),
    );
    let mut table = plain(["event", "answers", "what became of it"]);
    let mut samples: Vec<&Shown> = shown.values().collect();
    samples.sort_by(|a, b| a.name.cmp(&b.name));
    for sample in samples {
        table.add_row([
            &cut(&sample.name, SAMPLE_WIDTH),
            &sample.answers.join(" "),
            &sample.outcome,
        ]);
    }
    say!("{}", table.trim_fmt());
    say!(
        "\nThe table `users` after {:.0} ms:\n",
        took.as_secs_f64() * 1000.0
    );
    let mut table = plain(["email", "name"]);
    for row in rows {
        table.add_row([
            &cut(&row.email, EMAIL_WIDTH),
            row.name.as_deref().unwrap_or(""),
        ]);
    }
    say!("{}", table.trim_fmt());
    say!(
        "\nDeleted users stay deleted and duplicates change nothing, whatever the order.\n\
         (stale: something newer was known; ignored: not about a user)\n\
         Users without an address are dead letters; MISSING_EMAIL=placeholder keeps them.\n\n\
         Serving until Ctrl-C. In another terminal: clerk-sync send --all --shuffle"
    );
}

fn plain<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    table
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}
