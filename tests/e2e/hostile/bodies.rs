//! Bodies made to break whoever reads them: unsigned they reach nobody, signed each comes to the
//! end that is written beside it.

mod cases;

use tempfile::TempDir;

use self::cases::{Case, End, cases};
use super::siege::{MIB, PER_CONNECTION, Siege, unsigned_head};
use crate::harness::{
    SOON,
    clerk::{SECRET, client, created, deliver, post},
    eventually,
    process::{Process, base_env},
    servers::{TestDb, TestQueue},
    wire::{lossy, statuses},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_body_that_is_not_signed_is_401_whatever_it_is() {
    let siege = Siege::lay().await;
    for case in cases() {
        let body = &case.letter.body;
        let lines = format!("connection: close\r\ncontent-length: {}\r\n", body.len());
        let said = siege
            .ask(&[unsigned_head(&lines).as_bytes(), body].concat())
            .await;
        assert_eq!(statuses(&said), [401], "{}: {}", case.what, lossy(&said));
        // The same in chunks of a few bytes less than the buffer that it is read into.
        let head = unsigned_head("connection: close\r\ntransfer-encoding: chunked\r\n");
        let mut request = head.into_bytes();
        for chunk in body.chunks(8191) {
            request.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
            request.extend([chunk, b"\r\n"].concat());
        }
        request.extend(b"0\r\n\r\n");
        let said = siege.ask(&request).await;
        assert_eq!(statuses(&said), [401], "{}: {}", case.what, lossy(&said));
    }
    siege
        .lifted("hostile bodies, unsigned", PER_CONNECTION + 4 * MIB)
        .await;
}

/// What Svix never signs, as it is not text: refused although the signature is right.
#[tokio::test(flavor = "multi_thread")]
async fn a_signed_body_that_is_not_utf8_is_401() {
    let siege = Siege::lay().await;
    let url = format!("http://{}{}", siege.address, super::siege::PATH);
    for case in cases() {
        if case.letter.text().is_none() {
            assert_eq!(
                post(&client(), &url, &case.letter).await,
                401,
                "{}",
                case.what
            );
        }
    }
    siege
        .lifted("signed bytes that are no text", PER_CONNECTION + MIB)
        .await;
}

/// What the whole way may take: the bodies of a batch, and what is made of them.
const WHOLE_WAY: u64 = 64 * MIB;

/// Sends every case, signed, through the whole pipeline in one process.
async fn each_comes_to_its_end(db: TestDb, queue: Option<&TestQueue>) {
    let folder = TempDir::new().unwrap();
    let mut env = base_env();
    env.insert("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned());
    env.insert("DATABASE_URL", db.url.expose().to_string());
    env.insert("CLERK_SYNC_DATA", folder.path().display().to_string());
    if let Some(queue) = queue {
        queue.env(&mut env);
    }
    let up = Process::start("clerk-sync", &["up"], &env);
    up.ready().await;
    let url = up.webhook_url().await;
    let sent: Vec<Case> = cases()
        .into_iter()
        .filter(|case| case.letter.text().is_some())
        .collect();
    let resident_before = up.memory("VmRSS");
    up.forget_peak();
    for case in &sent {
        deliver(&client(), &url, &case.letter).await;
    }
    let last = created("user_polite", "polite@a.example");
    deliver(&client(), &url, &last).await;
    let all = i64::try_from(sent.len()).unwrap() + 1;
    eventually("every event is in the ledger", SOON, async || {
        db.ledger().await == all
    })
    .await;

    let grown = up.memory("VmHWM").saturating_sub(resident_before);
    let bodies: usize = sent.iter().map(|case| case.letter.body.len()).sum();
    println!(
        "{} hostile bodies of {} MiB in all: resident {} MiB before, grew by {} MiB at most",
        sent.len(),
        bodies as u64 / MIB,
        resident_before / MIB,
        grown / MIB
    );
    assert!(grown <= WHOLE_WAY, "grew by {grown} bytes");

    for case in &sent {
        let outcome = db.outcome(&case.letter.id).await.unwrap();
        let expected = match case.end {
            End::Created => "created",
            End::Ignored => "ignored",
            End::Dead(_) => "dead_lettered",
        };
        assert_eq!(outcome, expected, "{}", case.what);
    }
    assert_eq!(db.outcome(&last.id).await.as_deref(), Some("created"));
    if let Some(queue) = queue {
        let dead = queue.drain(&queue.server.topology.dead()).await;
        for case in &sent {
            let End::Dead(reason) = case.end else {
                continue;
            };
            let letter = dead
                .iter()
                .find(|taken| taken.id.as_ref() == Some(&case.letter.id));
            let letter = letter.unwrap_or_else(|| panic!("{} is kept", case.what));
            assert_eq!(
                letter.text("x-error").as_deref(),
                Some(reason),
                "{}",
                case.what
            );
            assert!(
                letter.body == case.letter.body,
                "{} is kept as it was",
                case.what
            );
        }
    }
    for reason in [
        "malformed",
        "invalid_text",
        "text_too_long",
        "invalid_timestamp",
        "missing_email",
    ] {
        let expected = sent
            .iter()
            .filter(|case| case.end == End::Dead(reason))
            .count();
        assert!(expected > 0, "there is a case for {reason}");
        let counted = up
            .metric("clerk_sync_dead_letters_total", &format!("\"{reason}\""))
            .await;
        assert!(
            (counted - expected as f64).abs() < 0.5,
            "{reason}: {counted}, not {expected}"
        );
    }
    if let Some(queue) = queue {
        // What HTTP does not let in, published by somebody with a right to.
        let foreign = cases()
            .into_iter()
            .filter(|case| case.letter.text().is_none());
        let mut count = 0;
        for case in foreign {
            queue
                .publish_by_hand("user.created", &case.letter.body)
                .await;
            count += 1;
        }
        eventually("they are kept", SOON, async || {
            queue.depth(&queue.server.topology.dead()).await == count
        })
        .await;
    }
    let output = up.stop().await;
    assert!(!output.contains("panicked"), "{output}");
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hostile_body_comes_to_its_end_embedded() {
    each_comes_to_its_end(TestDb::sqlite().await, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hostile_body_comes_to_its_end_through_rabbitmq_and_postgresql() {
    let queue = TestQueue::bare("5s,30s,2m,10m,1h").await;
    each_comes_to_its_end(TestDb::postgres().await, Some(&queue)).await;
    queue.remove().await;
}
