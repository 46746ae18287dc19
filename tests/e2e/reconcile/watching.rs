//! `clerk-sync reconcile --watch`: what it says holds.

use clerk_sync_stand_in::{Endpoint, Failure, StandIn};

use super::{another_instance, between, in_step, plant_ghost};
use crate::{
    backfill::backfill,
    harness::{SOON, eventually, process::Process, servers::TestDb},
};

/// Drift of users who changed long ago: `--since` alone would not see it.
#[tokio::test(flavor = "multi_thread")]
async fn with_since_it_holds_what_it_has_found_until_it_is_mended() {
    let (db, clerk, who) = in_step(TestDb::sqlite().await, 100).await;
    db.execute(&format!(
        r#"DELETE FROM users WHERE "clerkId" = '{}'"#,
        who[9]
    ))
    .await;
    plant_ghost(&db, "user_ghost").await;
    let args = [
        "reconcile",
        "--watch",
        "300ms",
        "--since",
        "1s",
        "--settle",
        "0s",
    ];
    let env = between(&clerk, &db);
    let watch = Process::start("clerk-sync", &args, &env);
    watch.ready().await;
    let drift = async |kind: &str| watch.metric("clerk_sync_drift_users", kind).await;
    let are = async |missing: f64, ghosts: f64| {
        drift("missing").await == missing && drift("ghost").await == ghosts
    };
    eventually("both are counted", SOON, async || are(1.0, 1.0).await).await;
    let asked = clerk.requests(Endpoint::Users);
    eventually("it has compared again and again", SOON, async || {
        clerk.requests(Endpoint::Users) > asked + 8
    })
    .await;
    assert!(are(1.0, 1.0).await);
    let (exit, said) = backfill(&env, &[]).await;
    assert_eq!(exit, 0, "{said}");
    db.execute(r#"DELETE FROM users WHERE "clerkId" = 'user_ghost'"#)
        .await;
    eventually("none is left", SOON, async || are(0.0, 0.0).await).await;
    watch.stop().await;
    db.remove().await;
}

/// It would look like one that finds nothing.
#[tokio::test(flavor = "multi_thread")]
async fn it_ends_when_its_key_was_never_right() {
    let (db, clerk, who) = in_step(TestDb::sqlite().await, 20).await;
    let watch = |clerk: &StandIn| {
        let args = ["reconcile", "--watch", "300ms", "--settle", "0s"];
        Process::start("clerk-sync", &args, &between(clerk, &db))
    };
    let other = another_instance(&clerk, &who[..3]).await;
    let mut mistaken = watch(&other);
    assert_eq!(mistaken.wait().await.code(), Some(1));
    let said = mistaken.output();
    assert!(said.contains("another environment?"), "{said}");

    clerk.fail_next(1, Failure::Status(401, None));
    let mut refused = watch(&clerk);
    assert_eq!(refused.wait().await.code(), Some(1));
    let said = refused.output();
    assert!(said.contains("Clerk refuses CLERK_SECRET_KEY"), "{said}");
    db.remove().await;
}
