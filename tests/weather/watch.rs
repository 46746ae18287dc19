//! Readiness, asked all the time: 503 with a true cause while something is broken, 200 otherwise.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::harness::{SOON, eventually, process::Process};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(250);

/// Every answer of a process's `/readyz`.
pub(crate) struct Watch {
    answers: Arc<Mutex<Vec<Answer>>>,
    task: JoinHandle<()>,
}

#[derive(Clone, Debug)]
struct Answer {
    asked: Instant,
    answered: Instant,
    /// 0: none.
    status: u16,
    /// Part and cause.
    problems: BTreeMap<String, String>,
}

/// A time in which something was broken, and how it must have shown.
#[derive(Clone, Debug)]
pub(crate) struct Outage {
    pub(crate) from: Instant,
    /// When its mending began.
    pub(crate) until: Instant,
    /// Longest time until it shows.
    pub(crate) noticed: Duration,
    /// Longest time until all is well again.
    pub(crate) recovered: Duration,
    /// The parts that may be named.
    pub(crate) parts: &'static [&'static str],
    /// Texts of which each must be found in some cause that was told.
    pub(crate) causes: &'static [&'static str],
    pub(crate) shown: Shown,
}

/// How an outage must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Without a break once it was noticed.
    Steadily,
    /// In time, and it may come and go.
    AtTimes,
    /// It may be over between two questions.
    Perhaps,
}

impl Outage {
    /// From now on, until [`Outage::over`].
    pub(crate) fn begins(parts: &'static [&'static str], causes: &'static [&'static str]) -> Self {
        let now = Instant::now();
        Self {
            from: now,
            until: now,
            noticed: Duration::from_secs(15),
            recovered: Duration::from_secs(40),
            parts,
            causes,
            shown: Shown::Steadily,
        }
    }

    /// Whether a process has one of the parts.
    pub(crate) fn concerns(&self, command: &str) -> bool {
        self.parts.iter().any(|part| match command {
            "clerk-sync-ingest" => *part == "queue_publish",
            "clerk-sync-worker" => *part != "queue_publish",
            _ => true,
        })
    }

    pub(crate) fn over(mut self) -> Self {
        self.until = Instant::now();
        self
    }
}

/// What a machine makes a process say that is too busy to answer a probe in time: true, and nothing
/// that a test has broken. Few of these pass.
const STRAY: &str = "no answer in 2s";
const MOST_STRAYS: usize = 20;

fn is_stray(answer: &Answer) -> bool {
    let mut causes = answer.problems.values();
    answer.status == 503 && !answer.problems.is_empty() && causes.all(|cause| cause == STRAY)
}

impl Watch {
    pub(crate) async fn start(process: &Process) -> Self {
        let url = format!("http://{}/readyz", process.address("ADMIN_LISTEN").await);
        let answers: Arc<Mutex<Vec<Answer>>> = Arc::default();
        let all = answers.clone();
        let task = tokio::spawn(async move {
            let client = reqwest::Client::builder()
                .timeout(Duration::from_secs(10))
                .build()
                .unwrap();
            loop {
                let answer = ask(&client, &url).await;
                all.lock().unwrap().push(answer);
                sleep(PAUSE).await;
            }
        });
        Self { answers, task }
    }

    /// Waits until readiness is as wanted.
    pub(crate) async fn shows(&self, status: u16) {
        let since = Instant::now();
        eventually(&format!("/readyz is {status}"), SOON, async || {
            let answers = self.answers.lock().unwrap();
            let last = answers.last();
            last.is_some_and(|last| last.asked >= since && last.status == status)
        })
        .await;
    }

    /// Waits until some cause contains a text.
    pub(crate) async fn tells(&self, text: &str) {
        let since = Instant::now();
        eventually(&format!("/readyz tells `{text}`"), SOON, async || {
            let answers = self.answers.lock().unwrap();
            answers
                .iter()
                .filter(|answer| answer.asked >= since)
                .any(|answer| answer.problems.values().any(|cause| cause.contains(text)))
        })
        .await;
    }

