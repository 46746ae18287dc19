//! Dead letters, for the person who can mend them: the real command, beside the real process, on
//! both queues.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

use crate::harness::{
    SOON,
    clerk::{Letter, created, event, updated, user},
    eventually,
    process::{base_env, binary, run},
    servers::TestQueue,
};
use site::{On, Site, assert_fits, codes};

mod killed;
pub(crate) mod site;

macro_rules! on_both_queues {
    ($($test:ident)+) => {
        mod on_rabbitmq {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::On::RabbitMq).await;
            })+
        }
        mod on_the_file {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::On::File).await;
            })+
        }
    };
}
pub(crate) use on_both_queues;

on_both_queues! {
    what_is_cured_on_the_ladder_is_applied_by_the_next_attempt
    a_cured_letter_is_replayed_applied_and_no_duplicate
    what_there_is_is_told_in_80_columns_and_to_scripts
    a_replay_takes_what_is_selected_and_no_more
    a_discard_asks_and_takes_what_is_selected_and_no_more
    two_operators_beside_a_worker_apply_each_letter_once
}

/// An event that no instance of this process' is answered for.
const OTHER_INSTANCE: (&str, &str) = ("CLERK_INSTANCE_ID", "ins_production");

fn no_address(id: &str) -> Letter {
    let mut nobody = user(id, "", 0);
    nobody["email_addresses"] = json!([]);
    nobody["primary_email_address_id"] = json!(null);
    event("user.created", &nobody)
}

async fn what_is_cured_on_the_ladder_is_applied_by_the_next_attempt(on: On) {
    let site = Site::open_with_ladder(on, "300ms,3s,10m", &[]).await;
    site.db
        .execute(
            "INSERT INTO users (id, \"clerkId\", email, \"updatedAt\") VALUES \
             ('theirs', 'by hand', 'taken@a.example', '2026-01-01 00:00:00')",
        )
        .await;
    let claim = created("user_1", "taken@a.example");
    let sent = Instant::now();
    site.deliver(std::slice::from_ref(&claim)).await;
    eventually("it waits on the second rung", SOON, async || {
        site.up.metric("clerk_sync_retries_total", "").await > 1.5
    })
    .await;
    site.db
        .execute("DELETE FROM users WHERE id = 'theirs'")
        .await;
    eventually("it is applied by itself", SOON, async || {
        site.db.outcome(&claim.id).await.as_deref() == Some("created")
    })
    .await;
    let took = sent.elapsed();
    assert!(took >= Duration::from_millis(3300), "both delays, {took:?}");
    assert_eq!(site.list(&[]).await["total"], 0);
    site.close().await;
}

async fn a_cured_letter_is_replayed_applied_and_no_duplicate(on: On) {
    let site = Site::open(on, &[]).await;
    site.db
        .execute(
            "INSERT INTO users (id, \"clerkId\", email, \"updatedAt\") VALUES \
             ('theirs', 'by hand', 'taken@a.example', '2026-01-01 00:00:00'), \
             ('too', 'by hand too', 'taken2@a.example', '2026-01-01 00:00:00')",
        )
        .await;
    site.deliver(&[created("user_2", "own@a.example")]).await;
    let letters = [
        created("user_1", "taken@a.example"),
        updated("user_2", "taken2@a.example", 5),
    ];
    site.park(&letters, 2).await;
    let list = site.list(&[]).await;
    assert_eq!(codes(&list), [("email_taken", 2)]);
    for letter in list["letters"].as_array().unwrap() {
        assert_eq!(letter["attempts"], 3, "the whole ladder");
        assert!(letter["first_failed_at"].is_string());
    }
    for letter in &letters {
        assert_eq!(
            site.db.outcome(&letter.id).await.as_deref(),
            Some("dead_lettered")
        );
    }

    // Not cured: it comes back, after the whole ladder once more.
    let said = site.operator(&["replay", &letters[0].id]).await.succeeded();
    assert!(
        said.contains("1  email_taken\n1 letter replayed\n"),
        "{said}"
    );
    eventually("it is dead again", SOON, async || {
        site.list(&[]).await["total"] == 2
    })
    .await;
    let again = site.list(&[]).await;
    assert_eq!(again["letters"][0]["attempts"], 3);

    site.db
        .execute("DELETE FROM users WHERE id IN ('theirs', 'too')")
        .await;
    let said = site.operator(&["replay", "--code", "email_taken"]).await;
    let said = said.succeeded();
    let when = match on {
        On::RabbitMq => "in 100ms, after the first retry delay",
        On::File => "A running `clerk-sync up` applies them now",
    };
    assert!(
        said.contains("2 letters replayed") && said.contains(when),
        "{said}"
    );
    assert_fits(&said);
    for (letter, outcome) in letters.iter().zip(["created", "updated"]) {
        eventually("it is applied", SOON, async || {
            site.db.outcome(&letter.id).await.as_deref() == Some(outcome)
        })
        .await;
    }
    let metric = async |outcome: &str| {
        let label = format!("outcome=\"{outcome}\"");
        site.up.metric("clerk_sync_events_total", &label).await
    };
    assert!(metric("duplicate").await < 0.5, "no duplicate");
    assert!((metric("created").await - 2.0).abs() < 0.5);
    assert!((metric("updated").await - 1.0).abs() < 0.5);
    assert_eq!(site.list(&[]).await["total"], 0);
    assert!(
        site.db.users().await.iter().any(|(id, email, _)| {
            (id.as_str(), email.as_str()) == ("user_1", "taken@a.example")
        })
    );
    site.close().await;
}

