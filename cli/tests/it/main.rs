//! The command line of `clerk-sync`. What the commands do is shown in the workspace's `tests/`.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::process::{Command, Output};

fn clerk_sync(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_clerk-sync"))
        .args(args)
        .env_clear()
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap()
}

#[test]
fn help_of_every_command_has_examples() {
    for command in [
        "up",
        "send",
        "migrate",
        "setup",
        "dead-letters",
        "dead-letters list",
        "dead-letters show",
        "dead-letters replay",
        "dead-letters discard",
        "doctor",
        "prove",
        "bench",
        "bench ingest",
        "bench worker",
        "bench e2e",
        "bench embedded",
    ] {
        let words: Vec<_> = command.split(' ').chain(["--help"]).collect();
        let help = clerk_sync(&words);
        assert!(help.status.success());
        let help = String::from_utf8(help.stdout).unwrap();
        assert!(
            help.contains(&format!("Examples:\n  clerk-sync {command}")),
            "{help}"
        );
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}

#[test]
fn a_misspelt_command_or_flag_is_told_and_exits_64() {
    for args in [&["upp"][..], &["up", "--dmeo"], &["send"]] {
        let refused = clerk_sync(args);
        assert_eq!(refused.status.code(), Some(64), "{args:?}");
        assert!(
            String::from_utf8(refused.stderr).unwrap().contains("Usage"),
            "{args:?}"
        );
    }
}

#[test]
fn an_unknown_sample_is_answered_with_those_there_are() {
    let secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    let refused = clerk_sync(&[
        "send",
        "user_craeted",
        "--clerk-webhook-signing-secret",
        secret,
    ]);
    assert_eq!(refused.status.code(), Some(1));
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("user_created_email_password"), "{text}");
}

#[test]
fn sending_without_a_secret_says_where_one_comes_from() {
    let refused = clerk_sync(&["send", "user_deleted", "--data", "no-such-folder"]);
    assert_eq!(refused.status.code(), Some(1));
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(
        text.contains("CLERK_WEBHOOK_SIGNING_SECRET") && text.contains("clerk-sync up"),
        "{text}"
    );
}