    /// Asserts that it told of the outages, of each in time and truly, and of nothing else.
    pub(crate) fn told(&self, who: &str, outages: &[Outage]) {
        self.told_at_most(who, outages);
        let answers = self.answers.lock().unwrap();
        for outage in outages
            .iter()
            .filter(|outage| outage.shown != Shown::Perhaps)
        {
            told_of(who, &answers, outage);
        }
    }

    /// Asserts that it told of nothing else.
    pub(crate) fn told_at_most(&self, who: &str, outages: &[Outage]) {
        self.task.abort();
        let answers = self.answers.lock().unwrap();
        assert!(!answers.is_empty(), "{who} was never asked");
        let mut strays = 0;
        for answer in answers.iter() {
            let during = |outage: &&Outage| {
                answer.answered >= outage.from && answer.asked <= outage.until + outage.recovered
            };
            let broken: Vec<&Outage> = outages.iter().filter(during).collect();
            if broken.is_empty() && is_stray(answer) {
                strays += 1;
                assert!(
                    strays <= MOST_STRAYS,
                    "{who} has no answer so often: {answer:?}"
                );
            }
            let (status, problems) = (answer.status, &answer.problems);
            assert!(
                status == 200 || !broken.is_empty() || is_stray(answer),
                "{who}: all was well, and /readyz was {status}: {problems:?}"
            );
            assert!(status == 200 || !problems.is_empty(), "{who} gave no cause");
            for (part, cause) in problems {
                let is_broken = |outage: &&Outage| outage.parts.contains(&&**part);
                assert!(
                    broken.iter().any(is_broken) || cause == STRAY,
                    "{who} blamed {part}: {cause}"
                );
                // An operator reads it; it must say something, and no secret.
                let says = cause.len() > 5 && !cause.contains("password");
                assert!(says, "{part}: {cause}");
            }
        }
    }
}

fn told_of(who: &str, answers: &[Answer], outage: &Outage) {
    let shown = |answer: &&Answer| {
        answer.status == 503
            && answer.answered >= outage.from
            && answer.asked <= outage.until + outage.recovered
            && outage
                .parts
                .iter()
                .any(|part| answer.problems.contains_key(*part))
    };
    let told: Vec<&Answer> = answers.iter().filter(shown).collect();
    let first = told
        .first()
        .unwrap_or_else(|| panic!("{who} never told of {outage:?}"));
    let after = first.answered.saturating_duration_since(outage.from);
    assert!(after <= outage.noticed, "{who} told of it after {after:?}");
    if outage.shown == Shown::Steadily {
        let well = answers.iter().find(|answer| {
            answer.asked > first.answered && answer.answered < outage.until && answer.status != 503
        });
        assert!(
            well.is_none(),
            "{who} was {well:?} in the middle of {outage:?}"
        );
    }
    for text in outage.causes {
        let said = told.iter().flat_map(|answer| answer.problems.values());
        let mut causes: Vec<_> = said.collect();
        causes.dedup();
        assert!(
            causes.iter().any(|cause| cause.contains(text)),
            "{who} never said `{text}`, but {causes:#?}"
        );
    }
}

async fn ask(client: &reqwest::Client, url: &str) -> Answer {
    let asked = Instant::now();
    let (status, body) = match client.get(url).send().await {
        Ok(response) => {
            let status = response.status().as_u16();
            (status, response.text().await.unwrap_or_default())
        }
        Err(error) => (0, error.to_string()),
    };
    let body: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    let problems = body["problems"].as_object().cloned().unwrap_or_default();
    let text = |cause: serde_json::Value| cause.as_str().unwrap_or_default().to_owned();
    Answer {
        asked,
        answered: Instant::now(),
        status,
        problems: problems
            .into_iter()
            .map(|(part, cause)| (part, text(cause)))
            .collect(),
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