async fn what_there_is_is_told_in_80_columns_and_to_scripts(on: On) {
    let site = Site::open(on, &[]).await;
    let queue = match &site.queue {
        Some(queue) => queue.server.topology.dead(),
        None => site.folder.path().join("queue.db").display().to_string(),
    };
    let said = site.operator(&["list"]).await.succeeded();
    assert_eq!(said, format!("no letters in {queue}\n"));

    let homeless = no_address("user_homeless");
    let poison = [
        Letter::new("no JSON at all"),
        Letter::new("{\"type\":\"user.created\",\"data\":{}}"),
        homeless.clone(),
        Letter::new("{\"type\":\"user.updated\",\"data\":{}}"),
    ];
    for (count, letter) in (1..).zip(&poison) {
        site.park(std::slice::from_ref(letter), count).await;
    }
    let said = site.operator(&["list", "--limit", "2"]).await.succeeded();
    assert_fits(&said);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], format!("4 letters in {queue}"));
    assert_eq!(lines[2], "malformed: 3 letters");
    assert!(lines[3].contains(&poison[3].id) && lines[3].ends_with("user.updated  1 attempt"));
    assert_eq!(lines[4].trim(), "and 2 more");
    assert_eq!(lines[6], "missing_email: 1 letter");
    assert!(lines[7].contains(&homeless.id), "{said}");
    assert!(lines[9].contains("--limit 4"), "{said}");
    let said = site.operator(&["list", "--code", "missing_email"]).await;
    let said = said.succeeded();
    assert!(
        said.starts_with(&format!("1 of 4 letters in {queue}\n")),
        "{said}"
    );
    assert!(!said.contains("malformed"), "{said}");

    let list = site.list(&["--limit", "1", "--type", "user.created"]).await;
    let received = list["letters"][0]["received_at"].as_str().unwrap();
    assert!(
        received.starts_with("20") && received.ends_with('Z'),
        "{received}"
    );
    assert_eq!(
        list,
        json!({
            "from": "dead", "queue": queue, "total": 4, "matching": 2, "elsewhere": 0,
            "codes": [{ "code": "malformed", "count": 1 }, { "code": "missing_email", "count": 1 }],
            "letters": [{
                "id": homeless.id, "type": "user.created", "code": "missing_email",
                "detail": list["letters"][0]["detail"], "attempts": 1,
                "received_at": received,
                "first_failed_at": list["letters"][0]["first_failed_at"],
                "bytes": homeless.body.len(),
            }],
        })
    );

    let said = site.operator(&["show", &homeless.id]).await.succeeded();
    assert_fits(&said);
    let size = format!("{} bytes", homeless.body.len());
    for part in [
        &*homeless.id,
        "missing_email",
        "user.created",
        received,
        &size,
        "svix-timestamp",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    for said in [&said, &site.operator(&["list"]).await.succeeded()] {
        assert!(!said.contains("user_homeless"), "a body in: {said}");
    }
    for letter in &poison {
        let body = site.operator(&["show", &letter.id, "--body"]).await;
        assert!(body.succeeded().as_bytes() == letter.body, "{}", letter.id);
    }
    for args in [
        &["show", "msg_nobody"][..],
        &["show", "msg_nobody", "--body"],
    ] {
        let complaint = site.operator(args).await.failed();
        assert!(
            complaint.contains("msg_nobody") && complaint.contains("list"),
            "{complaint}"
        );
    }
    site.close().await;
}

