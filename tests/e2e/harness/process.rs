//! A process of ours, with everything it says.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    task::JoinHandle,
    time::timeout,
};

use super::{SOON, eventually};

/// One of our binaries, built by `scripts/test`.
pub(crate) fn binary(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path.push(name);
    assert!(
        path.exists(),
        "{} is not built: run scripts/test",
        path.display()
    );
    path
}

/// A running process. It is killed when dropped.
pub(crate) struct Process {
    child: Child,
    lines: Lines,
    logs: Lines,
    /// Each ends when its pipe is closed, and has read everything then.
    readers: Vec<JoinHandle<()>>,
}

type Lines = Arc<Mutex<Vec<String>>>;

/// Settings of a process; nothing else of the test's environment reaches it.
pub(crate) type Env = HashMap<&'static str, String>;

/// Any free port, logs that the harness can read.
pub(crate) fn base_env() -> Env {
    HashMap::from([
        ("LISTEN", "127.0.0.1:0".to_owned()),
        ("ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
        ("LOG_FORMAT", "json".to_owned()),
    ])
}

/// A command of ours with a clean environment, in a folder without a `.env`.
pub(crate) fn command(name: &str, args: &[&str], env: &Env) -> Command {
    after("true", name, args, env)
}

/// The same after a preparation in a shell, which then becomes it: `ulimit -n 100`. Where a limit on
/// files stands in for a full disk, the signal that goes with it is not what a full disk does.
fn after(preparation: &str, name: &str, args: &[&str], env: &Env) -> Command {
    let script = format!("trap '' XFSZ; {preparation} && exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command
        .args(["-c", &script])
        .arg(binary(name))
        .args(args)
        .env_clear()
        .env("PATH", std::env::var("PATH").unwrap_or_default())
        .envs(env)
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs a command to its end; status, standard output, standard error.
pub(crate) async fn run(name: &str, args: &[&str], env: &Env) -> (ExitStatus, String, String) {
    let output = timeout(SOON * 2, command(name, args, env).output())
        .await
        .expect("it ends");
    let output = output.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status, text(&output.stdout), text(&output.stderr))
}

impl Process {
    pub(crate) fn start(name: &str, args: &[&str], env: &Env) -> Self {
        Self::spawn(command(name, args, env))
    }

    /// After a preparation in a shell.
    pub(crate) fn start_after(preparation: &str, name: &str, env: &Env) -> Self {
        Self::spawn(after(preparation, name, &[], env))
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (lines, logs) = (Lines::default(), Lines::default());
        let readers = vec![
            collect(child.stdout.take().unwrap(), &[&lines]),
            collect(child.stderr.take().unwrap(), &[&lines, &logs]),
        ];
        Self {
            child,
            lines,
            logs,
            readers,
        }
    }

    /// What it has said on standard error; it goes on being filled.
    pub(crate) fn logs(&self) -> Lines {
        self.logs.clone()
    }

    /// Everything it has said so far.
    pub(crate) fn output(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// The address it has bound for a setting.
    pub(crate) async fn address(&self, setting: &str) -> SocketAddr {
        let find = || {
            let lines = self.lines.lock().unwrap();
            lines.iter().find_map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).ok()?;
                let bound = line["message"] == "listening" && line["setting"] == setting;
                bound.then(|| line["address"].as_str().unwrap().parse().unwrap())
            })
        };
        eventually(
            &format!("{setting} is bound:\n{}", self.output()),
            SOON,
            async || find().is_some(),
        )
        .await;
        find().unwrap()
    }

    pub(crate) async fn webhook_url(&self) -> String {
        format!("http://{}/api/webhooks/clerk", self.address("LISTEN").await)
    }

    pub(crate) async fn admin(&self, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", self.address("ADMIN_LISTEN").await);
        match reqwest::get(&url).await {
            Ok(response) => (
                response.status().as_u16(),
                response.text().await.unwrap_or_default(),
            ),
            Err(error) => (0, error.to_string()),
        }
    }

    pub(crate) async fn ready(&self) {
        eventually("the process is ready", SOON, async || {
            self.admin("/readyz").await.0 == 200
        })
        .await;
    }

    /// Sum of all series of a metric whose labels contain `part`.
    pub(crate) async fn metric(&self, name: &str, part: &str) -> f64 {
        let (_, text) = self.admin("/metrics").await;
        sum(&text, name, part)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    pub(crate) fn signal(&self, signal: &str) {
        let id = self.id().to_string();
        let sent = std::process::Command::new("kill")
            .args([signal, &id])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    pub(crate) async fn wait(&mut self) -> ExitStatus {
        let ended = timeout(SOON, self.child.wait()).await;
        let status = ended.expect("it ends").unwrap();
        for reader in self.readers.drain(..) {
            let read = timeout(SOON, reader).await;
            read.expect("its last word is read").unwrap();
        }
        status
    }

    /// Stops it politely; it must end cleanly.
    pub(crate) async fn stop(mut self) -> String {
        self.signal("-TERM");
        let status = self.wait().await;
        assert_eq!(status.code(), Some(0), "{}", self.output());
        self.output()
    }

    /// `kill -9`.
    pub(crate) async fn kill(mut self) {
        self.signal("-KILL");
        self.wait().await;
    }
}

fn collect(from: impl AsyncRead + Send + Unpin + 'static, into: &[&Lines]) -> JoinHandle<()> {
    let into: Vec<Lines> = into.iter().map(|lines| Arc::clone(lines)).collect();
    tokio::spawn(async move {
        let mut from = BufReader::new(from).lines();
        while let Ok(Some(line)) = from.next_line().await {
            for lines in &into {
                lines.lock().unwrap().push(line.clone());
            }
        }
    })
}

/// Sum of all series of a metric whose labels contain `part`, in Prometheus' text format.
pub(crate) fn sum(text: &str, name: &str, part: &str) -> f64 {
    text.lines()
        .filter(|line| {
            line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} "))
        })
        .filter(|line| line.contains(part))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

impl Drop for Process {
    /// A test that fails shows what its processes said.
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- a process said:\n{}\n---", self.output());
        }
    }
}
