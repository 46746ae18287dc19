//! Delivering a history as Svix would, only sooner: in any order, some events several times, each
//! until it is answered 204.

use std::{collections::BTreeMap, net::SocketAddr, ops::Range, time::Duration};

use clerk_sync_simulator::History;
use futures_util::{StreamExt as _, stream};
use rand::{Rng as _, rngs::StdRng, seq::SliceRandom as _};
use reqwest::StatusCode;
use tokio::time::{Instant, sleep, sleep_until};

use super::{report::Progress, site::Site};
use crate::send::{Letter, Sender, Spoil};

/// How many of a hundred events are delivered again.
const AGAIN: u32 = 20;
/// Requests at a time.
const CONCURRENCY: usize = 24;
/// Pauses before an event is delivered once more.
const PAUSE: Range<Duration> = Duration::from_millis(20)..Duration::from_millis(300);
/// An event that is not taken for this long is a failure of the promise.
const GIVE_UP: Duration = Duration::from_secs(120);

/// What is delivered, in this order.
pub(crate) struct Deliveries {
    letters: Vec<Letter>,
    /// How many of them are second or later ones of their event.
    pub(crate) again: usize,
}

/// How often each answer was given.
pub(crate) type Answers = BTreeMap<String, usize>;

impl Deliveries {
    pub(crate) fn of(history: &History, random: &mut StdRng) -> Self {
        let mut letters = Vec::new();
        for event in &history.events {
            let letter = Letter::of(event.event_type, &event.id, event.body.clone());
            while random.random_ratio(AGAIN, 100) {
                letters.push(letter.clone());
            }
            letters.push(letter);
        }
        letters.shuffle(random);
        Self {
            again: letters.len() - history.events.len(),
            letters,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.letters.len()
    }

    /// Posts all of them, each to any of the `fronts`, over the time of `spread`.
    pub(crate) async fn deliver(
        self,
        site: &Site,
        fronts: &[SocketAddr],
        spread: Option<Duration>,
        progress: &Progress,
    ) -> anyhow::Result<Answers> {
        let sender = |front: &SocketAddr| {
            let url = format!("http://{front}/api/webhooks/clerk").parse()?;
            Sender::new(url, &site.secret, Spoil::default())
        };
        let senders = fronts
            .iter()
            .map(sender)
            .collect::<anyhow::Result<Vec<_>>>()?;
        let started = Instant::now();
        let gap = spread.unwrap_or_default() / u32::try_from(self.len().max(1))?;
        let mut delivering = stream::iter(self.letters.into_iter().zip(0_u32..))
            .map(|(letter, number)| {
                let senders = &senders;
                async move {
                    sleep_until(started + gap * number).await;
                    deliver(senders, letter).await
                }
            })
            .buffer_unordered(CONCURRENCY);
        let mut answers = Answers::new();
        while let Some(delivered) = delivering.next().await {
            for answer in delivered? {
                *answers.entry(answer).or_default() += 1;
            }
            progress.delivered();
        }
        Ok(answers)
    }
}

/// Delivers one event until it is taken; returns every answer on the way.
async fn deliver(senders: &[Sender], letter: Letter) -> anyhow::Result<Vec<String>> {
    let give_up = Instant::now() + GIVE_UP;
    let mut answers = Vec::new();
    loop {
        let sender = &senders[rand::random_range(0..senders.len())];
        match sender.post(letter.clone()).await.status {
            Ok(StatusCode::NO_CONTENT) => {
                answers.push(StatusCode::NO_CONTENT.as_str().to_owned());
                return Ok(answers);
            }
            // Too slow is the fault of a line that we have broken.
            Ok(status) if status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT => {
                anyhow::bail!("a signed event was answered {status}: {}", letter.id)
            }
            Ok(status) => answers.push(status.as_str().to_owned()),
            Err(_) => answers.push("none".to_owned()),
        }
        anyhow::ensure!(
            Instant::now() < give_up,
            "an event was not taken within {GIVE_UP:?}: {}",
            letter.id
        );
        sleep(rand::random_range(PAUSE)).await;
    }
}
