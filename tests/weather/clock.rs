//! The system's clock of one process, set forwards and backwards. libfaketime stands between the
//! process and its C library, reads the offset anew at each question, and leaves the monotonic
//! clock alone, as whoever sets a clock does.

use std::{path::PathBuf, time::Duration};

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    harness::{
        SOON,
        clerk::{client, created, now, post_as_of},
        eventually,
        process::Env,
        servers::TestDb,
    },
    load::{Load, deliver_letter, some_events},
    site::{Plan, Shape, Site, shared},
};

const DAY: i64 = 86_400;

struct Clock {
    folder: TempDir,
}

impl Clock {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Self { folder };
        clock.set(0);
        clock
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }

    /// So many seconds from the truth. In one step, for whoever reads it this moment.
    fn set(&self, offset: i64) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, format!("{offset:+}\n")).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    fn env(&self) -> Env {
        Env::from([
            ("LD_PRELOAD", library().display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ])
    }
}

fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap();
    folders
        .map(|folder| folder.unwrap().path().join("faketime/libfaketime.so.1"))
        .find(|library| library.exists())
        .expect("libfaketime is not installed: scripts/services up does that on Debian and Ubuntu")
}

pub(crate) async fn a_clock_that_jumps_refuses_signatures_until_it_is_right_and_orders_nothing() {
    let _servers = shared().await;
    let (ingest, worker) = (Clock::new(), Clock::new());
    let mut plan = Plan::new(Shape::Apart { workers: 1 }).await;
    plan.env = ingest.env();
    plan.worker_env = worker.env();
    let site = Site::open(plan).await;
    let url = site.url().borrow().clone();
    let before = some_events(&site, 10).await;

    let client = client();
    let letter = created("user_jump", "jump@a.example");
    for wrong in [DAY, 10 * 60, -10 * 60, -DAY] {
        ingest.set(wrong);
        let (status, body) = post_as_of(&client, &url, &letter, now()).await;
        assert_eq!(status, 401, "{wrong} s off: {body}");
        assert!(body.contains("timestamp_out_of_tolerance"), "{body}");
        // It is the clock and nothing else: what is signed by the same clock is taken.
        let (status, body) = post_as_of(&client, &url, &letter, now() + wrong).await;
        assert_eq!(status, 204, "{wrong} s off: {body}");
    }
    // A little wrong is tolerated.
    ingest.set(240);
    deliver_letter(&site, &letter).await;
    ingest.set(0);
    deliver_letter(&site, &letter).await;

    let load = Load::start(&site.url(), 40);
    for wrong in [DAY, -DAY, 400 * DAY, -400 * DAY, 0] {
        worker.set(wrong);
        sleep(Duration::from_secs(2)).await;
    }
    let mut delivered = load.delivered().await;
    delivered.merge(before);
    delivered.ids.insert(letter.id);
    delivered.add_row(("user_jump", "jump@a.example", Some("U 0")));
    site.told(&[]).await;
    site.audit(&delivered).await;
}

/// A delay that is counted by a clock which was set back would last for as long as it was set back.
pub(crate) async fn a_clock_that_jumps_breaks_no_embedded_delay() {
    let clock = Clock::new();
    let db = TestDb::sqlite().await.migrated().await;
    let taken = "INSERT INTO users (id, \"clerkId\", email, \"createdAt\", \"updatedAt\") VALUES \
                 ('theirs', 'by hand', 'taken@a.example', '2024-01-01', '2024-01-01')";
    db.execute(taken).await;
    let mut plan = Plan::on(db, Shape::Embedded).with("RETRY_DELAYS", "1s,12s,13s");
    plan.env.extend(clock.env());
    let mut site = Site::open(plan).await;
    let mut delivered = some_events(&site, 10).await;
    let retries = async |site: &Site| {
        let up = &site.ingest().process;
        up.metric("clerk_sync_retries_total", "email_taken").await
    };

    let claim = created("user_claim", "taken@a.example");
    deliver_letter(&site, &claim).await;
    eventually("it waits for 1 s", SOON, async || {
        retries(&site).await >= 1.0
    })
    .await;
    clock.set(-DAY);
    eventually("it was tried, and waits for 12 s", SOON, async || {
        retries(&site).await >= 2.0
    })
    .await;
    let since = Instant::now();
    clock.set(DAY);
    sleep(Duration::from_secs(6)).await;
    assert!(retries(&site).await < 2.5, "a delay that ended early");
    eventually("it waits for 13 s", SOON, async || {
        retries(&site).await >= 3.0
    })
    .await;
    assert!(since.elapsed() > Duration::from_secs(9));
    site.told(&[]).await;

    // Begun anew in yesterday, with what was put off until tomorrow.
    site.kill().await;
    clock.set(-DAY);
    site.db
        .execute("DELETE FROM users WHERE id = 'theirs'")
        .await;
    site.restart().await;
    delivered.ids.insert(claim.id);
    delivered.add_row(("user_claim", "taken@a.example", Some("U 0")));
    site.applied(&delivered.ids).await;
    site.told(&[]).await;
    site.audit_with_retries(&delivered).await;
}
