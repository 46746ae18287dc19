//! What can be wrong with settings: all of it is told at once, and the rest is looked at.

use super::doctor;
use crate::harness::{
    clerk::SECRET,
    process::{Env, base_env, run},
};

const FILES: [&str; 2] = ["warning queue file/file", "warning sqlite/file"];

fn nothing_else() -> Env {
    let mut env = base_env();
    env.insert("CLERK_SYNC_DATA", "/nonexistent".to_owned());
    env
}

#[tokio::test(flavor = "multi_thread")]
async fn every_secret_that_is_malformed_is_a_problem_and_nothing_above_it_says_well() {
    let mut env = nothing_else();
    let bad = format!("{SECRET}, whsec_hunter2!, whsec_c2hvcnQ=");
    for name in ["CLERK_WEBHOOK_SIGNING_SECRET", "CLERK_WEBHOOK_SECRET"] {
        env.insert(name, bad.clone());
        let diagnosis = doctor(&env, &[]).await;
        diagnosis.is(&["problem settings/secrets", FILES[0], FILES[1]]);
        diagnosis.says(
            "settings/secrets",
            &[
                name,
                "secret 2 is not base64",
                "secret 3 is too short",
                "Configure, Webhooks",
            ],
        );
        let ok = diagnosis.of(&["ok"]);
        assert!(!ok.iter().any(|line| line.contains("settings/")), "{ok:?}");
        assert!(!diagnosis.report.to_string().contains("hunter2"));
        env.remove(name);
    }
    env.insert("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned());
    env.insert(
        "CLERK_WEBHOOK_SECRET",
        "whsec_b3RoZXJvdGhlcm90aGVyb3RoZXI=".to_owned(),
    );
    let diagnosis = doctor(&env, &[]).await;
    diagnosis.is(&["warning settings/secrets", FILES[0], FILES[1]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_setting_of_every_process_that_cannot_be_read_is_a_line() {
    let mut env = nothing_else();
    let wrong = [
        ("AMQP_URL", "http://me:hunter2@broker"),
        ("DATABASE_URL", "mysql://me:hunter2@db/app"),
        ("CLERK_SECRET_KEY", "pk_live_hunter2"),
        ("CLERK_PUBLISHABLE_KEY", "sk_live_hunter2"),
        ("CLERK_JWT_KEY", "hunter2"),
        ("AUTHORIZED_PARTIES", "app.example.com/path"),
        ("LISTEN", "nowhere"),
        ("RETRY_DELAYS", "1h,5s"),
        ("WORKER_LANES", "0"),
        ("RUST_LOG", "=="),
        ("WEBHOOK_URL", "ftp://example.com"),
    ];
    for (name, value) in wrong {
        env.insert(name, value.to_owned());
    }
    let diagnosis = doctor(&env, &[]).await;
    diagnosis.is(&["problem settings/settings"; 11]);
    let said = diagnosis.report.to_string();
    for (name, _) in wrong {
        assert!(said.contains(&format!("\"{name}: ")), "{name}: {said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
    // Nobody else's queue or database is looked at in their place.
    diagnosis.says("rabbitmq/reachable", &["AMQP_URL cannot be read"]);
    diagnosis.says("database/reachable", &["DATABASE_URL cannot be read"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn help_shows_no_address_of_the_environment_which_may_hold_a_password() {
    let mut env = nothing_else();
    for name in [
        "WEBHOOK_URL",
        "RABBITMQ_MANAGEMENT_URL",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ] {
        env.insert(name, "http://me:hunter2@example.com".to_owned());
    }
    for command in ["doctor", "send", "up"] {
        let (status, out, err) = run("clerk-sync", &[command, "--help"], &env).await;
        assert_eq!(status.code(), Some(0), "{command}: {out}{err}");
        assert!(!out.contains("hunter2"), "{command}: {out}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_wrong_is_wrong_usage() {
    for args in [
        &["doctor", "--nope"][..],
        &["doctor", "--amqp-url", "http://broker"],
        &["doctor", "more"],
    ] {
        let (status, _, stderr) = run("clerk-sync", args, &nothing_else()).await;
        assert_eq!(status.code(), Some(64), "{args:?}: {stderr}");
    }
    // And of any other command so is the environment.
    let mut env = nothing_else();
    env.insert("LISTEN", "nowhere".to_owned());
    let (status, _, stderr) = run("clerk-sync", &["up"], &env).await;
    assert_eq!(status.code(), Some(64), "{stderr}");
}