async fn a_replay_takes_what_is_selected_and_no_more(on: On) {
    let site = Site::open(on, &[OTHER_INSTANCE]).await;
    let letters: Vec<_> = (0..6)
        .map(|n| created(&format!("user_{n}"), &format!("u{n}@a.example")))
        .chain([updated("user_6", "u6@a.example", 1), Letter::new("no JSON")])
        .collect();
    site.park(&letters, 8).await;
    let site = site.reopen_without(OTHER_INSTANCE.0).await;
    let left = async || codes_of(&site).await;
    let id = |n: usize| letters[n].id.as_str();

    let said = site
        .operator(&["replay", "--all", "--dry-run"])
        .await
        .succeeded();
    assert!(said.contains("7  wrong_instance\n  1  malformed"), "{said}");
    assert!(said.contains("8 letters would be replayed"), "{said}");
    assert_eq!(left().await, ["wrong_instance 7", "malformed 1"]);

    // Those that are there, and a complaint about the one that is not.
    let ran = site.operator(&["replay", id(0), "msg_nobody", id(1)]).await;
    assert!(ran.stdout.contains("2 letters replayed"), "{}", ran.stdout);
    let complaint = ran.failed();
    assert!(
        complaint.contains("msg_nobody") && !complaint.contains(id(0)),
        "{complaint}"
    );
    assert_eq!(left().await, ["wrong_instance 5", "malformed 1"]);

    let none = ["replay", "--code", "wrong_instance", "--older-than", "1h"];
    let said = site.operator(&none).await.succeeded();
    assert_eq!(said, "0 letters replayed\n");
    let some = [
        "replay",
        "--code",
        "wrong_instance",
        "--newer-than",
        "1h",
        "--type",
        "user.updated",
    ];
    let said = site.operator(&some).await.succeeded();
    assert!(said.contains("1 letter replayed"), "{said}");
    assert_eq!(left().await, ["wrong_instance 4", "malformed 1"]);
    let said = site.operator(&["replay", "--all"]).await.succeeded();
    assert!(said.contains("5 letters replayed"), "{said}");
    eventually("the rest is applied", SOON, async || {
        site.db.users().await.len() == 7
    })
    .await;
    eventually("what nothing can cure is back", SOON, async || {
        left().await == ["malformed 1"]
    })
    .await;

    for mistake in [
        &["replay"][..],
        &["replay", "msg_1", "--all"],
        &["replay", "--all", "--code", "malformed"],
        &["replay", "--older-than", "soon"],
        &["replay", "--all", "--from", "nowhere"],
        &["discard"],
        &["show"],
        &["list", "--limit", "-1"],
        &[],
    ] {
        let refused = site.operator(mistake).await;
        assert_eq!(
            refused.status.code(),
            Some(64),
            "{mistake:?}: {}",
            refused.stdout
        );
    }
    assert_eq!(left().await, ["malformed 1"], "nothing was done by mistake");
    site.close().await;
}

