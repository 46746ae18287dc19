//! `clerk-sync up` on either queue, and an operator beside it.

use std::process::ExitStatus;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    SOON,
    clerk::{Letter, SECRET, deliver_all},
    eventually,
    process::{Env, Process, base_env, run},
    servers::{TestDb, TestQueue},
};

/// Which queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    RabbitMq,
    File,
}

pub(crate) struct Site {
    pub(crate) db: TestDb,
    pub(crate) queue: Option<TestQueue>,
    pub(crate) env: Env,
    pub(crate) up: Process,
    pub(crate) folder: TempDir,
    pub(crate) url: String,
}

/// A command that has ended.
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Site {
    pub(crate) async fn open(on: On, more: &[(&'static str, &str)]) -> Self {
        Self::open_with_ladder(on, "100ms,200ms", more).await
    }

    pub(crate) async fn open_with_ladder(
        on: On,
        ladder: &str,
        more: &[(&'static str, &str)],
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut env = base_env();
        let (db, queue) = match on {
            On::RabbitMq => {
                let queue = TestQueue::bare(ladder).await;
                queue.env(&mut env);
                (TestDb::postgres().await.migrated().await, Some(queue))
            }
            On::File => (TestDb::sqlite().await.migrated().await, None),
        };
        env.insert("RETRY_DELAYS", ladder.to_owned());
        env.insert("CLERK_SYNC_DATA", folder.path().display().to_string());
        env.insert("DATABASE_URL", db.url.expose().to_string());
        env.insert("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned());
        for (name, value) in more {
            env.insert(name, (*value).to_owned());
        }
        let up = Process::start("clerk-sync", &["up"], &env);
        let url = up.webhook_url().await;
        up.ready().await;
        Self {
            db,
            queue,
            env,
            up,
            folder,
            url,
        }
    }

    /// Starts the process again, without a setting.
    pub(crate) async fn reopen_without(self, setting: &'static str) -> Self {
        self.reopen(|env| {
            env.remove(setting);
        })
        .await
    }

    /// Starts the process again, with a setting.
    pub(crate) async fn reopen_with(self, setting: &'static str, value: &str) -> Self {
        self.reopen(|env| {
            env.insert(setting, value.to_owned());
        })
        .await
    }

    async fn reopen(self, change: impl FnOnce(&mut Env)) -> Self {
        let Self { mut env, up, .. } = self;
        up.stop().await;
        change(&mut env);
        let up = Process::start("clerk-sync", &["up"], &env);
        let url = up.webhook_url().await;
        up.ready().await;
        Self {
            env,
            up,
            url,
            ..self
        }
    }

    /// Delivers, and waits until this process has dead-lettered so many in all.
    pub(crate) async fn dead_letter(&self, letters: &[Letter], dead: usize) {
        deliver_all(&self.url, letters).await;
        let all = dead as f64;
        eventually("all are dead-lettered", SOON * 2, async || {
            self.up.metric("clerk_sync_dead_letters_total", "").await >= all
        })
        .await;
    }

    /// As [`Site::dead_letter`], where none was taken away since.
    pub(crate) async fn park(&self, letters: &[Letter], dead: usize) {
        self.dead_letter(letters, dead).await;
        // The metric is counted a moment before the letter is there.
        eventually("all are parked", SOON, async || {
            self.list(&[]).await["total"] == dead
        })
        .await;
    }

    pub(crate) async fn deliver(&self, letters: &[Letter]) {
        deliver_all(&self.url, letters).await;
    }

    /// `clerk-sync dead-letters …`
    pub(crate) async fn operator(&self, args: &[&str]) -> Ran {
        let args = [&["dead-letters"], args].concat();
        let (status, stdout, stderr) = run("clerk-sync", &args, &self.env).await;
        Ran {
            status,
            stdout,
            stderr,
        }
    }

    pub(crate) async fn list(&self, args: &[&str]) -> Value {
        let listed = self.operator(&[&["list", "--json"], args].concat()).await;
        serde_json::from_str(&listed.succeeded()).unwrap()
    }

    /// Events in the ledger with an outcome.
    pub(crate) async fn outcomes(&self, outcome: &str) -> i64 {
        let ledger = match self.queue {
            Some(_) => "clerk_sync.processed_events",
            None => "clerk_sync_processed_events",
        };
        let count = format!("SELECT count(*) FROM {ledger} WHERE outcome = '{outcome}'");
        self.db.count(&count).await
    }

    pub(crate) async fn close(self) {
        self.up.stop().await;
        if let Some(queue) = self.queue {
            queue.remove().await;
        }
        self.db.remove().await;
    }
}

impl Ran {
    /// What it said, when it went well.
    pub(crate) fn succeeded(self) -> String {
        let Self {
            status,
            stdout,
            stderr,
        } = self;
        assert_eq!(status.code(), Some(0), "{stdout}{stderr}");
        stdout
    }

    /// What it complained about, when it failed with 1.
    pub(crate) fn failed(self) -> String {
        assert_eq!(self.status.code(), Some(1), "{}", self.stdout);
        self.stderr
    }
}

/// Codes with their counts, as `list --json` has them.
pub(crate) fn codes(list: &Value) -> Vec<(&str, u64)> {
    let codes = list["codes"].as_array().unwrap().iter();
    codes
        .map(|code| {
            (
                code["code"].as_str().unwrap(),
                code["count"].as_u64().unwrap(),
            )
        })
        .collect()
}

/// Each line fits a terminal.
pub(crate) fn assert_fits(text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}
