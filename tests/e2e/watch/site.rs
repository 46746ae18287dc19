//! The pipeline that is watched: every program as a process of its own, and Clerk's stand-in.

use std::{net::SocketAddr, time::Duration};

use clerk_sync_pipeline::queue::amqp;
use clerk_sync_stand_in::{Settings, StandIn};
use serde_json::{Value, json};

use super::{prometheus::Targets, rules};
use crate::harness::{
    clerk::{Letter, SECRET, client, now, post},
    eventually,
    process::{Env, Process, base_env, run},
    servers::{TestDb, TestQueue, finish},
};

/// What ingest takes besides [`SECRET`]: the second of two while they are rotated.
pub(super) const NEXT_SECRET: &str = "whsec_plJ3nmyCDGBKInavdOK15jsl";
/// Long enough for what waits to be seen, which RabbitMQ tells every five seconds.
const LADDER: &str = "6s,20s";
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Site {
    pub(super) db: TestDb,
    pub(super) queue: TestQueue,
    pub(super) clerk: StandIn,
    pub(super) ingest: Process,
    pub(super) workers: Vec<Process>,
    pub(super) api: Process,
    pub(super) reconcile: Process,
    pub(super) url: String,
    next: u64,
}

impl Site {
    /// On the broker of `AMQP_URL`, whose queues `clerk.…` are this test's alone.
    pub(super) async fn start() -> Self {
        let db = TestDb::postgres().await.migrated().await;
        let mut queue = TestQueue::on_a_broker_held(LADDER);
        queue.server.topology.prefix = "clerk".to_owned();
        amqp::setup(&queue.server).await.unwrap();
        let clerk = StandIn::start_as(Settings::production()).await;
        // Of these nobody is told: they are missing.
        clerk.fill(3);

        let mut ingest = base_env();
        queue.env(&mut ingest);
        let mut worker = ingest.clone();
        ingest.insert(
            "CLERK_WEBHOOK_SIGNING_SECRET",
            format!("{SECRET},{NEXT_SECRET}"),
        );
        worker.insert("DATABASE_URL", db.url.expose().to_string());
        // Fewer than what comes while the table is held: the rest waits in the queue.
        worker.insert("PREFETCH", "20".to_owned());
        let mut beside = base_env();
        beside.insert("DATABASE_URL", db.url.expose().to_string());
        beside.insert("CLERK_API_URL", clerk.url());
        beside.insert("CLERK_SECRET_KEY", clerk.settings().secret_key.clone());
        beside.insert("CLERK_JWT_KEY", clerk.jwt_key().to_owned());

        let ingest = Process::start("clerk-sync-ingest", &[], &ingest);
        let start = |_| Process::start("clerk-sync-worker", &[], &worker);
        let workers: Vec<Process> = (0..2).map(start).collect();
        let api = Process::start("clerk-sync-api", &[], &beside);
        let watch = ["reconcile", "--watch", "5s", "--settle", "200ms"];
        let reconcile = Process::start("clerk-sync", &watch, &beside);
        let url = ingest.webhook_url().await;
        for process in [&ingest, &api, &reconcile].into_iter().chain(&workers) {
            process.ready().await;
        }
        Self {
            db,
            queue,
            clerk,
            ingest,
            workers,
            api,
            reconcile,
            url,
            next: 0,
        }
    }

    /// Who is scraped by which job of `prometheus.yml`.
    pub(super) async fn targets(&self, rabbitmq: SocketAddr) -> Targets {
        let mut targets = Vec::new();
        for job in rules::jobs() {
            let processes: Vec<&Process> = match job.as_str() {
                "clerk-sync-ingest" => vec![&self.ingest],
                "clerk-sync-worker" => self.workers.iter().collect(),
                "clerk-sync-api" => vec![&self.api],
                "clerk-sync-reconcile" => vec![&self.reconcile],
                "rabbitmq" | "rabbitmq-queues" => Vec::new(),
                other => panic!("nobody here is {other}"),
            };
            let mut addresses = Vec::new();
            for process in &processes {
                addresses.push(process.address("ADMIN_LISTEN").await);
            }
            if processes.is_empty() {
                addresses.push(rabbitmq);
            }
            targets.push((job, addresses));
        }
        targets
    }

    /// A user of this moment, as Clerk would tell of it.
    pub(super) fn letter(&mut self, event_type: &str, email: &str) -> Letter {
        self.next += 1;
        self.letter_of(event_type, &format!("user_{:06}", self.next), email)
    }

    pub(super) fn letter_of(&self, event_type: &str, id: &str, email: &str) -> Letter {
        let at = chrono::Utc::now().timestamp_millis();
        let data = json!({
            "id": id, "object": "user", "first_name": "Maren", "last_name": "Holt",
            "image_url": "https://img.clerk.com/x", "primary_email_address_id": "idn_1",
            "email_addresses": [{
                "id": "idn_1", "email_address": email, "verification": { "status": "verified" },
            }],
            "created_at": at, "updated_at": at,
        });
        self.envelope(event_type, &data, at)
    }

    pub(super) fn envelope(&self, event_type: &str, data: &Value, at: i64) -> Letter {
        let body = json!({
            "type": event_type, "object": "event", "data": data, "timestamp": at,
            "instance_id": self.clerk.settings().instance_id,
        });
        Letter::new(body.to_string())
    }

    pub(super) async fn post(&self, letter: &Letter) -> u16 {
        post(&client(), &self.url, letter).await
    }

    /// `clerk-sync send` with these arguments; what it said.
    pub(super) async fn send(&self, secret: &str, args: &[&str]) -> String {
        let mut env = Env::new();
        env.insert("CLERK_WEBHOOK_SIGNING_SECRET", secret.to_owned());
        env.insert("WEBHOOK_URL", self.url.clone());
        let (_, out, err) = run("clerk-sync", &[&["send"], args].concat(), &env).await;
        format!("{out}{err}")
    }

    /// A page of a user who has just signed up, and one of nobody.
    pub(super) async fn visit(&self) {
        let me = format!("http://{}/api/users/me", self.api.address("LISTEN").await);
        let id = self.clerk.sign_up(&format!("visitor{}@a.example", now()));
        let token = self.clerk.session_token(&id);
        let page = client().get(&me).bearer_auth(token).send().await.unwrap();
        assert_eq!(
            page.status().as_u16(),
            200,
            "{}",
            page.text().await.unwrap()
        );
        let nobody = client().get(&me).send().await.unwrap();
        assert_eq!(nobody.status().as_u16(), 401);
    }

    /// Waits until so many outcomes of this kind were counted by all workers together.
    pub(super) async fn outcomes(&self, what: &str, at_least: f64) {
        eventually(&format!("{at_least} {what}"), PATIENCE, async || {
            let mut sum = 0.0;
            for worker in &self.workers {
                sum += worker.metric("clerk_sync_events_total", what).await;
            }
            sum >= at_least
        })
        .await;
    }

    pub(super) async fn stop(self) {
        for process in [self.ingest, self.api, self.reconcile]
            .into_iter()
            .chain(self.workers)
        {
            process.stop().await;
        }
        self.queue.remove().await;
        self.db.remove().await;
    }
}

/// rabbitmqctl on the broker of `scripts/test-watch`.
pub(super) async fn rabbitmqctl(args: &[&str]) {
    let mut script = tokio::process::Command::new("scripts/test-watch");
    script.arg("rabbitmqctl").args(args);
    finish(script).await;
}
