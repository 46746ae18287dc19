//! `clerk-sync send`: signs events as Svix does, and posts them.

use std::{
    collections::BTreeMap,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use clerk_sync_ingest::config::older_signing_secret;
use clerk_sync_pipeline::{Millis, secret::Secret};
use futures_util::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use reqwest::{Client, StatusCode};
use svix::webhooks::Webhook;
use tokio::io::AsyncReadExt as _;
use url::Url;

use crate::{
    data::{self, DataFolder},
    fixtures,
};

/// Sign events and post them, as Clerk's sender does
///
/// A source is the name of a sample, a JSON file, or `-` for standard input. With --count, the
/// sources are gone through again and again, each round about other people.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  clerk-sync send user_created_email_password
  clerk-sync send --all --shuffle --duplicate 20
  clerk-sync send --all --count 10000 --shuffle --duplicate 5 --rate 2000
  clerk-sync send my-event.json --url https://example.com/api/webhooks/clerk
  clerk-sync send --all --tamper     (every request must be refused)")]
pub(crate) struct SendArgs {
    /// Samples by name, JSON files, or `-`
    #[arg(required_unless_present_any = ["all", "list"])]
    sources: Vec<String>,
    /// Send every sample
    #[arg(long, conflicts_with = "sources")]
    all: bool,
    /// List the samples, and send nothing
    #[arg(long)]
    list: bool,
    /// Where the webhook listens
    #[arg(
        long,
        env = "WEBHOOK_URL",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8080/api/webhooks/clerk"
    )]
    url: Url,
    /// The signing secret (the first, if there are several); else the one that `up` made
    #[arg(long, env, hide_env_values = true, value_name = "SECRETS")]
    clerk_webhook_signing_secret: Option<Secret>,
    /// The data folder of `up`, where a secret is looked for
    #[arg(long, env = "CLERK_SYNC_DATA", default_value = data::DEFAULT, value_name = "FOLDER")]
    data: DataFolder,
    /// How many events, before duplicates
    #[arg(long, value_name = "COUNT")]
    count: Option<usize>,
    /// Events a second; as fast as they are answered when unset
    #[arg(long, value_name = "PER_SECOND", value_parser = positive)]
    rate: Option<f64>,
    /// Requests at a time
    #[arg(long, default_value_t = 16, value_name = "COUNT")]
    concurrency: usize,
    /// In random order
    #[arg(long)]
    shuffle: bool,
    /// How many of a hundred events are delivered twice, with the same id
    #[arg(long, default_value_t = 0, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    duplicate: u8,
    /// Change one byte after signing: each must be answered 401
    #[arg(long)]
    tamper: bool,
    /// Sign for ten minutes ago: each must be answered 401
    #[arg(long)]
    stale: bool,
    /// Repeat a random order
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
}

/// An event to be delivered once or more.
#[derive(Clone)]
pub(crate) struct Letter {
    /// Which source it came from.
    pub(crate) name: Arc<str>,
    /// `svix-id`
    pub(crate) id: Arc<str>,
    pub(crate) body: Bytes,
}

impl Letter {
    pub(crate) fn new(name: &str, body: Vec<u8>) -> Self {
        let id = format!("msg_{:032x}", rand::random::<u128>());
        Self::of(name, &id, body)
    }

    /// An event that has an id already.
    pub(crate) fn of(name: &str, id: &str, body: Vec<u8>) -> Self {
        Self {
            name: name.into(),
            id: id.into(),
            body: body.into(),
        }
    }
}

/// What was answered, and how fast.
pub(crate) struct Answer {
    pub(crate) letter: Letter,
    /// The status, or what went wrong with the request.
    pub(crate) status: Result<StatusCode, String>,
    pub(crate) took: Duration,
}

/// How requests are spoiled.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spoil {
    pub(crate) tamper: bool,
    pub(crate) stale: bool,
}

/// Signs and posts.
#[derive(Clone)]
pub(crate) struct Sender {
    client: Client,
    url: Url,
    webhook: Arc<Webhook>,
    spoil: Spoil,
}

/// Svix waits this long for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Older than the tolerance of 300 s.
const STALE_SECONDS: i64 = 600;

