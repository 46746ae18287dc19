//! `list` and `show`: what there is, for people and for scripts.

use serde_json::json;

use super::{
    on_both_queues,
    site::{On, Site, assert_fits},
};
use crate::harness::{
    SOON,
    clerk::{Letter, created, event, user},
    eventually,
};

on_both_queues! {
    what_there_is_is_told_in_80_columns_and_to_scripts
}

fn no_address(id: &str) -> Letter {
    let mut nobody = user(id, "", 0);
    nobody["email_addresses"] = json!([]);
    nobody["primary_email_address_id"] = json!(null);
    event("user.created", &nobody)
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
