//! Processes of this program that a command starts, hears and stops.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::Write as _,
    net::SocketAddr,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStderr, Command},
    sync::watch,
    time::{sleep, timeout},
};

/// Longest wait for a process to listen. A debug build on a busy machine takes a second.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait for a polite end; a process forces itself after 25 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);

/// Settings of a process: nothing else of the environment reaches it.
pub(crate) type Environment = BTreeMap<&'static str, String>;

/// Any free ports, logs that can be heard.
pub(crate) fn environment() -> Environment {
    BTreeMap::from([
        ("LISTEN", "127.0.0.1:0".to_owned()),
        ("ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
        ("LOG_FORMAT", "json".to_owned()),
    ])
}

/// A command of this program in a process of its own, which is killed when dropped.
pub(crate) struct Process {
    /// The name of its log.
    name: String,
    child: Child,
    /// Setting and address of each port that it has bound.
    bound: watch::Receiver<BTreeMap<String, SocketAddr>>,
}

impl Process {
    /// Starts it in a folder, where its log is kept too.
    pub(crate) fn spawn(
        name: &str,
        arguments: &[String],
        environment: &Environment,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(environment)
            // Away from any `.env`.
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a process")?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join(format!("{name}.log")))?;
        let said = child.stderr.take().context("its standard error is piped")?;
        Ok(Self {
            name: name.to_owned(),
            child,
            bound: listen_in(said, log),
        })
    }

    /// The address that it has bound for a setting, once it has. It hears signals from then on: a
    /// SIGTERM that comes before would end it like any program.
    pub(crate) async fn address(&mut self, setting: &str) -> anyhow::Result<SocketAddr> {
        let mut bound = self.bound.clone();
        // What it says ends with it.
        let heard = timeout(
            START_TIMEOUT,
            bound.wait_for(|bound| bound.contains_key(setting)),
        )
        .await;
        if let Ok(Ok(bound)) = &heard {
            return Ok(bound[setting]);
        }
        drop(heard);
        sleep(Duration::from_millis(100)).await;
        self.check()?;
        anyhow::bail!("{} does not listen", self.name)
    }

    /// Its number, while it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// `kill -9`.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("cannot kill a process")
    }

    /// SIGTERM; it must end in time, and with 0.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = id.and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM).context("cannot stop a process")?;
        }
        let status: ExitStatus = timeout(STOP_TIMEOUT, self.child.wait())
            .await
            .with_context(|| format!("{} did not stop after SIGTERM", self.name))??;
        anyhow::ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }

    /// One that has ended by itself is a failure.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => anyhow::bail!("{} ended by itself, with {status}", self.name),
            None => Ok(()),
        }
    }
}

/// Copies what a process says to its log; shows the addresses that it has bound.
fn listen_in(said: ChildStderr, mut log: File) -> watch::Receiver<BTreeMap<String, SocketAddr>> {
    let (sender, receiver) = watch::channel(BTreeMap::new());
    tokio::spawn(async move {
        let mut lines = BufReader::new(said).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            // A log that cannot be written is no reason to stop.
            let _ = writeln!(log, "{line}");
            let Ok(entry) = serde_json::from_str::<serde_json::Value>(&line) else {
                continue;
            };
            let address = entry["address"].as_str().and_then(|text| text.parse().ok());
            if let (Some("listening"), Some(setting), Some(address)) = (
                entry["message"].as_str(),
                entry["setting"].as_str(),
                address,
            ) {
                sender.send_modify(|bound| {
                    bound.insert(setting.to_owned(), address);
                });
            }
        }
    });
    receiver
}
