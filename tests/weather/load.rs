//! A stream of users' events that does not stop for weather: shuffled, with duplicates, each
//! delivered again and again, as Svix does, until it had its 2xx.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use reqwest::Client;
use tokio::{
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::harness::{
    clerk::{Letter, client, created, deleted, post, shuffled, updated},
    servers::Row,
};
use crate::site::Site;

/// People whose events are shuffled together.
const COHORT: usize = 10;
/// Deliveries that may wait for their 2xx at a time.
const WAITING: usize = 64;
/// Longest wait for a 2xx.
const PATIENCE: Duration = Duration::from_mins(9);

/// A stream of deliveries that goes on until it is told to stop.
pub(crate) struct Load {
    stop: CancellationToken,
    task: JoinHandle<Delivered>,
}

/// What was answered 2xx, and the table that it must have become.
#[derive(Default)]
pub(crate) struct Delivered {
    pub(crate) ids: HashSet<String>,
    pub(crate) rows: Vec<Row>,
    /// Deliveries that were refused or lost, and made again.
    pub(crate) repeated: usize,
}

impl Load {
    /// Starts delivering to where `url` points, which may change, at about `pace` a second.
    pub(crate) fn start(url: &watch::Receiver<String>, pace: u32) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(url.clone(), pace, stop.clone()));
        Self { stop, task }
    }

    /// No new events; returns when those there are have been delivered.
    pub(crate) async fn delivered(self) -> Delivered {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

/// The events of some people, delivered now; returns when each had its 2xx.
pub(crate) async fn some_events(site: &Site, people: usize) -> Delivered {
    let (client, url) = (client(), site.url());
    let (letters, rows) = cohort(&format!("{:016x}", rand::random::<u64>()), people);
    let ids = letters.iter().map(|letter| letter.id.clone()).collect();
    let deliveries = stream::iter(shuffled(&letters, rand::random()));
    let tries: Vec<usize> = deliveries
        .map(|letter| {
            let (client, url) = (&client, &url);
            async move { deliver(client, url, &letter).await }
        })
        .buffer_unordered(16)
        .collect()
        .await;
    Delivered {
        ids,
        rows,
        repeated: tries.into_iter().map(|tries| tries - 1).sum(),
    }
}

/// Delivers one letter of a test's own; returns when it had its 2xx.
pub(crate) async fn deliver_letter(site: &Site, letter: &Letter) {
    deliver(&client(), &site.url(), letter).await;
}

impl Delivered {
    pub(crate) fn add_row(&mut self, (id, email, name): (&str, &str, Option<&str>)) {
        let row = (id.to_owned(), email.to_owned(), name.map(str::to_owned));
        self.rows.push(row);
        self.rows.sort();
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.ids.extend(other.ids);
        self.rows.extend(other.rows);
        self.rows.sort();
        self.repeated += other.repeated;
    }
}

async fn run(url: watch::Receiver<String>, pace: u32, stop: CancellationToken) -> Delivered {
    let client = client();
    let run = rand::random::<u32>();
    let mut tick = interval(Duration::from_secs(1) / pace);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let places = Arc::new(Semaphore::new(WAITING));
    let mut deliveries = JoinSet::new();
    let mut all = Delivered::default();
    for number in 0.. {
        if stop.is_cancelled() {
            break;
        }
        let (letters, rows) = cohort(&format!("{run:08x}_{number:05}"), COHORT);
        all.ids
            .extend(letters.iter().map(|letter| letter.id.clone()));
        all.rows.extend(rows);
        for letter in shuffled(&letters, rand::random()) {
            tick.tick().await;
            let place = places.clone().acquire_owned().await.unwrap();
            let (client, url) = (client.clone(), url.clone());
            deliveries.spawn(async move {
                let tries = deliver(&client, &url, &letter).await;
                drop(place);
                tries - 1
            });
        }
    }
    while let Some(repeated) = deliveries.join_next().await {
        all.repeated += repeated.unwrap();
    }
    all.rows.sort();
    all
}

/// Posts until it is taken; returns how often that took.
pub(crate) async fn deliver(
    client: &Client,
    url: &watch::Receiver<String>,
    letter: &Letter,
) -> usize {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(100);
    for tries in 1.. {
        let to = url.borrow().clone();
        match post(client, &to, letter).await {
            204 => return tries,
            // 0: nobody there, or the answer was lost.
            0 | 503 => {}
            status => panic!("{} was answered {status}", letter.id),
        }
        assert!(Instant::now() < deadline, "{} was never taken", letter.id);
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
    unreachable!("the loop has no end")
}

/// The events of some people, and the rows that must be left of them. Two of them swap their
/// addresses, one in five is deleted.
fn cohort(name: &str, people: usize) -> (Vec<Letter>, Vec<Row>) {
    let id = |number: usize| format!("user_{name}_{number:03}");
    let email = |number: usize| format!("p{number}.{name}@crowd.example");
    let mut letters = Vec::new();
    let mut rows = Vec::new();
    for number in 0..people {
        letters.push(created(&id(number), &email(number)));
        letters.push(updated(&id(number), &email(number), 2));
        letters.push(updated(&id(number), &email(number), 1));
        let (last, holds) = match number {
            0 if people > 1 => (3, email(1)),
            1 => (4, email(0)),
            _ => (2, email(number)),
        };
        if last > 2 {
            letters.push(updated(&id(number), &holds, last));
        }
        if number % 5 == 4 {
            letters.push(deleted(&id(number)));
        } else {
            rows.push((id(number), holds, Some(format!("U {last}"))));
        }
    }
    (letters, rows)
}
