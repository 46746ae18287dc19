//! The binary's settings.

use std::process::{Command, Output};

use crate::rig::SECRET;

/// Runs the binary, with these settings and none from here, in a folder without `.env`.
fn ingester(settings: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_clerk-sync-ingest"))
        .args(arguments)
        .env_clear()
        .envs(settings.iter().copied())
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .output()
        .unwrap();
    (
        status.code(),
        String::from_utf8([stdout, stderr].concat()).unwrap(),
    )
}

#[test]
fn all_that_is_wrong_is_named_at_once_and_no_secret_is_shown() {
    let (code, said) = ingester(
        &[
            (
                "CLERK_WEBHOOK_SIGNING_SECRET",
                "whsec_!hunter2,whsec_dGVzdA==",
            ),
            ("LISTEN", "nowhere"),
            ("WEBHOOK_PATH", "webhooks"),
            ("MAX_BODY_BYTES", "0"),
            ("HEAD_TIMEOUT", "0s"),
            ("BODY_TIMEOUT", "9s"),
            ("IDLE_TIMEOUT", "soon"),
            ("MAX_CONNECTIONS", "-1"),
            ("MAX_IN_FLIGHT", "many"),
            ("MAX_BUFFERED_BYTES", "64M"),
            ("AMQP_URL", "http://me:hunter2@broker"),
            ("ADMIN_LISTEN", "9464"),
        ],
        &[],
    );
    assert_eq!(code, Some(64), "{said}");
    for named in [
        "CLERK_WEBHOOK_SIGNING_SECRET",
        "secret 1 is not base64",
        "secret 2 is too short",
        "LISTEN",
        "WEBHOOK_PATH",
        "MAX_BODY_BYTES",
        "HEAD_TIMEOUT",
        "BODY_TIMEOUT",
        "4s 500ms at most",
        "IDLE_TIMEOUT",
        "MAX_CONNECTIONS",
        "MAX_IN_FLIGHT",
        "MAX_BUFFERED_BYTES",
        "AMQP_URL",
        "ADMIN_LISTEN",
    ] {
        assert!(said.contains(named), "{named} in {said}");
    }
    assert!(
        !said.contains("hunter2") && !said.contains("dGVzdA"),
        "{said}"
    );
}

#[test]
fn what_is_missing_is_named_with_the_place_to_find_it() {
    let (code, said) = ingester(&[], &[]);
    assert_eq!(code, Some(64), "{said}");
    assert!(
        said.contains("CLERK_WEBHOOK_SIGNING_SECRET") && said.contains("AMQP_URL"),
        "{said}"
    );
    assert!(said.contains("dashboard"), "{said}");
}

#[test]
fn the_older_name_of_the_secret_is_read_when_the_newer_is_not_set() {
    // AMQP_URL is missing in each, so nothing starts.
    let older = ("CLERK_WEBHOOK_SECRET", SECRET);
    for settings in [&[older][..], &[older, ("CLERK_WEBHOOK_SIGNING_SECRET", "")]] {
        let (code, said) = ingester(settings, &[]);
        assert_eq!(code, Some(64));
        assert!(
            said.contains("AMQP_URL") && !said.contains("SIGNING_SECRET"),
            "{said}"
        );
    }
    let settings = [older, ("CLERK_WEBHOOK_SIGNING_SECRET", "whsec_dGVzdA==")];
    let (_, said) = ingester(&settings, &[]);
    assert!(said.contains("too short"), "the newer name wins: {said}");
}

#[test]
fn help_is_no_mistake_and_shows_no_secret() {
    let (code, said) = ingester(
        &[
            ("CLERK_WEBHOOK_SECRET", SECRET),
            ("AMQP_URL", "amqp://me:hunter2@broker"),
        ],
        &["--help"],
    );
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("CLERK_WEBHOOK_SIGNING_SECRET"), "{said}");
    assert!(
        !said.contains("hunter2") && !said.contains("C2FVsBQ"),
        "{said}"
    );
}

#[test]
fn a_port_in_use_is_named_with_its_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let (code, said) = ingester(
        &[
            ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET),
            ("AMQP_URL", "amqp://127.0.0.1:1"),
            ("LISTEN", &listen),
            ("ADMIN_LISTEN", "127.0.0.1:0"),
        ],
        &[],
    );
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("LISTEN") && said.contains(&listen), "{said}");
}
