//! The ledger's tail: after a pause, and in a flood.

use crate::{
    console::{browser::Event, ids, no_address, site},
    dead_letters::site::On,
    harness::{
        SOON,
        clerk::{created, updated},
        eventually,
    },
};

fn rows(event: &Event) -> Vec<String> {
    assert_eq!(event.name, "rows");
    ids(event.data["rows"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_paused_misses_nothing() {
    let (site, browser) = site(On::RabbitMq, &[]).await;
    let letters: Vec<_> = (0..3)
        .map(|number| created(&format!("user_{number}"), &format!("{number}@example.com")))
        .collect();
    site.deliver(&letters).await;
    eventually("all are in the ledger", SOON, async || {
        site.db.ledger().await == 3
    })
    .await;
    // What was handled while the page had paused.
    let past =
        "UPDATE clerk_sync.processed_events SET processed_at = processed_at - interval '5 minutes'";
    site.db.execute(past).await;

    let since = chrono::Utc::now() - chrono::TimeDelta::minutes(6);
    let since = since.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let path = format!("/console/events/stream?since={since}");
    let mut tail = browser.stream(&path, None).await;
    let caught_up = tail.next().await.unwrap();
    assert_eq!(rows(&caught_up).len(), 3);
    let id = caught_up.id.expect("where it goes on");

    // A stream that comes again by itself says where it was; that counts for more.
    let early = "/console/events/stream?since=2020-01-01T00:00:00Z";
    let mut again = browser.stream(early, Some(&id)).await;
    assert_eq!(
        rows(&again.next().await.unwrap()).len(),
        3,
        "those of one commit"
    );
    // One that never paused begins now, and one that paused for long does not begin anywhere.
    let late = updated("user_0", "0@example.com", 1);
    let mut anew = browser.stream("/console/events/stream", None).await;
    let mut old = browser.stream(early, None).await;
    site.deliver(std::slice::from_ref(&late)).await;
    assert_eq!(rows(&anew.next().await.unwrap()), [late.id.as_str()]);
    assert!(rows(&old.next().await.unwrap()).len() >= 3);
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_hides_nothing_that_is_wanted() {
    let (site, browser) = site(On::File, &[]).await;
    let rare = no_address("user_nobody");
    site.park(std::slice::from_ref(&rare), 1).await;
    // More than one look shows.
    let flood: Vec<_> = (0..150)
        .map(|number| created(&format!("user_{number}"), &format!("{number}@example.com")))
        .collect();
    site.deliver(&flood).await;
    eventually("all are in the ledger", SOON, async || {
        site.db.ledger().await == 151
    })
    .await;
    let wanted = "/console/events/stream?outcome=dead_lettered";
    let mut tail = browser.stream(wanted, None).await;
    assert_eq!(rows(&tail.next().await.unwrap()), [rare.id.as_str()]);
    let mut all = browser.stream("/console/events/stream", None).await;
    let first = all.next().await.unwrap();
    assert_eq!(rows(&first).len(), 100, "one look shows no more");
    assert_eq!(first.data["more"], false, "the page has those before");
    site.close().await;
}
