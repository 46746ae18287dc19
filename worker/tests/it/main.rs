//! The worker's command line. What it does to events is shown in the workspace's `tests/`.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::process::{Command, Output};

fn worker(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_clerk-sync-worker"))
        .args(args)
        .env_clear()
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap()
}

#[test]
fn help_names_every_setting_with_its_variable() {
    let help = worker(&["--help"]);
    assert!(help.status.success());
    let help = String::from_utf8(help.stdout).unwrap();
    for setting in [
        "DATABASE_URL",
        "DATABASE_PREPARED_STATEMENTS",
        "AMQP_URL",
        "CLERK_INSTANCE_ID",
        "INITIAL_CREDITS",
        "MISSING_EMAIL",
        "LEDGER_RETENTION",
        "WORKER_LANES",
        "BATCH_EVENTS",
        "BATCH_LINGER",
        "PREFETCH",
        "ADMIN_LISTEN",
    ] {
        assert!(
            help.contains(&format!("[env: {setting}")),
            "{setting}:\n{help}"
        );
    }
}

#[test]
fn limits_that_make_no_sense_are_refused_by_name() {
    let refused = worker(&[
        "--database-url",
        "sqlite:x.db",
        "--amqp-url",
        "amqp://broker",
        "--batch-events",
        "0",
        "--worker-lanes",
        "0",
        "--initial-credits=-5",
        "--batch-linger",
        "soon",
    ]);
    assert_eq!(refused.status.code(), Some(64));
    let problems = String::from_utf8(refused.stderr).unwrap();
    for setting in [
        "BATCH_EVENTS",
        "WORKER_LANES",
        "INITIAL_CREDITS",
        "BATCH_LINGER",
    ] {
        assert!(problems.contains(setting), "{setting}:\n{problems}");
    }
}
