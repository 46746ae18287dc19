//! Dead letters, for the person who can mend them: the real command, beside the real process, on
//! both queues.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::harness::{
    SOON,
    clerk::created,
    eventually,
    process::{base_env, run},
    servers::TestQueue,
};
use site::{On, Site};

mod discard;
mod killed;
mod list;
mod replay;
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
}

/// An event that no instance of this process' is answered for.
const OTHER_INSTANCE: (&str, &str) = ("CLERK_INSTANCE_ID", "ins_production");

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
