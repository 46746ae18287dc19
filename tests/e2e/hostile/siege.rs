//! An ingester under attack, seen from outside: its memory, its files, its processor time, and a
//! polite client that must not notice.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::Client;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::harness::{
    SOON,
    clerk::{Letter, SECRET, created, now, post, sign},
    eventually,
    process::{Env, Process, base_env},
    servers::TestQueue,
    wire::Wire,
};

/// Longest wait of the polite client for its 204: a third of Svix' patience.
const POLITE_PATIENCE: Duration = Duration::from_secs(5);
/// The polite client's pause between two requests.
const POLITE_PAUSE: Duration = Duration::from_millis(50);
/// What an open connection may take beside its bodies: its task, hyper's read buffer (16 KiB at
/// most) and its write buffer. Idle ones were seen to take 5 KiB, ones with half a head 18 KiB.
pub(super) const PER_CONNECTION: u64 = 32 * KIB;
/// What the allocator may keep or round up, and the polite client's own work.
const SLACK: u64 = 16 * MIB;
pub(super) const KIB: u64 = 1024;
pub(super) const MIB: u64 = 1024 * KIB;

/// The real binary on the real broker, with a polite client at its door.
pub(super) struct Siege {
    pub(super) address: SocketAddr,
    ingest: Process,
    queue: TestQueue,
    over: Arc<AtomicBool>,
    /// Polite requests that were answered so far.
    answered: Arc<AtomicUsize>,
    polite: tokio::task::JoinHandle<Polite>,
    resident_before: u64,
    files_before: usize,
}

/// How the polite client fared.
struct Polite {
    accepted: Vec<String>,
    longest: Duration,
}

impl Siege {
    pub(super) async fn lay() -> Self {
        Self::with(&[]).await
    }

