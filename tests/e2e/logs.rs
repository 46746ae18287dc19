//! docs/LOGS.md is true: every line is there with its level and its fields, and nothing private is
//! in any.

mod page;

use std::collections::BTreeSet;

use clerk_sync_stand_in::{Settings, StandIn};
use serde_json::Value;

use self::page::Page;
use crate::{
    dead_letters::site::{On, Site},
    harness::{
        SOON,
        clerk::{Letter, SECRET, client, created, deliver_all, fixtures, now, post, shuffled},
        eventually,
        process::{Env, Process, base_env},
        servers::{TestDb, TestQueue},
    },
};

const CONSOLE_TOKEN: &str = "a-console-token-that-is-long-enough";
/// Every JSON line may have these; `message` only lacks where a library has none.
const ALWAYS: [&str; 4] = ["timestamp", "level", "target", "message"];

#[test]
fn every_line_of_the_sources_is_documented_and_every_documented_line_is_there() {
    let page = Page::read();
    let sources = page::in_the_sources();
    assert!(sources.len() > 50, "{} lines", sources.len());
    for (line, fields) in &sources {
        let documented = page.lines.get(line);
        assert_eq!(documented, Some(fields), "{line:?} in docs/LOGS.md");
    }
    for line in page.lines.keys() {
        assert!(sources.contains_key(line), "{line:?} is in no source");
    }
    let used: BTreeSet<&String> = sources.values().flatten().collect();
    let known = |field: &str| ALWAYS.contains(&field) || field == "name";
    for field in &page.fields {
        assert!(
            used.contains(field) || known(field),
            "nothing has `{field}`"
        );
    }
    for field in used {
        assert!(page.fields.contains(field), "`{field}` is in no table");
    }
}

/// Settings of a process that says everything it can.
fn talkative() -> Env {
    let mut env = base_env();
    env.insert("RUST_LOG", "trace".to_owned());
    env
}

