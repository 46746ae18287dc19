//! Three nodes, and what is left when the one that leads is killed, again and again. Run by
//! `scripts/cluster`, which has the nodes.

use std::{
    collections::HashSet,
    fmt::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clerk_sync_pipeline::queue::{Rung, amqp};
use tokio::{
    process::Command,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::harness::{
    clerk::{self, Letter, SECRET, created, deleted, updated},
    eventually,
    process::{Process, base_env},
    servers::{ROOT, Row, TestDb, TestQueue, finish},
};

/// Rounds, unless CLUSTER_ROUNDS says otherwise.
const ROUNDS: usize = 5;
/// Load between two troubles, so that each meets a pipeline at work.
const QUIET: Duration = Duration::from_secs(5);
/// A node beyond a broken network.
const PAUSE: Duration = Duration::from_secs(20);
/// Longest wait for the nodes to agree again, or for the workers to catch up.
const PATIENCE: Duration = Duration::from_secs(120);
/// Who sends, at the same time. Each has users of its own, so that it knows how they end.
const SENDERS: usize = 16;
/// Between two events of a sender: some 200 a second from all, which leaves two cores some air.
const PACE: Duration = Duration::from_millis(80);

/// `scripts/cluster kill n1`, and the like.
async fn trouble(command: &str, node: &str) {
    let mut script = Command::new("scripts/cluster");
    script.args([command, node]);
    finish(script).await;
}

/// Every queue of the topology has three members that are up.
async fn is_whole(queue: &TestQueue) -> bool {
    let queues = queues(queue).await;
    let ladder = queue.server.topology.ladder.rungs().count();
    queues.len() == ladder + 3 && queues.iter().all(|queue| queue.online == 3)
}

/// The node that leads what the workers consume. The cluster is whole.
async fn leader(queue: &TestQueue) -> String {
    let apply = queue.server.topology.apply();
    let mut queues = queues(queue).await.into_iter();
    queues.find(|queue| queue.name == apply).unwrap().leader
}

struct Queue {
    name: String,
    leader: String,
    /// How many of its members are up.
    online: usize,
}

/// The topology's queues, as far as the nodes can tell now.
async fn queues(queue: &TestQueue) -> Vec<Queue> {
    let mut command = Command::new("scripts/cluster");
    let listed = command.arg("queues").current_dir(ROOT).output().await;
    let table = String::from_utf8(listed.unwrap().stdout).unwrap();
    let rows = table.lines().map(|row| row.split('\t').collect::<Vec<_>>());
    rows.filter(|row| row[0].starts_with(&queue.server.topology.prefix))
        .map(|row| Queue {
            name: row[0].to_owned(),
            leader: row[1].split('@').next().unwrap().to_owned(),
            online: row[2].matches('@').count(),
        })
        .collect()
}

/// What the senders have seen.
#[derive(Default)]
struct Seen {
    deliveries: usize,
    retried: usize,
    /// Moment of each 2xx, and whose it was.
    accepted: Vec<(Instant, String)>,
}

/// Senders at work, until they are told to stop.
struct Load {
    seen: Arc<Mutex<Seen>>,
    enough: Arc<AtomicBool>,
    senders: JoinSet<Vec<Row>>,
}

impl Load {
    fn start(urls: &[String; 2]) -> Self {
        let (seen, enough) = (Arc::default(), Arc::default());
        let senders = (0..SENDERS)
            .map(|sender| send(sender, urls.clone(), Arc::clone(&seen), Arc::clone(&enough)))
            .collect();
        Self {
            seen,
            enough,
            senders,
        }
    }

    /// Lets every sender finish; the rows that must be left.
    async fn stop(self) -> (Seen, Vec<Row>) {
        self.enough.store(true, Ordering::Relaxed);
        let mut rows: Vec<Row> = self.senders.join_all().await.concat();
        rows.sort();
        (std::mem::take(&mut *self.seen.lock().unwrap()), rows)
    }

    /// The longest time without a 2xx since then, and how long after then it was over.
    fn stalled(&self, since: Instant) -> (Duration, Duration) {
        let seen = self.seen.lock().unwrap();
        let after = seen
            .accepted
            .iter()
            .map(|(at, _)| *at)
            .filter(|at| *at > since);
        let (mut longest, mut last) = ((Duration::ZERO, Duration::ZERO), since);
        for at in after {
            longest = longest.max((at - last, at - since));
            last = at;
        }
        longest
    }
}

/// One user after the other: created, changed, and every fourth deleted. Svix's way with an answer
/// that is no 2xx is to send it again, whatever it was; only, this is sooner.
async fn send(
    sender: usize,
    urls: [String; 2],
    seen: Arc<Mutex<Seen>>,
    enough: Arc<AtomicBool>,
) -> Vec<Row> {
    let client = clerk::client();
    let mut rows = Vec::new();
    for number in 0.. {
        let id = format!("user_{sender:02}_{number:05}");
        let email = format!("{id}@a.example");
        let mut letters = vec![
            created(&id, &email),
            updated(&id, &email, 2),
            updated(&id, &email, 1),
        ];
        if number % 4 == 0 {
            letters.push(deleted(&id));
        } else {
            rows.push((id, email, Some("U 2".to_owned())));
        }
        for letter in &letters {
            deliver(&client, &urls, sender, letter, &seen).await;
            sleep(PACE).await;
        }
        if enough.load(Ordering::Relaxed) {
            break;
        }
    }
    rows
}

/// To one ingester after the other, as a load balancer does, until one takes it.
async fn deliver(
    client: &reqwest::Client,
    urls: &[String; 2],
    sender: usize,
    letter: &Letter,
    seen: &Mutex<Seen>,
) {
    let deadline = Instant::now() + PATIENCE;
    for turn in sender.. {
        let status = clerk::post(client, &urls[turn % 2], letter).await;
        {
            let mut seen = seen.lock().unwrap();
            seen.deliveries += 1;
            if status == 204 {
                seen.accepted.push((Instant::now(), letter.id.clone()));
                return;
            }
            seen.retried += 1;
        }
        assert!(
            matches!(status, 0 | 503),
            "{} was answered {status}",
            letter.id
        );
        assert!(Instant::now() < deadline, "{} is never taken", letter.id);
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the three nodes of scripts/cluster, which runs it"]
async fn nothing_answered_2xx_is_lost_while_leaders_are_killed_and_a_node_is_cut_off() {
    let rounds = std::env::var("CLUSTER_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let mut report = String::new();
    let db = TestDb::postgres().await.migrated().await;
    let queue = TestQueue::new().await;
    eventually("every queue has three members", PATIENCE, async || {
        is_whole(&queue).await
    })
    .await;

    let mut env = base_env();
    queue.env(&mut env);
    env.insert("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned());
    env.insert("DATABASE_URL", db.url.expose().to_string());
    let start = |name: &str| Process::start(name, &[], &env);
    let ingesters = [start("clerk-sync-ingest"), start("clerk-sync-ingest")];
    let workers = [start("clerk-sync-worker"), start("clerk-sync-worker")];
    let urls = [
        ingesters[0].webhook_url().await,
        ingesters[1].webhook_url().await,
    ];
    for process in ingesters.iter().chain(&workers) {
        process.ready().await;
    }

    let load = Load::start(&urls);
    let began = Instant::now();
    for round in 1..=rounds {
        sleep(QUIET).await;
        let node = leader(&queue).await;
        let since = Instant::now();
        trouble("kill", &node).await;
        sleep(QUIET).await;
        trouble("start", &node).await;
        eventually("the killed node is a member again", PATIENCE, async || {
            is_whole(&queue).await
        })
        .await;
        let (stalled, over) = load.stalled(since);
        writeln!(
            report,
            "round {round}: {node} led and was killed; longest time without a 2xx {stalled:.1?}, \
             over {over:.1?} after the kill; whole again after {:.1?}",
            since.elapsed()
        )
        .unwrap();
    }
    sleep(QUIET).await;
    let node = leader(&queue).await;
    let since = Instant::now();
    trouble("pause", &node).await;
    sleep(PAUSE).await;
    trouble("resume", &node).await;
    eventually("the paused node is a member again", PATIENCE, async || {
        is_whole(&queue).await
    })
    .await;
    let (stalled, over) = load.stalled(since);
    writeln!(
        report,
        "{node} led and was paused for {PAUSE:?}; longest time without a 2xx {stalled:.1?}, over \
         {over:.1?} after it; whole again after {:.1?}",
        since.elapsed()
    )
    .unwrap();
    sleep(QUIET).await;
    let (seen, rows) = load.stop().await;
    let lasted = began.elapsed();

    // Every event that was answered 2xx is in the ledger, applied.
    let accepted: HashSet<&String> = seen.accepted.iter().map(|(_, id)| id).collect();
    let ledger = "SELECT event_id FROM clerk_sync.processed_events \
                  WHERE outcome IN ('created', 'updated', 'deleted', 'stale')";
    let mut lost = accepted.len();
    let deadline = Instant::now() + PATIENCE;
    while lost > 0 && Instant::now() < deadline {
        let applied: HashSet<String> = db.texts(ledger).await.into_iter().collect();
        lost = accepted.iter().filter(|id| !applied.contains(**id)).count();
        sleep(Duration::from_secs(1)).await;
    }
    let mut duplicates = 0.0;
    for worker in &workers {
        duplicates += worker.metric("clerk_sync_events_total", "duplicate").await;
    }
    println!(
        "\n{report}{} deliveries in {lasted:.0?}, {} answered 2xx, {} answered otherwise and sent \
         again; {duplicates} duplicates found by the workers; lost: {lost}\n",
        seen.deliveries,
        accepted.len(),
        seen.retried
    );
    assert_eq!(lost, 0, "events that were answered 2xx are not applied");
    assert!(db.users().await == rows, "the table is not the instance's");

    // Nothing is left anywhere, and nobody was given up.
    let topology = &queue.server.topology;
    let mut queues = vec![topology.apply(), topology.dead(), topology.unrouted()];
    queues.extend((0..topology.ladder.rungs().count()).map(|rung| topology.rung(Rung(rung))));
    for name in queues {
        eventually(&format!("{name} is empty"), PATIENCE, async || {
            amqp::depth(&queue.server, &name).await == Ok(0)
        })
        .await;
    }
    for process in ingesters.into_iter().chain(workers) {
        process.stop().await;
    }
    queue.remove().await;
    db.remove().await;
}
