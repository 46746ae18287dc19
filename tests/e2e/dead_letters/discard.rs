//! `discard`: it asks, and takes what is meant for good.

use std::process::Stdio;

use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

use super::{
    OTHER_INSTANCE, on_both_queues,
    site::{On, Site},
};
use crate::harness::{
    SOON,
    clerk::{Letter, created},
    eventually,
    process::binary,
};

on_both_queues! {
    a_discard_asks_and_takes_what_is_selected_and_no_more
}

async fn a_discard_asks_and_takes_what_is_selected_and_no_more(on: On) {
    let site = Site::open(on, &[OTHER_INSTANCE]).await;
    let letters = [
        created("user_1", "a@a.example"),
        created("user_2", "b@a.example"),
        Letter::new("no JSON"),
        Letter::new("none either"),
    ];
    site.park(&letters, 4).await;
    let complaint = site.operator(&["discard", "--all"]).await.failed();
    assert!(complaint.contains("--yes"), "{complaint}");
    let malformed = ["discard", "--code", "malformed"];
    for (answer, expected, left) in [
        ("n\n", "nothing was discarded", 4),
        ("\n", "nothing was discarded", 4),
        ("y\n", "2 letters discarded", 2),
    ] {
        let said = on_a_terminal(&site, &malformed, answer).await;
        assert!(said.contains("  2  malformed"), "{said}");
        assert!(said.contains("Discard 2 letters"), "{said}");
        assert!(said.contains(expected), "{said}");
        eventually("the others are back", SOON, async || {
            site.list(&[]).await["total"] == left
        })
        .await;
    }
    let ran = site
        .operator(&["discard", "--yes", &letters[0].id, "msg_nobody"])
        .await;
    assert!(
        ran.stdout.contains("1  wrong_instance\n1 letter discarded"),
        "{}",
        ran.stdout
    );
    assert!(ran.failed().contains("msg_nobody"));
    let left = site.list(&[]).await;
    assert_eq!(left["letters"][0]["id"], letters[1].id);
    let said = site
        .operator(&["discard", "--yes", "--all"])
        .await
        .succeeded();
    assert!(said.contains("1 letter discarded"), "{said}");
    let said = site
        .operator(&["discard", "--yes", "--all"])
        .await
        .succeeded();
    assert_eq!(said, "0 letters discarded\n");
    assert!(site.db.users().await.is_empty(), "none was applied");
    site.close().await;
}

/// Types an answer to a command that has a terminal.
async fn on_a_terminal(site: &Site, args: &[&str], answer: &str) -> String {
    let words: Vec<_> = args.iter().map(|arg| format!("'{arg}'")).collect();
    let line = format!(
        "'{}' dead-letters {}",
        binary("clerk-sync").display(),
        words.join(" ")
    );
    let mut script = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env_clear()
        .env("PATH", std::env::var("PATH").unwrap_or_default())
        .envs(&site.env)
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut keyboard = script.stdin.take().unwrap();
    keyboard.write_all(answer.as_bytes()).await.unwrap();
    let ended = timeout(SOON, script.wait_with_output()).await;
    drop(keyboard);
    let output = ended.expect("it ends").unwrap();
    String::from_utf8_lossy(&output.stdout).replace('\r', "")
}