async fn codes_of(site: &Site) -> Vec<String> {
    let list = site.list(&[]).await;
    let codes = codes(&list).into_iter();
    codes
        .map(|(code, count)| format!("{code} {count}"))
        .collect()
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

async fn two_operators_beside_a_worker_apply_each_letter_once(on: On) {
    const LETTERS: usize = 600;
    let site = Site::open(on, &[OTHER_INSTANCE]).await;
    let letters: Vec<_> = (0..LETTERS)
        .map(|n| created(&format!("user_{n}"), &format!("u{n}@a.example")))
        .collect();
    site.park(&letters, LETTERS).await;
    let site = site.reopen_without(OTHER_INSTANCE.0).await;
    let all = ["replay", "--all"];
    let (one, other) = tokio::join!(site.operator(&all), site.operator(&all));
    let (one, other) = (one.succeeded(), other.succeeded());
    // What one of them had in hand the other did not see: together they had all.
    let replayed = |said: &str| -> usize {
        let line = said.lines().find(|line| line.contains("replayed"));
        line.unwrap().split(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(replayed(&one) + replayed(&other), LETTERS, "{one}{other}");
    eventually("every letter is applied", SOON, async || {
        site.outcomes("created").await == LETTERS as i64
    })
    .await;
    let duplicates = site
        .up
        .metric("clerk_sync_events_total", "outcome=\"duplicate\"")
        .await;
    assert!(duplicates < 0.5, "{duplicates} came twice");
    assert_eq!(site.list(&[]).await["total"], 0);
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_found_no_queue_is_listed_and_replayed_too() {
    let site = Site::open(On::RabbitMq, &[]).await;
    let queue = site.queue.as_ref().unwrap();
    let topology = &queue.server.topology;
    site.park(&[Letter::new("no JSON")], 1).await;
    let stray = created("user_1", "a@a.example");
    let (_connection, channel) = queue.channel().await;
    let properties = lapin::BasicProperties::default()
        .with_message_id(stray.id.as_str().into())
        .with_type("user.created".into());
    let (retry, nowhere) = (topology.retry(), "7s");
    channel
        .basic_publish(
            retry.as_str().into(),
            nowhere.into(),
            lapin::options::BasicPublishOptions::default(),
            &stray.body,
            properties,
        )
        .await
        .unwrap();
    eventually("it is mentioned", SOON, async || {
        site.list(&[]).await["elsewhere"] == 1
    })
    .await;
    let said = site.operator(&["list"]).await.succeeded();
    let unrouted = topology.unrouted();
    assert!(
        said.contains(&format!("1 letter in {unrouted}: --from unrouted")),
        "{said}"
    );
    let said = site
        .operator(&["list", "--from", "unrouted"])
        .await
        .succeeded();
    assert!(
        said.starts_with(&format!("1 letter in {unrouted}\n\nunrouted: 1 letter\n")),
        "{said}"
    );
    let dead = topology.dead();
    assert!(
        said.contains(&format!("1 letter in {dead}: --from dead")),
        "{said}"
    );
    assert!(said.contains("   ?  "), "its age is unknown: {said}");
    let body = ["show", &stray.id, "--body", "--from", "unrouted"];
    assert!(site.operator(&body).await.succeeded().as_bytes() == stray.body);

    let replay = ["replay", &stray.id, "--from", "unrouted"];
    assert!(
        site.operator(&replay)
            .await
            .succeeded()
            .contains("1 letter replayed")
    );
    eventually("it is applied", SOON, async || {
        site.db.outcome(&stray.id).await.as_deref() == Some("created")
    })
    .await;
    assert_eq!(site.list(&["--from", "unrouted"]).await["total"], 0);
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("no such folder");
    let mut env = base_env();
    env.insert("CLERK_SYNC_DATA", nowhere.display().to_string());
    let queue = TestQueue::bare("5s").await;
    for args in [
        &["list"][..],
        &["show", "msg_1"],
        &["replay", "--all"],
        &["discard", "--all", "--yes"],
    ] {
        let args = [&["dead-letters"], args].concat();
        let (status, _, stderr) = run("clerk-sync", &args, &env).await;
        assert_eq!(status.code(), Some(1), "{stderr}");
        for part in [nowhere.to_str().unwrap(), "CLERK_SYNC_DATA", "AMQP_URL"] {
            assert!(stderr.contains(part), "{stderr}");
        }
        assert!(!nowhere.exists(), "it makes nothing");

        let mut env = env.clone();
        queue.env(&mut env);
        let (status, _, stderr) = run("clerk-sync", &args, &env).await;
        assert_eq!(status.code(), Some(1), "{stderr}");
        for part in [queue.server.topology.dead().as_str(), "clerk-sync setup"] {
            assert!(stderr.contains(part), "{stderr}");
        }
        env.insert("AMQP_URL", "amqp://me:hunter2@127.0.0.1:1/%2f".to_owned());
        let ran = timeout(Duration::from_secs(30), run("clerk-sync", &args, &env));
        let (status, _, stderr) = ran.await.expect("it does not wait");
        assert_eq!(status.code(), Some(1), "{stderr}");
        assert!(
            stderr.contains("127.0.0.1:1") && !stderr.contains("hunter2"),
            "{stderr}"
        );
    }
}
