//! Where the numbers come from: this process's own metrics, those of other processes, or only the
//! ledger, which knows nothing of what was refused at the door.

use std::{sync::Arc, time::Duration};

use clerk_sync_entity::processed_events::{self, Row};
use clerk_sync_pipeline::telemetry::Metrics;
use futures_util::future::join_all;
use url::Url;

use crate::{
    delta::Delta,
    exposition::Target,
    reader::{Reader, Time, now},
};

/// Longest wait for the metrics of another process, and their greatest size.
const SCRAPE_WITHIN: Duration = Duration::from_secs(3);
const MAX_METRICS: usize = 4 << 20;
/// The ledger is read up to this long ago: a row is there only after its commit.
const SETTLED_AFTER: chrono::TimeDelta = chrono::TimeDelta::seconds(3);
/// Most that is counted at once: a database that has been away, or is slow, is not asked for more
/// each time.
const LONGEST: chrono::TimeDelta = chrono::TimeDelta::minutes(2);
/// Most rows whose latency is looked at each time.
const LATENCIES_OF: u64 = 2000;

/// What was seen at one look.
#[derive(Debug, Default)]
pub(crate) struct Look {
    pub(crate) delta: Delta,
    /// When Clerk was last heard, in seconds since 1970; 0 for not yet.
    pub(crate) last_verified: Option<f64>,
    /// Whether every process has its queue.
    pub(crate) connected: Option<bool>,
    /// What could not be read, for an operator.
    pub(crate) problems: Vec<String>,
}

/// Where the numbers come from.
pub(crate) enum Source {
    /// This process is all there is.
    Own {
        metrics: Arc<Metrics>,
        target: Target,
    },
    /// Metrics of other processes.
    Scraped {
        client: reqwest::Client,
        targets: Vec<(Url, Target)>,
    },
    /// The ledger alone, read up to this moment.
    Ledger { reader: Reader, up_to: Time },
}

impl Source {
    pub(crate) fn own(metrics: Arc<Metrics>) -> Self {
        Self::Own {
            metrics,
            target: Target::default(),
        }
    }

    /// # Errors
    /// No HTTPS client can be made.
    pub(crate) fn scraped(urls: Vec<Url>) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(SCRAPE_WITHIN)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let targets = urls.into_iter().map(|url| (url, Target::default()));
        Ok(Self::Scraped {
            client,
            targets: targets.collect(),
        })
    }

    pub(crate) fn ledger(reader: Reader) -> Self {
        let up_to = now() - SETTLED_AFTER;
        Self::Ledger { reader, up_to }
    }

    /// Whether refused requests are known.
    pub(crate) fn knows_requests(&self) -> bool {
        !matches!(self, Self::Ledger { .. })
    }

    /// What happened since the last look.
    pub(crate) async fn look(&mut self) -> Look {
        match self {
            Self::Own { metrics, target } => {
                let text = metrics.render();
                let mut look = Look::default();
                target.advance(&String::from_utf8_lossy(&text), &mut look);
                look
            }
            Self::Scraped { client, targets } => scrape(client, targets).await,
            Self::Ledger { reader, up_to } => {
                let to = now() - SETTLED_AFTER;
                let from = (*up_to).max(to - LONGEST);
                match ledger(reader, from, to).await {
                    Ok(look) => {
                        *up_to = to;
                        look
                    }
                    Err(problem) => Look {
                        problems: vec![problem],
                        ..Look::default()
                    },
                }
            }
        }
    }
}

async fn scrape(client: &reqwest::Client, targets: &mut [(Url, Target)]) -> Look {
    let answers = targets.iter().map(|(url, _)| text(client, url));
    let answers = join_all(answers).await;
    let mut look = Look::default();
    for ((url, target), answer) in targets.iter_mut().zip(answers) {
        match answer {
            Ok(text) => target.advance(&text, &mut look),
            Err(cause) => {
                look.connected = Some(false);
                look.problems
                    .push(format!("no metrics of {}: {cause}", shown(url)));
            }
        }
    }
    look
}

async fn text(client: &reqwest::Client, url: &Url) -> Result<String, String> {
    let cause = |error: reqwest::Error| error.without_url().to_string();
    let answer = client.get(url.clone()).send().await.map_err(cause)?;
    let mut answer = answer.error_for_status().map_err(cause)?;
    let mut text = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(cause)? {
        if text.len() + chunk.len() > MAX_METRICS {
            return Err("they are too long".to_owned());
        }
        text.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// An address without what may be secret in it.
fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url
        .port()
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    format!("{}://{host}{port}{}", url.scheme(), url.path())
}

async fn ledger(reader: &Reader, from: Time, to: Time) -> Result<Look, String> {
    let backend = reader.backend();
    let counts = processed_events::count_between(backend, from, to);
    let counted = reader.rows(&counts).await.map_err(|error| error.0)?;
    let mut look = Look::default();
    for row in counted {
        let outcome = row.try_get::<String>("", "outcome");
        let outcome = outcome.map_err(|error| error.to_string())?;
        let count = row.try_get::<i64>("", "count");
        let count = count.map_err(|error| error.to_string())?;
        look.delta.outcomes.insert(outcome, count.unsigned_abs());
    }
    let newest = processed_events::newest_between(backend, from, to, LATENCIES_OF);
    let rows: Vec<Row> = reader.all(&newest).await.map_err(|error| error.0)?;
    for row in &rows {
        if let Some(latency) = applied_after(row) {
            look.delta.latencies.add(latency);
        }
        let received = row.received_at.timestamp_millis();
        let received = received as f64 / 1000.0;
        look.last_verified = Some(look.last_verified.unwrap_or(0.0).max(received));
    }
    Ok(look)
}

/// Clerk's time of the event to the commit, of an event that was applied.
fn applied_after(row: &Row) -> Option<Duration> {
    let applied = matches!(row.outcome.as_str(), "created" | "updated" | "deleted");
    let occurred_at = row.occurred_at.filter(|_| applied)?;
    (row.processed_at - occurred_at).to_std().ok()
}
