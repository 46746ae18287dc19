//! The program itself.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use clerk_sync_stand_in::{Settings, StandIn};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::timeout,
};

use crate::{PATIENCE, database::Home};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clerk-sync-api"));
    command
        .env_clear()
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

#[tokio::test]
async fn all_wrong_settings_are_told_at_once_by_name_and_not_repeated() {
    let output = program()
        .env("CLERK_SECRET_KEY", "pk_live_hunter2")
        .env("CLERK_JWT_KEY", "hunter2")
        .env("CLERK_PUBLISHABLE_KEY", "hunter2")
        .env("CLERK_API_URL", "https://me:hunter2@api.example.com")
        .env(
            "ALLOWED_ORIGINS",
            "https://app.example.com/path,https://b.example.com",
        )
        .env("AUTHORIZED_PARTIES", "*")
        .env("CLERK_CLOCK_SKEW", "NaN")
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let told = String::from_utf8(output.stderr).unwrap();
    for setting in [
        "DATABASE_URL",
        "CLERK_SECRET_KEY",
        "CLERK_JWT_KEY",
        "CLERK_PUBLISHABLE_KEY",
        "CLERK_API_URL",
        "ALLOWED_ORIGINS",
        "AUTHORIZED_PARTIES",
        "CLERK_CLOCK_SKEW",
    ] {
        assert!(told.contains(setting), "{setting} is not in {told}");
    }
    assert!(!told.contains("hunter2"), "{told}");
}

#[tokio::test]
async fn the_program_answers_is_watched_and_stops() {
    let clerk = StandIn::start_as(Settings::production()).await;
    let home = Home::sqlite().await;
    let mut child = program()
        .env("DATABASE_URL", home.url.expose().as_str())
        .env("CLERK_SECRET_KEY", &clerk.settings().secret_key)
        .env("CLERK_API_URL", clerk.url())
        // Blank, as environments have it: the keys are fetched.
        .env("CLERK_JWT_KEY", "")
        .env("CLERK_PUBLISHABLE_KEY", "")
        .env("ALLOWED_ORIGINS", "")
        .env("LISTEN", "127.0.0.1:0")
        .env("ADMIN_LISTEN", "127.0.0.1:0")
        .env("LOG_FORMAT", "json")
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = Vec::new();
    let mut bound = async |wanted: &str| -> SocketAddr {
        loop {
            let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
            let line = line.expect("it runs");
            let entry: Value = serde_json::from_str(&line).unwrap();
            said.push(line);
            if entry["message"] == "listening" && entry["setting"] == wanted {
                return entry["address"].as_str().unwrap().parse().unwrap();
            }
        }
    };
    let (listen, admin) = (bound("LISTEN").await, bound("ADMIN_LISTEN").await);

    let get = async |url: String| reqwest::get(url).await.unwrap();
    let ready = async { get(format!("http://{admin}/readyz")).await.status() == 200 };
    assert!(timeout(PATIENCE, ready).await.unwrap());
    let id = clerk.sign_up("maren@harbour-labs.example");
    let token = clerk.session_token(&id);
    let me = reqwest::Client::new()
        .get(format!("http://{listen}/api/users/me"))
        .bearer_auth(&token);
    let me: Value = me.send().await.unwrap().json().await.unwrap();
    assert_eq!(me["clerkId"], id);
    let metrics = get(format!("http://{admin}/metrics"))
        .await
        .text()
        .await
        .unwrap();
    for line in [
        r#"clerk_sync_api_requests_total{endpoint="me",outcome="answered"} 1"#,
        r#"clerk_sync_clerk_fetches_total{outcome="found"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }

    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    let status = timeout(Duration::from_secs(40), child.wait())
        .await
        .unwrap()
        .unwrap();
    assert!(status.success(), "{status}");
    while let Ok(Some(line)) = lines.next_line().await {
        said.push(line);
    }
    let said = said.join("\n");
    for private in ["maren", &token, &clerk.settings().secret_key] {
        assert!(!said.contains(private), "{said}");
    }
    assert!(said.contains("AUTHORIZED_PARTIES is not set"), "{said}");
}
