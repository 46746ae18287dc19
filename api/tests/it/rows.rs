//! What the answer says, and what becomes of the row.

use clerk_sync_entity::bookmarks;
use clerk_sync_projection::{ProjectionConfig, change::Rules};
use clerk_sync_stand_in::{Endpoint, Failure};
use serde_json::{Value, json};

use crate::{database::Home, on_both, rig::Rig};

const AT: &str = "'2026-01-02 03:04:05.678'";

async fn a_row_has_prismas_names_and_forms(home: Home) {
    let rig = Rig::start(home).await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    rig.clerk.change(&id, |user| {
        user.insert("first_name".into(), "Maren".into());
        user.insert("last_name".into(), json!(null));
        user.insert("image_url".into(), "https://img.example/a.png".into());
        user.insert("created_at".into(), 1_700_000_000_005_i64.into());
        user.insert("updated_at".into(), 1_780_000_000_120_i64.into());
    });
    let answer = rig.me(&id).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
    let key = answer.body["id"].as_str().unwrap().to_owned();
    assert_eq!(key.len(), 25, "a cuid");
    assert_eq!(
        answer.body,
        json!({
            "id": key, "clerkId": id, "email": "maren@harbour-labs.example", "name": "Maren",
            "imageUrl": "https://img.example/a.png",
            "createdAt": "2023-11-14T22:13:20.005Z", "updatedAt": "2026-05-28T20:26:40.120Z",
            "credits": 0, "projects": 0, "designs": 0,
        })
    );

    let (home, stranger) = (&rig.home, "cstranger0000000000000000");
    home.run(&format!(
        r#"INSERT INTO users ("id", "clerkId", "email", "updatedAt")
           VALUES ('{stranger}', 'user_stranger', 's@example.com', {AT})"#
    ))
    .await;
    for (number, owner) in [&key, &key, stranger].into_iter().enumerate() {
        for (table, columns, values) in [
            ("credits", r#", "amount""#, format!(", {}", 10 + number)),
            ("projects", r#", "name""#, ", 'a'".to_owned()),
            ("designs", "", String::new()),
        ] {
            home.run(&format!(
                r#"INSERT INTO {table} ("id", "userId", "updatedAt"{columns})
                   VALUES ('{table}{number}', '{owner}', {AT}{values})"#
            ))
            .await;
        }
    }
    home.run(&format!(
        r#"INSERT INTO projects ("id", "userId", "updatedAt", "name") VALUES ('p', '{key}', {AT}, 'b')"#
    ))
    .await;
    let body = rig.me(&id).await.body;
    assert_eq!(
        [&body["credits"], &body["projects"], &body["designs"]],
        [21, 3, 2]
    );
}

async fn tables_that_the_application_does_not_have_are_null(home: Home) {
    for table in ["images", "designs", "projects", "credits"] {
        home.run(&format!("DROP TABLE {table}")).await;
    }
    let rig = Rig::start(home).await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    let body = rig.me(&id).await.body;
    assert_eq!(body["clerkId"], id);
    for name in ["credits", "projects", "designs"] {
        assert_eq!(body[name], Value::Null);
    }
}

async fn me_asks_clerk_only_when_there_is_no_row_and_sync_always(home: Home) {
    let rig = Rig::start(home).await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    let made = rig.me(&id).await;
    assert_eq!((made.status, made.header("age")), (200, "0"));
    rig.clerk.change(&id, |user| {
        user.insert("first_name".into(), "Somebody".into());
        user.insert("last_name".into(), "Else".into());
    });
    let held = rig.me(&id).await;
    assert_eq!((held.status, held.header("age")), (200, ""));
    assert_eq!(held.body, made.body);
    assert_eq!(rig.clerk.requests(Endpoint::User), 1);

    let synced = rig.sync(&id).await;
    assert_eq!(synced.status, 200);
    assert_eq!(synced.body["name"], "Somebody Else");
    assert_eq!(synced.body["id"], made.body["id"]);
    assert_eq!(rig.clerk.requests(Endpoint::User), 2);
    assert_eq!(rig.me(&id).await.body, synced.body);
}

async fn a_sync_that_is_older_than_the_row_changes_nothing(home: Home) {
    let rig = Rig::start(home).await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    // What a webhook brought already, and the Backend API does not say yet.
    let mut newer: Value = serde_json::from_str(&rig.clerk.user(&id).unwrap()).unwrap();
    newer["first_name"] = "Newer".into();
    newer["last_name"] = json!(null);
    newer["updated_at"] = (newer["updated_at"].as_i64().unwrap() + 5_000).into();
    rig.webhook("user.updated", &newer.to_string()).await;
    let answer = rig.sync(&id).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["name"], "Newer");
    assert_eq!(rig.clerk.requests(Endpoint::User), 1);
}

async fn a_deleted_user_is_not_revived(home: Home) {
    let rig = Rig::start(home).await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    assert_eq!(rig.me(&id).await.status, 200);
    let gone = json!({ "id": id, "deleted": true, "object": "user" });
    rig.webhook("user.deleted", &gone.to_string()).await;
    // The Backend API is behind.
    rig.sync(&id).await.refused(404, "user_deleted");
    rig.me(&id).await.refused(404, "user_deleted");
    assert_eq!(rig.home.number("SELECT COUNT(*) FROM users").await, 0);
}

/// Right after a sign-up, Clerk's word may be behind.
async fn of_whom_nothing_is_here_a_404_makes_nothing(home: Home) {
    let rig = Rig::start(home).await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    let user = rig.clerk.user(&id).unwrap();
    assert!(rig.clerk.remove(&id));
    rig.me(&id).await.refused(404, "user_unknown");
    rig.sync(&id).await.refused(404, "user_unknown");
    let verdict = rig.webhook("user.created", &user).await;
    assert_eq!(verdict, "Applied(Created)");
    assert_eq!(rig.me(&id).await.body["clerkId"], id);
}

async fn a_row_is_not_deleted_on_one_404(home: Home) {
    let rig = Rig::start(home).await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    assert_eq!(rig.sync(&id).await.status, 200);
    rig.clerk.fail_next(1, Failure::NotFound);
    let answer = rig.sync(&id).await;
    assert_eq!((answer.status, &answer.body["clerkId"]), (200, &json!(id)));
    assert_eq!(rig.clerk.requests(Endpoint::User), 3);
    // A 404 about something else is not about the user.
    rig.clerk.fail_next(1, Failure::Status(404, None));
    rig.sync(&id).await.refused(502, "clerk_answer");
    assert_eq!(rig.me(&id).await.status, 200);
}

async fn a_user_whom_clerk_has_no_more_is_gone_for_good(home: Home) {
    let rig = Rig::start(home).await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    let user = rig.clerk.user(&id).unwrap();
    assert_eq!(rig.sync(&id).await.status, 200);
    assert!(rig.clerk.remove(&id));
    // The row is there until somebody asks.
    assert_eq!(rig.me(&id).await.status, 200);
    rig.sync(&id).await.refused(404, "user_deleted");
    assert_eq!(rig.home.number("SELECT COUNT(*) FROM users").await, 0);
    // The webhook of the sign-up comes late.
    let verdict = rig.webhook("user.created", &user).await;
    assert_eq!(verdict, "Applied(Stale)");
    let asked = rig.clerk.requests(Endpoint::User);
    rig.me(&id).await.refused(404, "user_deleted");
    assert_eq!(rig.clerk.requests(Endpoint::User), asked, "it is known");
}

async fn tokens_of_another_instance_bring_nobody(home: Home) {
    let rig = Rig::start(home).await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    // As a command has made sure, which ran before.
    let instance = rig.clerk.settings().instance_id.clone();
    for (rows, refused) in [("ins_production", true), (&instance, false)] {
        rig.projection
            .set_bookmark(bookmarks::INSTANCE, Some(rows))
            .await
            .unwrap();
        let answer = rig.me(&id).await;
        if refused {
            answer.refused(502, "wrong_instance");
            assert_eq!(rig.clerk.requests(Endpoint::User), 0);
        } else {
            assert_eq!(answer.status, 200);
        }
    }
}

#[tokio::test]
async fn tokens_of_another_instance_than_the_configured_bring_nobody() {
    let rules = Rules {
        instance_id: Some("ins_production".to_owned()),
        ..Rules::default()
    };
    let config = ProjectionConfig {
        rules,
        ..ProjectionConfig::default()
    };
    let rig = Rig::with(Home::sqlite().await, &["--sync-floor", "0s"], config).await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    rig.me(&id).await.refused(502, "wrong_instance");
    assert_eq!(rig.clerk.requests(Endpoint::User), 0);
    assert_eq!(rig.home.number("SELECT COUNT(*) FROM users").await, 0);
}

/// As behind PgBouncer in transaction mode, or with Prisma's `?schema=`: every transaction begins
/// with a word to the session.
#[tokio::test]
async fn a_session_that_must_be_told_first_is_told() {
    let mut home = Home::postgres().await;
    home.db = clerk_sync_projection::database::open(&home.url, 4, false)
        .await
        .unwrap();
    assert!(home.db.opening().is_some());
    let rig = Rig::start(home).await;
    let id = rig.clerk.sign_up("maren@harbour-labs.example");
    assert_eq!(rig.me(&id).await.body["clerkId"], id);
    assert_eq!(rig.sync(&id).await.body["credits"], 0);
    assert!(rig.clerk.remove(&id));
    rig.sync(&id).await.refused(404, "user_deleted");
    rig.me(&id).await.refused(404, "user_deleted");
}

on_both! {
    a_row_has_prismas_names_and_forms
    tables_that_the_application_does_not_have_are_null
    me_asks_clerk_only_when_there_is_no_row_and_sync_always
    a_sync_that_is_older_than_the_row_changes_nothing
    a_deleted_user_is_not_revived
    of_whom_nothing_is_here_a_404_makes_nothing
    a_row_is_not_deleted_on_one_404
    a_user_whom_clerk_has_no_more_is_gone_for_good
    tokens_of_another_instance_bring_nobody
}
