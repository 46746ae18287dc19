//! How it is told: to people in 80 columns, to machines in one shape.

use super::{NOBODY, doctor};
use crate::harness::process::{Env, base_env, run};

/// Much is wrong, and with long words.
fn ill() -> Env {
    let mut env = base_env();
    env.insert(
        "CLERK_SYNC_DATA",
        format!("/nonexistent/{}", "long".repeat(30)),
    );
    env.insert("AMQP_URL", format!("amqp://user:hunter2@{NOBODY}/%2f"));
    env.insert(
        "DATABASE_URL",
        format!("postgres://user:hunter2@{NOBODY}/{}", "app".repeat(30)),
    );
    env.insert("CLERK_SECRET_KEY", "pk_live_hunter2".to_owned());
    env.insert(
        "WEBHOOK_URL",
        format!("http://{NOBODY}/{}", "hook/".repeat(20)),
    );
    env.insert("CLERK_WEBHOOK_SECRET", "hunter2".to_owned());
    env
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_told_in_80_columns_with_the_cure_beneath_and_no_colour_in_a_pipe() {
    let (status, out, err) = run("clerk-sync", &["doctor"], &ill()).await;
    assert_eq!(status.code(), Some(1), "{out}{err}");
    assert_eq!(err, "", "{out}");
    for line in out.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert!(!out.contains('\u{1b}') && !out.contains("hunter2"), "{out}");
    let lines: Vec<&str> = out.lines().collect();
    let problem = lines
        .iter()
        .position(|line| line.starts_with("  problem  secrets"));
    let beneath = &lines[problem.unwrap() + 1..];
    assert!(
        beneath
            .iter()
            .take(3)
            .any(|line| line.trim_start().starts_with("→ ")),
        "{out}"
    );
    assert!(out.contains("5 problems"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_are_told_in_one_shape() {
    let diagnosis = doctor(&ill(), &[]).await;
    let report = diagnosis.report.as_object().unwrap();
    let keys: Vec<&String> = report.keys().collect();
    assert_eq!(keys, ["checks", "counts", "status", "took_ms"]);
    assert_eq!(report["status"], "problem");
    assert!(report["took_ms"].is_u64());
    let counts = &report["counts"];
    let sum: u64 = ["ok", "skipped", "warning", "problem"]
        .iter()
        .map(|status| counts[status].as_u64().unwrap())
        .sum();
    assert_eq!(sum, diagnosis.lines().len() as u64);
    assert_eq!(counts["problem"], 5, "{counts}");
    for line in diagnosis.lines() {
        for field in ["group", "name", "status", "text"] {
            assert!(line[field].is_string(), "{line}");
        }
    }
}
