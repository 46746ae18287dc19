//! `clerk-sync bench`: that its figures add up, that it looks for every event, and that it leaves
//! nothing behind. What the figures are is not for a test to say.

use clerk_sync_projection::database;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::harness::{
    SOON, eventually,
    process::{Env, Process, run},
};

/// One at a time, so that each can look whether its database is gone.
static ALONE: Mutex<()> = Mutex::const_new(());

fn env() -> Env {
    let variable = |name: &str| std::env::var(name).unwrap();
    Env::from([
        ("AMQP_URL", variable("AMQP_URL")),
        ("DATABASE_URL", variable("DATABASE_URL")),
    ])
}

/// How many databases of benchmarks there are.
async fn databases() -> i64 {
    let url = std::env::var("DATABASE_URL").unwrap().parse().unwrap();
    let db = database::connect(&url, 1).await.unwrap();
    let count = "SELECT count(*) FROM pg_database WHERE datname LIKE 'clerk\\_sync\\_bench\\_%'";
    let count = Statement::from_string(DbBackend::Postgres, count);
    let row = db.query_one_raw(count).await.unwrap().unwrap();
    let count = row.try_get_by_index(0).unwrap();
    db.close().await.unwrap();
    count
}

/// Runs a benchmark in JSON; checks what holds for each. Returns its runs by mode.
async fn bench(args: &[&str], modes: &[&str]) -> Vec<Value> {
    let _alone = ALONE.lock().await;
    let args: Vec<&str> = ["bench"]
        .iter()
        .chain(args)
        .chain(&["--json"])
        .copied()
        .collect();
    let (status, stdout, stderr) = run("clerk-sync", &args, &env()).await;
    assert!(status.success(), "{stdout}{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["lost"], 0, "{report:#}");
    assert!(report["machine"]["cores"].as_u64().unwrap() > 0);

    let runs = report["runs"].as_array().unwrap();
    let found: Vec<&str> = runs
        .iter()
        .map(|run| run["mode"].as_str().unwrap())
        .collect();
    assert_eq!(found, modes, "{report:#}");
    let mut accepted = 0;
    for run in runs {
        let number = |name: &str| run[name].as_f64().unwrap();
        assert!(number("events") > 0.0, "{run:#}");
        let rate = number("events") / number("seconds");
        assert!(
            (rate - number("events_per_second")).abs() < 1e-6 * rate,
            "{run:#}"
        );
        if cfg!(target_os = "linux") {
            assert!(number("own_cpu_us") >= 0.0, "{run:#}");
        }
        if run["latency"].is_object() {
            let at = |name: &str| run["latency"][name].as_f64().unwrap();
            assert!(at("count") > 0.0, "{run:#}");
            assert!(
                at("p50_ms") <= at("p99_ms") && at("p99_ms") <= at("max_ms"),
                "{run:#}"
            );
        }
        let audit = &run["audit"];
        if audit.is_object() {
            assert_eq!(audit["lost"], 0, "{run:#}");
            assert!(
                audit["found"].as_u64() >= audit["accepted"].as_u64(),
                "{run:#}"
            );
            assert!(
                audit["accepted"].as_f64().unwrap() >= number("events"),
                "{run:#}"
            );
            accepted += audit["accepted"].as_u64().unwrap();
        }
        // One round: it is its own median.
        let mut summaries = report["summaries"].as_array().unwrap().iter();
        let summary = summaries
            .find(|summary| summary["mode"] == run["mode"])
            .unwrap();
        assert_eq!(summary["events_per_second"], run["events_per_second"]);
    }
    assert_eq!(report["accepted"], accepted);
    assert_eq!(databases().await, 0, "the database is removed");
    runs.clone()
}

fn audited(run: &Value, what: &str) -> u64 {
    run["audit"][what].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn bench_ingest_finds_every_accepted_event_in_the_queue() {
    let args = [
        "ingest",
        "--rounds",
        "1",
        "--seconds",
        "1",
        "--connections",
        "4",
        "--rate",
        "50",
    ];
    let modes = [
        "bare hyper + verify",
        "raw lapin + confirm",
        "ingest",
        "50 /s offered",
    ];
    let runs = bench(&args, &modes).await;
    // A server that keeps nothing has nothing to be looked for.
    assert!(runs[0]["audit"].is_null());
    // Two seconds of 50, one of which is the warm-up.
    let offered = audited(&runs[3], "accepted") + runs[3]["refused"].as_u64().unwrap();
    assert_eq!(offered + runs[3]["unanswered"].as_u64().unwrap(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn bench_worker_finds_every_event_in_the_tables() {
    let sizes = [
        "--events",
        "3000",
        "--users",
        "2000",
        "--ledger-rows",
        "1000",
    ];
    let args = [&["worker", "--rounds", "1"][..], &sizes].concat();
    let modes = ["raw SQL batches", "raw lapin + SQL", "worker"];
    let runs = bench(&args, &modes).await;
    for run in &runs {
        assert_eq!(
            (audited(run, "accepted"), audited(run, "found")),
            (3000, 3000)
        );
    }
    // Each event about somebody new.
    let args = [
        "worker",
        "--rounds",
        "1",
        "--events",
        "2000",
        "--users",
        "0",
        "--workers",
        "2",
    ];
    bench(&args, &["raw SQL batches", "raw lapin + SQL", "2 workers"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bench_e2e_finds_every_accepted_event_in_the_tables() {
    let args = [
        "e2e",
        "--rounds",
        "1",
        "--seconds",
        "3",
        "--connections",
        "4",
    ];
    let args = [&args[..], &["--events", "200", "--rate", "50"]].concat();
    let runs = bench(&args, &["as fast as it goes", "50 /s offered"]).await;
    // Every row was seen, but those of the second of warm-up.
    let seen = runs[1]["latency"]["count"].as_u64().unwrap();
    assert!(seen <= 150 && seen + 50 >= audited(&runs[1], "accepted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bench_embedded_finds_every_accepted_event_in_the_file() {
    let args = [
        "embedded",
        "--rounds",
        "1",
        "--seconds",
        "3",
        "--connections",
        "4",
    ];
    let args = [&args[..], &["--events", "200", "--rate", "50"]].concat();
    let runs = bench(&args, &["as fast as it goes", "50 /s offered"]).await;
    assert!(
        runs.iter()
            .all(|run| run["start_ms"].as_f64().unwrap() > 0.0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_bench_shows_no_figure_and_leaves_nothing_behind() {
    let _alone = ALONE.lock().await;
    let args = ["bench", "worker", "--events", "200000"];
    let mut bench = Process::start("clerk-sync", &args, &env());
    eventually("it has a database", SOON, async || databases().await == 1).await;
    bench.signal("-TERM");
    assert_eq!(bench.wait().await.code(), Some(1));
    eventually("it says why", SOON, async || {
        bench.output().contains("interrupted")
    })
    .await;
    assert!(!bench.output().contains("events/s"), "{}", bench.output());
    assert_eq!(databases().await, 0, "the database is removed");
}
