//! A real Prometheus on loopback, with our rules, looking once a second.

use std::{fmt::Write as _, net::SocketAddr, process::Stdio, time::Duration};

use reqwest::Url;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    process::{Child, Command},
};

use super::files::RULES;
use crate::harness::{SOON, eventually, servers::ROOT};

pub(super) struct Prometheus {
    _process: Child,
    folder: TempDir,
    url: Url,
}

/// What a query came to.
pub(super) struct Answer {
    /// Of all series and moments, those that are numbers.
    pub(super) values: Vec<f64>,
}

/// A job, and whom it scrapes.
pub(super) type Targets = Vec<(String, Vec<SocketAddr>)>;

impl Prometheus {
    /// The jobs are those of `prometheus.yml`; only, they are found by address.
    pub(super) async fn start(targets: &Targets) -> Self {
        let folder = TempDir::new().unwrap();
        let config = folder.path().join("prometheus.yml");
        std::fs::write(&config, configuration(targets)).unwrap();
        let port = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap().port()
        };
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=warn")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("Debian's package prometheus; scripts/test-watch installs it");
        let url = format!("http://127.0.0.1:{port}/").parse().unwrap();
        let prometheus = Self {
            _process: process,
            folder,
            url,
        };
        eventually("Prometheus is ready", SOON, async || {
            let ready = prometheus.url.join("-/ready").unwrap();
            reqwest::get(ready)
                .await
                .is_ok_and(|answer| answer.status().is_success())
        })
        .await;
        prometheus
    }

    /// A query as of now.
    pub(super) async fn ask(&self, query: &str) -> Result<Answer, String> {
        let data = self.get("api/v1/query", &[("query", query)]).await?;
        Ok(Answer::of(&data))
    }

    /// A query as a panel draws it: each second of the last ones.
    pub(super) async fn draw(&self, query: &str, last: Duration) -> Result<Answer, String> {
        let now = chrono::Utc::now().timestamp();
        let start = now - i64::try_from(last.as_secs()).unwrap();
        let (start, end) = (start.to_string(), now.to_string());
        let parameters = [
            ("query", query),
            ("start", &start),
            ("end", &end),
            ("step", "1"),
        ];
        let data = self.get("api/v1/query_range", &parameters).await?;
        Ok(Answer::of(&data))
    }

    /// Rules that could not be evaluated, with the reason.
    pub(super) async fn broken_rules(&self) -> Vec<String> {
        let data = self.get("api/v1/rules", &[]).await.unwrap();
        let groups = data["groups"].as_array().unwrap().iter();
        groups
            .flat_map(|group| group["rules"].as_array().unwrap())
            .filter(|rule| rule["health"] != "ok" || rule["lastError"].is_string())
            .map(|rule| format!("{}: {}", rule["name"], rule["lastError"]))
            .collect()
    }

    /// Whether the alert was firing at some moment of the last ten minutes.
    pub(super) async fn has_fired(&self, alert: &str) -> bool {
        let query =
            format!(r#"max_over_time(ALERTS{{alertname="{alert}",alertstate="firing"}}[10m])"#);
        !self.ask(&query).await.unwrap().values.is_empty()
    }

    /// What it has said of itself, warnings and worse.
    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let mut url = self.url.join(path).unwrap();
        url.query_pairs_mut().extend_pairs(parameters);
        let text = async { reqwest::get(url).await?.text().await };
        let text = text.await.map_err(|error| error.to_string())?;
        let mut answer: Value =
            serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        if answer["status"] == "success" {
            Ok(answer["data"].take())
        } else {
            Err(answer["error"].to_string())
        }
    }
}

impl Answer {
    fn of(data: &Value) -> Self {
        let series = data["result"].as_array().into_iter().flatten();
        let samples = series.flat_map(|one| {
            // An instant has `value`, a range `values`.
            let many = one["values"].as_array().cloned();
            many.unwrap_or_else(|| vec![one["value"].clone()])
        });
        let value = |sample: Value| sample[1].as_str()?.parse::<f64>().ok();
        let values = samples.filter_map(value).filter(|value| value.is_finite());
        Self {
            values: values.collect(),
        }
    }

    pub(super) fn largest(&self) -> f64 {
        self.values
            .iter()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max)
    }
}

fn configuration(targets: &Targets) -> String {
    let mut text = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\n\
         rule_files: [\"{ROOT}/{RULES}/*.yml\"]\n\
         scrape_configs:\n"
    );
    for (job, addresses) in targets {
        let addresses: Vec<String> = addresses.iter().map(|to| format!("\"{to}\"")).collect();
        let addresses = addresses.join(", ");
        writeln!(text, "  - job_name: {job}").unwrap();
        if job == "rabbitmq-queues" {
            text.push_str("    metrics_path: /metrics/detailed\n");
            text.push_str("    params: { vhost: [\"/\"], ");
            text.push_str("family: [queue_coarse_metrics, queue_consumer_count] }\n");
        }
        writeln!(text, "    static_configs: [{{ targets: [{addresses}] }}]").unwrap();
    }
    text
}
