//! `replay`: what is cured is applied, once, and nothing else is touched.

use super::{
    OTHER_INSTANCE, on_both_queues,
    site::{On, Site, assert_fits, codes},
};
use crate::harness::{
    SOON,
    clerk::{Letter, created, updated},
    eventually,
};

on_both_queues! {
    a_cured_letter_is_replayed_applied_and_no_duplicate
    a_replay_takes_what_is_selected_and_no_more
    two_operators_beside_a_worker_apply_each_letter_once
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