    /// With settings of its own, and the number of files that many systems give.
    pub(super) async fn with(settings: &[(&'static str, &str)]) -> Self {
        Self::after("ulimit -S -n 1024", settings).await
    }

    /// After a preparation in a shell.
    pub(super) async fn after(preparation: &str, settings: &[(&'static str, &str)]) -> Self {
        ask_for_files();
        let queue = TestQueue::new().await;
        let mut env: Env = base_env();
        queue.env(&mut env);
        env.insert("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned());
        // Not the 5 s, 4 s and 75 s of the defaults, which the tests would wait for.
        for (limit, time) in [
            ("HEAD_TIMEOUT", "2s"),
            ("BODY_TIMEOUT", "2s"),
            ("IDLE_TIMEOUT", "1s"),
        ] {
            env.insert(limit, time.to_owned());
        }
        env.extend(
            settings
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        let ingest = Process::start_after(preparation, "clerk-sync-ingest", &env);
        ingest.ready().await;
        let address = ingest.address("LISTEN").await;
        let url = ingest.webhook_url().await;
        // Warm: the first requests fill pools and caches that stay.
        let client = Client::builder().timeout(POLITE_PATIENCE).build().unwrap();
        for _ in 0..20 {
            assert_eq!(post(&client, &url, &greeting()).await, 204);
        }
        drop(client);
        let resident_before = ingest.memory("VmRSS");
        ingest.forget_peak();
        let files_before = ingest.files();
        let over = Arc::new(AtomicBool::new(false));
        let answered = Arc::<AtomicUsize>::default();
        let polite = tokio::spawn(be_polite(url, over.clone(), answered.clone()));
        Self {
            address,
            ingest,
            queue,
            over,
            answered,
            polite,
            resident_before,
            files_before,
        }
    }

    pub(super) async fn connect(&self) -> Wire {
        Wire::connect(self.address).await
    }

    pub(super) async fn connections(&self, count: usize) -> Vec<Wire> {
        let mut wires = Vec::with_capacity(count);
        for _ in 0..count {
            wires.push(self.connect().await);
        }
        wires
    }

    /// Sends bytes on a connection of its own; all that comes back until the server closes.
    pub(super) async fn ask(&self, bytes: &[u8]) -> Vec<u8> {
        let mut wire = self.connect().await;
        wire.send(bytes).await;
        wire.until_closed().await
    }

    /// How many file descriptors it holds beyond those it began with.
    pub(super) fn files(&self) -> usize {
        self.ingest.files().saturating_sub(self.files_before)
    }

    /// Processor time it has taken so far.
    pub(super) fn processor_time(&self) -> Duration {
        self.ingest.processor_time()
    }

    pub(super) async fn metric(&self, name: &str, part: &str) -> f64 {
        self.ingest.metric(name, part).await
    }

    /// Everything that the process has said so far.
    pub(super) fn output(&self) -> String {
        self.ingest.output()
    }

    pub(super) async fn admin_address(&self) -> SocketAddr {
        self.ingest.address("ADMIN_LISTEN").await
    }

    /// The attack is over and the attackers are gone. Its memory never grew by more than `bound`
    /// bytes (and what the allocator rounds up), its files are closed, each polite request was
    /// answered 204 in time, and nothing else was queued or answered 2xx.
    pub(super) async fn lifted(self, what: &str, bound: u64) {
        let peak = self.ingest.memory("VmHWM");
        let output = self.ingest.output();
        assert!(!output.contains("panicked"), "{what}: {output}");
        eventually("the attackers' connections are closed", SOON, async || {
            // Two of the polite client's may be open.
            self.files() <= 4
        })
        .await;
        // It comes through afterwards, too.
        let answered = self.answered.load(Ordering::Relaxed);
        eventually("the polite client is answered", SOON, async || {
            self.polite.is_finished() || self.answered.load(Ordering::Relaxed) >= answered + 4
        })
        .await;
        self.over.store(true, Ordering::Relaxed);
        let polite = self.polite.await.unwrap();
        let grown = peak.saturating_sub(self.resident_before);
        println!(
            "{what}: resident {} MiB before, grew by {} MiB at most (bound {} MiB); {} polite \
             requests, longest {:?}; {:?} of processor time in all",
            self.resident_before / MIB,
            grown / MIB,
            (bound + SLACK) / MIB,
            polite.accepted.len(),
            polite.longest,
            self.ingest.processor_time(),
        );
        assert!(
            grown <= bound + SLACK,
            "{what}: grew by {grown} bytes, more than {bound} and {SLACK}"
        );

        let accepted = self
            .ingest
            .metric("clerk_sync_webhook_requests_total", "\"accepted\"")
            .await;
        let taken = self.queue.drain(&self.queue.server.topology.apply()).await;
        let mut queued: Vec<_> = taken.into_iter().map(|taken| taken.id.unwrap()).collect();
        queued.retain(|id| !id.starts_with(GREETING));
        queued.sort();
        let mut sent = polite.accepted;
        sent.sort();
        assert_eq!(queued, sent, "{what}: only what was signed is queued");
        let greeted = 20;
        assert!(
            (accepted - (sent.len() + greeted) as f64).abs() < 0.5,
            "{what}: {accepted} were accepted"
        );
        self.ingest.stop().await;
        self.queue.remove().await;
    }
}

/// The attackers' connections are files of this process; many systems give it 1,024 unasked.
fn ask_for_files() {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, most).expect("up to its maximum, it is given");
}

pub(super) const PATH: &str = "/api/webhooks/clerk";
const GREETING: &str = "greeting_";

fn greeting() -> Letter {
    let letter = created("user_1", "a@a.example");
    Letter {
        id: format!("{GREETING}{}", letter.id),
        body: letter.body,
    }
}

/// Sends signed requests until it is `over`, in turn on a kept connection and on a new one.
async fn be_polite(url: String, over: Arc<AtomicBool>, answered: Arc<AtomicUsize>) -> Polite {
    let builder = || Client::builder().timeout(POLITE_PATIENCE);
    let kept = builder().build().unwrap();
    let fresh = builder().pool_max_idle_per_host(0).build().unwrap();
    let mut polite = Polite {
        accepted: Vec::new(),
        longest: Duration::ZERO,
    };
    while !over.load(Ordering::Relaxed) {
        for client in [&kept, &fresh] {
            let letter = created("user_1", "a@a.example");
            let started = Instant::now();
            let status = post(client, &url, &letter).await;
            let took = started.elapsed();
            assert_eq!(status, 204, "a polite request was refused after {took:?}");
            polite.longest = polite.longest.max(took);
            polite.accepted.push(letter.id);
            answered.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(POLITE_PAUSE).await;
        }
    }
    polite
}

/// The head of a request that looks right and is not signed by anybody we know, with these
/// further header lines.
pub(super) fn unsigned_head(lines: &str) -> String {
    let (id, now, forged) = (Letter::new("").id, now(), "A".repeat(43));
    format!(
        "POST {PATH} HTTP/1.1\r\nhost: test\r\nsvix-id: {id}\r\nsvix-timestamp: {now}\r\n\
         svix-signature: v1,{forged}=\r\n{lines}\r\n"
    )
}

/// The three headers of a body that is signed.
pub(super) fn signed_lines(letter: &Letter) -> String {
    let (id, now) = (&letter.id, now());
    let signature = sign(id, now, &letter.body);
    format!("svix-id: {id}\r\nsvix-timestamp: {now}\r\nsvix-signature: {signature}\r\n")
}
