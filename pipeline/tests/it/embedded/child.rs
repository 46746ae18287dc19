//! What a process leaves behind that is killed, or whose disk is full: a child process, which is
//! this test binary once more, does it.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
};

use clerk_sync_pipeline::{
    queue::{
        BatchLimits, Consume as _, Publish as _, Settlement,
        embedded::{EmbeddedPublisher, EmbeddedQueue},
    },
    telemetry::Metrics,
};

use super::Folder;
use crate::contract::{self, event, ladder, one, sized_event, within};

const ROLE: &str = "CLERK_SYNC_TEST_ROLE";
const FILE: &str = "CLERK_SYNC_TEST_FILE";

/// A child process that is killed at the latest when it is dropped.
struct Running {
    process: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(mut command: Command, role: &str, file: &Path) -> Self {
        let mut process = command
            .args([
                "embedded::child::role",
                "--exact",
                "--ignored",
                "--nocapture",
                "--quiet",
            ])
            .env(ROLE, role)
            .env(FILE, file)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// The next thing it says, without the test harness's own words. `None`: it has ended.
    fn said(&mut self) -> Option<String> {
        // The end mark: a line that a kill cut short is not a word.
        self.lines.by_ref().find_map(|line| {
            let line = line.unwrap();
            let said = line.split_once('>')?.1;
            said.strip_suffix('<').map(str::to_owned)
        })
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn say(what: &str) {
    println!(">{what}<");
}

fn this_binary() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

/// The kernel lets no file of it grow beyond 2 MiB: `EFBIG`, as `ENOSPC` on a full disk.
#[cfg(target_os = "linux")]
fn this_binary_with_2_mib() -> Command {
    let mut limited = Command::new("sh");
    // A soft limit in blocks of 512 bytes, and no signal when it is reached.
    let script = "trap '' XFSZ; ulimit -S -f 4096; exec \"$0\" \"$@\"";
    limited
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap());
    limited
}

/// Every confirmed id is among the queued ones.
async fn assert_kept(folder: &Folder, confirmed: &BTreeSet<String>) {
    let queue = folder.reopen().await;
    let mut consumer = queue.consumer();
    let ready = queue.depths().await.unwrap().ready;
    let mut kept = Vec::new();
    while kept.len() < usize::try_from(ready).unwrap() {
        let linger = std::time::Duration::ZERO;
        let limits = BatchLimits {
            events: 100,
            linger,
        };
        let batch = within("a batch", consumer.next_batch(limits)).await;
        for delivery in batch {
            // Whole, or not at all.
            let (id, size) = (delivery.event.id.as_str(), delivery.event.body.len());
            assert!(delivery.event == sized_event(id, size));
            kept.push(id.to_owned());
        }
    }
    let distinct: BTreeSet<_> = kept.iter().cloned().collect();
    assert_eq!(distinct.len(), kept.len(), "one was queued twice");
    let lost: Vec<_> = confirmed.difference(&distinct).collect();
    assert!(lost.is_empty(), "confirmed and lost: {lost:?}");
    drop(consumer);
    queue.close().await;
}

#[tokio::test]
async fn kill_9_in_the_middle_of_publishing_loses_nothing_confirmed() {
    let folder = Folder::new();
    let mut confirmed = BTreeSet::new();
    // Again on the file that the kill left.
    for (round, enough) in [1, 60, 1500].into_iter().enumerate() {
        let role = format!("publish {round}");
        let mut child = Running::start(this_binary(), &role, &folder.file());
        for _ in 0..enough {
            confirmed.insert(child.said().expect("it publishes until it is killed"));
        }
        child.kill();
        // What it had said before it died.
        while let Some(id) = child.said() {
            confirmed.insert(id);
        }
    }
    assert!(confirmed.len() > 1500);
    assert_kept(&folder, &confirmed).await;
}

#[tokio::test]
async fn deliveries_are_counted_across_kill_9() {
    let folder = Folder::new();
    let queue = folder.open().unwrap();
    contract::publish(&queue.publisher(), &["msg_1"]).await;
    queue.close().await;
    for redeliveries in 0..3 {
        let mut child = Running::start(this_binary(), "take", &folder.file());
        assert_eq!(child.said(), Some(redeliveries.to_string()));
        child.kill();
    }
    let queue = folder.open().unwrap();
    let mut consumer = queue.consumer();
    let delivery = one(&mut consumer).await;
    assert_eq!((delivery.redeliveries, delivery.attempt), (3, 0));
    drop(consumer);
    queue.close().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_refuses_publishes_keeps_the_rest_and_is_survived() {
    let folder = Folder::new();
    let mut child = Running::start(this_binary_with_2_mib(), "fill", &folder.file());
    let mut confirmed = BTreeSet::new();
    let refused = loop {
        let said = child.said().expect("it goes on after a refusal");
        match said.strip_prefix("refused ") {
            Some(why) => break why.to_owned(),
            None => confirmed.insert(said),
        };
    };
    assert!(
        confirmed.len() > 5,
        "2 MB hold some of 50 kB: {confirmed:?}"
    );
    assert!(refused.contains("the queue is unavailable"), "{refused}");
    assert!(!refused.contains("msg_"), "{refused}");
    let pid = child.process.id().to_string();
    let lifted = Command::new("prlimit")
        .args(["--fsize=unlimited:unlimited", "--pid", &pid])
        .status()
        .unwrap();
    assert!(lifted.success());
    let recovered = child.said().unwrap();
    confirmed.insert(recovered.strip_prefix("recovered ").unwrap().to_owned());
    assert_eq!(child.said().as_deref(), Some("closed"));
    assert!(child.process.wait().unwrap().success());
    assert_kept(&folder, &confirmed).await;
}

/// The log has reached the disk's end, the file has not: 10 MB pass through.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_log_that_cannot_grow_is_started_again() {
    let folder = Folder::new();
    let mut child = Running::start(this_binary_with_2_mib(), "churn", &folder.file());
    let refusals: u32 = child.said().unwrap().parse().unwrap();
    assert!(refusals > 0, "the log was never full");
    assert!(child.process.wait().unwrap().success());
}

/// The child's side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is what the other tests start"]
async fn role() {
    let (Ok(role), Ok(file)) = (std::env::var(ROLE), std::env::var(FILE)) else {
        return;
    };
    let metrics = Arc::new(Metrics::new(0));
    let queue = EmbeddedQueue::open(Path::new(&file), ladder(), metrics).unwrap();
    // It ends by itself when its test has lost it.
    within("the role", async {
        match role.split_once(' ') {
            Some(("publish", round)) => publish_for_ever(&queue.publisher(), round).await,
            _ if role == "take" => take_and_wait(&queue).await,
            _ if role == "fill" => fill(queue).await,
            _ if role == "churn" => churn(queue).await,
            _ => panic!("no role `{role}`"),
        }
    })
    .await;
}

async fn publish_for_ever(publisher: &EmbeddedPublisher, round: &str) {
    let mut tasks = Vec::new();
    for task in 0..16 {
        let (publisher, round) = (publisher.clone(), round.to_owned());
        tasks.push(tokio::spawn(async move {
            for n in 0.. {
                let id = format!("msg_{round}_{task}_{n}");
                publisher.publish(sized_event(&id, 2500)).await.unwrap();
                say(&id);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

async fn take_and_wait(queue: &EmbeddedQueue) {
    let mut consumer = queue.consumer();
    let delivery = one(&mut consumer).await;
    say(&delivery.redeliveries.to_string());
    std::future::pending::<()>().await;
}

async fn fill(queue: EmbeddedQueue) {
    let publisher = queue.publisher();
    let mut told = false;
    for n in 0.. {
        let id = format!("msg_{n}");
        match publisher.publish(sized_event(&id, 50_000)).await {
            Ok(()) if told => {
                say(&format!("recovered {id}"));
                break;
            }
            Ok(()) => say(&id),
            Err(error) if told => drop(error),
            Err(error) => {
                say(&format!("refused {error}"));
                told = true;
            }
        }
    }
    // What is there can be consumed.
    assert_eq!(event("msg_0").id, one(&mut queue.consumer()).await.event.id);
    queue.close().await;
    say("closed");
}

async fn churn(queue: EmbeddedQueue) {
    let publisher = queue.publisher();
    let mut consumer = queue.consumer();
    let mut refusals = 0;
    for n in 0..200 {
        let event = sized_event(&format!("msg_{n}"), 50_000);
        while publisher.publish(event.clone()).await.is_err() {
            refusals += 1;
        }
        loop {
            let delivery = one(&mut consumer).await;
            let settled = consumer.settle(vec![(delivery, Settlement::Done)]).await;
            if settled.is_ok() {
                break;
            }
            refusals += 1;
        }
    }
    let depths = queue.depths().await.unwrap();
    assert_eq!((depths.ready, depths.in_flight, depths.dead), (0, 0, 0));
    say(&refusals.to_string());
    drop(consumer);
    queue.close().await;
}