impl Sender {
    pub(crate) fn new(url: Url, secret: &Secret, spoil: Spoil) -> anyhow::Result<Self> {
        let first = secret
            .expose()
            .split(',')
            .map(str::trim)
            .find(|secret| !secret.is_empty());
        let webhook = Webhook::new(first.unwrap_or_default())
            .context("CLERK_WEBHOOK_SIGNING_SECRET is not a signing secret (whsec_…)")?;
        let client = Client::builder().timeout(ANSWER_TIMEOUT).build()?;
        Ok(Self {
            client,
            url,
            webhook: Arc::new(webhook),
            spoil,
        })
    }

    pub(crate) async fn post(&self, letter: Letter) -> Answer {
        let started = Instant::now();
        let status = self
            .try_post(&letter)
            .await
            .map_err(|error| format!("{error:#}"));
        Answer {
            letter,
            status,
            took: started.elapsed(),
        }
    }

    async fn try_post(&self, letter: &Letter) -> anyhow::Result<StatusCode> {
        let late = if self.spoil.stale { STALE_SECONDS } else { 0 };
        let timestamp = Millis::now().0 / 1000 - late;
        let signature = self.webhook.sign(&letter.id, timestamp, &letter.body)?;
        let mut body = letter.body.clone();
        if self.spoil.tamper {
            let mut changed = body.to_vec();
            if let Some(byte) = changed.last_mut() {
                *byte = byte.wrapping_add(1);
            }
            body = changed.into();
        }
        let request = self
            .client
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header("svix-id", &*letter.id)
            .header("svix-timestamp", timestamp)
            .header("svix-signature", signature)
            .body(body);
        let response = request.send().await.map_err(reqwest::Error::without_url)?;
        let status = response.status();
        // Read to the end, so that the connection can be used again.
        response
            .bytes()
            .await
            .map_err(reqwest::Error::without_url)?;
        Ok(status)
    }

    /// Posts letters, `concurrency` at a time, not faster than `rate` a second.
    pub(crate) fn post_all(
        &self,
        letters: Vec<Letter>,
        concurrency: usize,
        rate: Option<f64>,
    ) -> impl futures_util::Stream<Item = Answer> + '_ {
        let started = tokio::time::Instant::now();
        stream::iter(letters.into_iter().enumerate())
            .then(move |(number, letter)| async move {
                if let Some(rate) = rate {
                    #[expect(clippy::cast_precision_loss, reason = "a number of events")]
                    let due = Duration::from_secs_f64(number as f64 / rate);
                    tokio::time::sleep_until(started + due).await;
                }
                letter
            })
            .map(|letter| self.post(letter))
            .buffer_unordered(concurrency.max(1))
    }
}

pub(crate) fn run(args: SendArgs) -> ExitCode {
    crate::finish(send(args))
}