/// A pipeline's bad day. All that its processes said, and what must not be among it.
async fn a_bad_day() -> (Vec<String>, BTreeSet<String>) {
    let db = TestDb::postgres().await.migrated().await;
    let queue = TestQueue::with_ladder("100ms,200ms").await;
    let clerk = StandIn::start_as(Settings::production()).await;
    let user = clerk.fill(3).remove(0);
    let mut env = talkative();
    queue.env(&mut env);
    env.insert("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned());
    env.insert("DATABASE_URL", db.url.expose().to_string());
    let mut beside = talkative();
    beside.insert("DATABASE_URL", db.url.expose().to_string());
    beside.insert("CLERK_API_URL", clerk.url());
    beside.insert("CLERK_SECRET_KEY", clerk.settings().secret_key.clone());
    beside.insert("CLERK_JWT_KEY", clerk.jwt_key().to_owned());

    let watch = ["reconcile", "--watch", "1s", "--settle", "100ms"];
    let ingest = Process::start("clerk-sync-ingest", &[], &env);
    let worker = Process::start("clerk-sync-worker", &[], &env);
    let api = Process::start("clerk-sync-api", &[], &beside);
    let reconcile = Process::start("clerk-sync", &watch, &beside);
    for process in [&ingest, &worker, &api, &reconcile] {
        process.ready().await;
    }
    let url = ingest.webhook_url().await;

    // All that can become of an event.
    db.execute(
        r#"INSERT INTO users (id, "clerkId", email, "updatedAt")
           VALUES ('theirs', 'theirs', 'taken@logs.example', now())"#,
    )
    .await;
    let mut letters = fixtures();
    letters.push(created("user_taken", "taken@logs.example"));
    deliver_all(&url, &shuffled(&letters, rand::random())).await;
    said(&worker, r#""reason":"email_taken""#).await;

    let token = clerk.session_token(&user);
    for (bearer, status) in [(token.as_str(), 200), ("nonsense", 401)] {
        let me = format!("http://{}/api/users/me", api.address("LISTEN").await);
        let answer = client().get(me).bearer_auth(bearer).send().await.unwrap();
        assert_eq!(answer.status(), status);
    }
    said(&reconcile, "rows have drifted").await;

    // A database that takes no writes, for a moment.
    db.set_read_only(true).await;
    let late = created("user_late", "late@logs.example");
    assert_eq!(post(&client(), &url, &late).await, 204);
    said(&worker, "the database is unavailable, trying again").await;
    db.set_read_only(false).await;
    said(&worker, "the database is available again").await;

    let forged = refused(&url, &late).await;
    letters.push(late);
    let mut private = private_parts(&letters);
    private.extend([SECRET.to_owned(), forged, token, user_email(&clerk, &user)]);
    private.insert(clerk.settings().secret_key.clone());
    private.insert(db.url.expose().password().unwrap().to_owned());
    let mut lines = Vec::new();
    for process in [ingest, worker, api, reconcile] {
        lines.extend(process.stop().await.lines().map(str::to_owned));
    }
    queue.remove().await;
    db.remove().await;
    (lines, private)
}

/// Requests that are refused; the signature of one.
async fn refused(url: &str, letter: &Letter) -> String {
    let forged = "v1,Zm9yZ2VkIGJ5IHNvbWVib2R5IHdobyBrbm93cyBub3RoaW5n";
    let request = client()
        .post(url)
        .header("svix-id", &letter.id)
        .header("svix-timestamp", now())
        .header("svix-signature", forged)
        .body(letter.body.clone());
    assert_eq!(request.send().await.unwrap().status(), 401);
    assert_eq!(client().get(url).send().await.unwrap().status(), 405);
    forged.to_owned()
}

async fn said(process: &Process, what: &str) {
    let says = async || process.output().contains(what);
    eventually(&format!("it says {what}"), SOON, says).await;
}

fn user_email(clerk: &StandIn, id: &str) -> String {
    let user: Value = serde_json::from_str(&clerk.user(id).unwrap()).unwrap();
    let email = user["email_addresses"][0]["email_address"].as_str();
    email.unwrap().to_owned()
}

/// What of these bodies is a person's.
fn private_parts(letters: &[Letter]) -> BTreeSet<String> {
    let mut parts = BTreeSet::new();
    for letter in letters {
        collect(
            &serde_json::from_slice(&letter.body).unwrap(),
            "",
            &mut parts,
        );
    }
    assert!(parts.len() > 20, "{parts:?}");
    parts
}

/// Members of a webhook whose texts are a person's, or might tell of one.
const PRIVATE: [&str; 12] = [
    "city",
    "email_address",
    "first_name",
    "identifier",
    "image_url",
    "ip_address",
    "last_name",
    "name",
    "phone_number",
    "profile_image_url",
    "slug",
    "username",
];

fn collect(value: &Value, key: &str, parts: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => members
            .iter()
            .for_each(|(key, value)| collect(value, key, parts)),
        Value::Array(items) => items.iter().for_each(|item| collect(item, key, parts)),
        // A single letter is in any line.
        Value::String(text)
            if text.chars().count() > 2 && (text.contains('@') || PRIVATE.contains(&key)) =>
        {
            parts.insert(text.clone());
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_is_an_object_of_documented_fields_and_nothing_private_is_in_any() {
    let (mut lines, private) = a_bad_day().await;
    lines.extend(one_process().await);
    let page = Page::read();
    let mut seen = BTreeSet::new();
    for line in &lines {
        for part in private.iter().map(String::as_str).chain([CONSOLE_TOKEN]) {
            assert!(!line.contains(part), "{part} is in {line}");
        }
        let parsed: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        let object = parsed.as_object().unwrap();
        let text = |field: &str| object[field].as_str().unwrap().to_owned();
        let level = text("level").to_lowercase();
        if !text("target").starts_with("clerk_sync") {
            assert!(level == "warn" || level == "error", "{line}");
            continue;
        }
        let documented = (level, text("message"));
        let fields = page.lines.get(&documented);
        let fields = fields.unwrap_or_else(|| panic!("not in docs/LOGS.md: {line}"));
        for field in object.keys() {
            let known = ALWAYS.contains(&field.as_str()) || fields.contains(field);
            assert!(known && page.fields.contains(field), "`{field}`: {line}");
        }
        seen.insert(documented.1);
    }
    for message in [
        "connected to the queue",
        "webhook answered",
        "requests refused with 401",
        "event processed",
        "an event was dead-lettered",
        "rows have drifted",
        "somebody has signed in to the console",
        "stopping",
        "stopped",
    ] {
        assert!(seen.contains(message), "nobody said {message:?}: {seen:?}");
    }
}

/// `clerk-sync up` on files, with somebody at its console.
async fn one_process() -> Vec<String> {
    let more = [("RUST_LOG", "trace"), ("CONSOLE_TOKEN", CONSOLE_TOKEN)];
    let site = Site::open(On::File, &more).await;
    deliver_all(&site.url, &fixtures()).await;
    let console = format!("http://{}/console/login", site.up.address("LISTEN").await);
    let entered = client()
        .post(console)
        .header("sec-fetch-site", "same-origin")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("token={CONSOLE_TOKEN}"));
    assert!(entered.send().await.unwrap().status().is_success());
    said(&site.up, "somebody has signed in").await;
    let Site {
        db,
        up,
        folder: _folder,
        ..
    } = site;
    // What it prints for a person, on standard output, is no log.
    let logs = up.logs();
    up.stop().await;
    db.remove().await;
    logs.lock().unwrap().clone()
}
