//! `clerk-sync doctor`: all is well where all is well, and each planted fault is that one line, with
//! its cure and its exit code.

use std::time::{Duration, Instant};

use clerk_sync_stand_in::{Settings, StandIn};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    SOON,
    clerk::{SECRET, created, deliver_all},
    eventually,
    process::{Env, Process, base_env, run},
    servers::{TestDb, TestQueue},
};

mod alarm;
mod broker;
mod clerk;
mod database;
mod management;
mod probe;
mod report;
mod settings;
mod webhook;

/// An address where nobody listens.
const NOBODY: &str = "127.0.0.1:1";

/// What the doctor said.
struct Diagnosis {
    code: i32,
    report: Value,
    took: Duration,
}

/// Runs it to its end.
async fn doctor(env: &Env, args: &[&str]) -> Diagnosis {
    let args = [&["doctor", "--json"], args].concat();
    let started = Instant::now();
    let (status, out, err) = run("clerk-sync", &args, env).await;
    let report = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    Diagnosis {
        code: status.code().unwrap(),
        report,
        took: started.elapsed(),
    }
}

impl Diagnosis {
    fn lines(&self) -> &[Value] {
        self.report["checks"].as_array().unwrap()
    }

    /// The lines of these kinds: `problem rabbitmq/topology`.
    fn of(&self, kinds: &[&str]) -> Vec<String> {
        let kind = |line: &Value| line["status"].as_str().unwrap().to_owned();
        let of_interest = |line: &&Value| kinds.contains(&kind(line).as_str());
        let lines = self.lines().iter().filter(of_interest);
        lines
            .map(|line| {
                let text = |field: &str| line[field].as_str().unwrap();
                format!("{} {}/{}", kind(line), text("group"), text("name"))
            })
            .collect()
    }

    /// Everything that is wrong must be this, each with a cure; and so must the exit code.
    #[track_caller]
    fn is(&self, expected: &[&str]) {
        assert_eq!(
            self.of(&["warning", "problem"]),
            expected,
            "{}",
            self.report
        );
        for line in self.lines() {
            let needs_cure = matches!(line["status"].as_str(), Some("warning" | "problem"));
            assert_eq!(line.get("cure").is_some(), needs_cure, "{line}");
        }
        let problem = expected.iter().any(|line| line.starts_with("problem"));
        assert_eq!(self.code, i32::from(problem), "{}", self.report);
    }

    /// Text and cure of a line.
    #[track_caller]
    fn says(&self, name: &str, parts: &[&str]) {
        let (group, name) = name.split_once('/').unwrap();
        let mut lines = self.lines().iter();
        let line = lines.find(|line| line["group"] == group && line["name"] == name);
        let line = line.unwrap_or_else(|| panic!("no {group}/{name} in {}", self.report));
        let said = format!("{} {}", line["text"], line["cure"]);
        for part in parts {
            assert!(said.contains(part), "{part} is not in {said}");
        }
    }
}

/// A whole system, with everything that the doctor asks for, and an event applied.
struct Site {
    queue: TestQueue,
    db: TestDb,
    clerk: StandIn,
    up: Process,
    env: Env,
    _folder: TempDir,
}

impl Site {
    async fn new() -> Self {
        Self::on(TestDb::postgres().await).await
    }

    async fn on(db: TestDb) -> Self {
        let (queue, clerk) = (TestQueue::bare("5s,30s").await, instance().await);
        let folder = tempfile::tempdir().unwrap();
        let mut env = base_env();
        queue.env(&mut env);
        env.insert("DATABASE_URL", db.url.expose().to_string());
        env.insert("CLERK_SYNC_DATA", folder.path().display().to_string());
        with_clerk(&mut env, &clerk);
        let up = Process::start("clerk-sync", &["up"], &env);
        let url = up.webhook_url().await;
        up.ready().await;
        env.insert("WEBHOOK_URL", url);
        let site = Self {
            queue,
            db,
            clerk,
            up,
            env,
            _folder: folder,
        };
        site.hear_of_a_user().await;
        site
    }

    async fn hear_of_a_user(&self) {
        deliver_all(
            &self.env["WEBHOOK_URL"],
            &[created("user_1", "one@a.example")],
        )
        .await;
        eventually("the event is applied", SOON, async || {
            self.db.users_if_any().await == 1
        })
        .await;
    }