async fn send(args: SendArgs) -> anyhow::Result<ExitCode> {
    if args.list {
        for (name, body) in fixtures::ALL {
            say!("{name} ({} bytes)", body.len());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let older = older_signing_secret().map(Secret::new);
    let named = args.clerk_webhook_signing_secret.as_ref();
    let configured = named
        .filter(|secret| !secret.expose().is_empty())
        .or(older.as_ref());
    let secret = match configured {
        Some(secret) => secret.clone(),
        None => args.data.secret()?.with_context(|| {
            format!(
                "no signing secret: set CLERK_WEBHOOK_SIGNING_SECRET, or start `clerk-sync up`, \
                 which makes one in {}",
                args.data.path().display()
            )
        })?,
    };
    let spoil = Spoil {
        tamper: args.tamper,
        stale: args.stale,
    };
    let sender = Sender::new(args.url.clone(), &secret, spoil)?;
    let seed = args.seed.unwrap_or_else(rand::random);
    let letters = letters(&args, &mut StdRng::seed_from_u64(seed)).await?;

    let bar = ProgressBar::new(letters.len() as u64);
    let style = "{bar:32} {pos}/{len} {per_sec:>12} {elapsed} {msg}";
    bar.set_style(ProgressStyle::with_template(style).expect("a constant template"));
    let started = Instant::now();
    let mut tally = Tally::default();
    let mut answers = std::pin::pin!(sender.post_all(letters, args.concurrency, args.rate));
    while let Some(answer) = answers.next().await {
        bar.inc(1);
        tally.add(&answer);
    }
    bar.finish_and_clear();
    say!("{}", tally.table(started.elapsed()));
    if args.shuffle || args.duplicate > 0 {
        say!("seed {seed}");
    }
    let wanted = if args.tamper || args.stale {
        StatusCode::UNAUTHORIZED
    } else {
        StatusCode::NO_CONTENT
    };
    if tally.all(wanted) {
        return Ok(ExitCode::SUCCESS);
    }
    say!("not every answer was {wanted}");
    Ok(ExitCode::FAILURE)
}

/// What is to be sent, in order.
async fn letters(args: &SendArgs, random: &mut StdRng) -> anyhow::Result<Vec<Letter>> {
    let mut sources: Vec<(String, Vec<u8>)> = Vec::new();
    if args.all {
        sources.extend(fixtures::ALL.map(|(name, body)| (name.to_owned(), body.to_vec())));
    }
    for source in &args.sources {
        sources.push((source.clone(), read(source).await?));
    }
    let count = args.count.unwrap_or(sources.len());
    let mut letters = Vec::with_capacity(count);
    for (number, (name, body)) in sources.iter().cycle().take(count).enumerate() {
        let body = fixtures::recast(body, number / sources.len())
            .with_context(|| format!("{name} cannot be sent more than once"))?;
        letters.push(Letter::new(name, body));
    }
    duplicate(&mut letters, args.duplicate, random);
    if args.shuffle {
        letters.shuffle(random);
    }
    Ok(letters)
}

/// Adds a second delivery of about `percent` of the letters, right behind the first.
fn duplicate(letters: &mut Vec<Letter>, percent: u8, random: &mut StdRng) {
    let probability = f64::from(percent) / 100.0;
    let copies = |letter: Letter| {
        let twice = random.random_bool(probability);
        std::iter::repeat_n(letter, if twice { 2 } else { 1 }).collect::<Vec<_>>()
    };
    *letters = std::mem::take(letters)
        .into_iter()
        .flat_map(copies)
        .collect();
}

async fn read(source: &str) -> anyhow::Result<Vec<u8>> {
    if source == "-" {
        let mut body = Vec::new();
        tokio::io::stdin()
            .read_to_end(&mut body)
            .await
            .context("cannot read standard input")?;
        return Ok(body);
    }
    if Path::new(source).exists() {
        return std::fs::read(source).with_context(|| format!("cannot read {source}"));
    }
    fixtures::find(source).map(<[u8]>::to_vec)
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text
        .parse::<f64>()
        .ok()
        .filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "use a number above 0".to_owned())
}

/// Answers by kind.
#[derive(Default)]
struct Tally(BTreeMap<String, Vec<Duration>>);

impl Tally {
    fn add(&mut self, answer: &Answer) {
        let kind = match &answer.status {
            Ok(status) => status.to_string(),
            Err(problem) => problem.clone(),
        };
        self.0.entry(kind).or_default().push(answer.took);
    }

    fn all(&self, wanted: StatusCode) -> bool {
        self.0.keys().all(|kind| *kind == wanted.to_string())
    }

    fn table(&mut self, elapsed: Duration) -> String {
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::NOTHING);
        table.set_header(["answer", "count", "p50", "p99"]);
        let mut total = 0;
        for (kind, took) in &mut self.0 {
            took.sort_unstable();
            let at = |share: usize| {
                format!(
                    "{:.1} ms",
                    took[(took.len() - 1) * share / 100].as_secs_f64() * 1000.0
                )
            };
            table.add_row([kind.clone(), took.len().to_string(), at(50), at(99)]);
            total += took.len();
        }
        #[expect(clippy::cast_precision_loss, reason = "a number of requests")]
        let rate = total as f64 / elapsed.as_secs_f64();
        let requests = if total == 1 { "request" } else { "requests" };
        format!(
            "{}\n{total} {requests} in {:.2} s, {rate:.0}/s",
            table.trim_fmt(),
            elapsed.as_secs_f64()
        )
    }
}