    /// These settings, but for one.
    fn with(&self, name: &'static str, value: impl Into<String>) -> Env {
        let mut env = self.env.clone();
        env.insert(name, value.into());
        env
    }

    async fn remove(self) {
        self.up.stop().await;
        self.queue.remove().await;
        self.db.remove().await;
    }
}

/// The instance that the tests' events are of.
async fn instance() -> StandIn {
    let settings = Settings {
        instance_id: "ins_test".to_owned(),
        ..Settings::default()
    };
    StandIn::start_as(settings).await
}

/// An instance's settings, and what belongs to them.
fn with_clerk(env: &mut Env, clerk: &StandIn) {
    let settings = clerk.settings();
    env.insert("CLERK_API_URL", clerk.url());
    env.insert("CLERK_SECRET_KEY", settings.secret_key.clone());
    env.insert("CLERK_PUBLISHABLE_KEY", settings.publishable_key());
    env.insert("AUTHORIZED_PARTIES", "https://app.example.com".to_owned());
    env.insert("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_is_well_all_is_well_on_rabbitmq_and_postgresql() {
    let site = Site::new().await;
    let diagnosis = doctor(&site.env, &["--strict"]).await;
    diagnosis.is(&[]);
    // The only thing that is not looked at, and it says so.
    assert_eq!(diagnosis.of(&["skipped"]), ["skipped rabbitmq/bindings"]);
    let ok = diagnosis.of(&["ok"]);
    for name in [
        "settings/settings",
        "settings/secrets",
        "rabbitmq/reachable",
        "rabbitmq/topology",
        "rabbitmq/permissions",
        "rabbitmq/confirm",
        "rabbitmq/queue",
        "rabbitmq/dead_letters",
        "postgresql/encryption",
        "postgresql/clock",
        "postgresql/connections",
        "postgresql/migrations",
        "postgresql/schema",
        "postgresql/rights",
        "postgresql/last_event",
        "clerk/key",
        "clerk/clock",
        "clerk/instance",
        "webhook/webhook",
    ] {
        assert!(ok.contains(&format!("ok {name}")), "{name}: {ok:?}");
    }
    site.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_is_well_all_is_well_in_files() {
    let clerk = instance().await;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data with a space");
    let mut env = base_env();
    env.insert("CLERK_SYNC_DATA", data.display().to_string());
    with_clerk(&mut env, &clerk);
    // Before the first start nothing is there, which is no problem, and nothing is made.
    let diagnosis = doctor(&env, &[]).await;
    diagnosis.is(&["warning queue file/file", "warning sqlite/file"]);
    assert!(!data.exists());

    let up = Process::start("clerk-sync", &["up"], &env);
    let url = up.webhook_url().await;
    up.ready().await;
    env.insert("WEBHOOK_URL", url.clone());
    deliver_all(&url, &[created("user_1", "one@a.example")]).await;
    eventually("the event is applied", SOON, async || {
        let diagnosis = doctor(&env, &["--strict"]).await;
        diagnosis.is(&[]);
        diagnosis.of(&["skipped"]).is_empty()
    })
    .await;
    up.stop().await;
    // Also while nobody runs; only the webhook is gone then.
    let diagnosis = doctor(&env, &[]).await;
    diagnosis.is(&["problem webhook/webhook"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_changed_anywhere() {
    // Neither set up nor migrated: it must be so afterwards, too.
    let queue = TestQueue::bare("5s").await;
    let db = TestDb::postgres().await;
    let mut env = base_env();
    queue.env(&mut env);
    env.insert("DATABASE_URL", db.url.expose().to_string());
    for _ in 0..2 {
        let diagnosis = doctor(&env, &[]).await;
        diagnosis.is(&["problem rabbitmq/topology", "problem postgresql/migrations"]);
        diagnosis.says("rabbitmq/topology", &["nothing", "clerk-sync setup"]);
        diagnosis.says("postgresql/migrations", &["clerk-sync migrate up"]);
    }
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname IN ('public', 'clerk_sync')";
    assert_eq!(db.count(tables).await, 0);
    db.remove().await;
}
