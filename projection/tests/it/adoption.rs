//! Rows that the application wrote itself: taken over by their own user's events, and never
//! touched by anybody else's.

use clerk_sync_entity::users;
use clerk_sync_projection::ProjectionConfig;

use crate::{clerk::user, database::Db};

on_both_databases! {
    an_unmanaged_rows_address_is_never_taken,
    every_claimant_of_an_unmanaged_rows_address_waits_for_itself,
    a_stale_claim_on_an_unmanaged_rows_address_is_stale,
    the_retry_succeeds_after_the_unmanaged_rows_own_event,
    the_unmanaged_rows_own_event_in_the_same_batch_makes_way,
    an_adopted_row_is_taken_over_with_its_id,
    an_adopted_row_keeps_its_address_against_an_older_claimant,
    a_delete_of_an_adopted_row_removes_it,
}

#[tokio::test]
async fn a_row_without_a_clerk_id_is_never_touched() {
    let db = Db::postgres().await;
    db.alter(r#"ALTER TABLE users ALTER "clerkId" DROP NOT NULL"#)
        .await;
    db.execute(
        r#"INSERT INTO users (id, email, "updatedAt") VALUES ('x', 'a@a.example', '2026-01-01')"#,
    )
    .await;
    let batch = [user("a").created("m1"), user("b").created("m2")];
    assert_eq!(db.apply(&batch).await, ["retry: email_taken", "created"]);
    let still = r#"SELECT count(*) FROM users WHERE id = 'x' AND email = 'a@a.example'"#;
    assert_eq!(db.number(still).await, 1);
}

async fn theirs(db: &Db) -> users::Model {
    db.user("user_theirs").await.unwrap()
}

async fn an_unmanaged_rows_address_is_never_taken(db: &Db) {
    db.application_writes("x", "user_theirs", "b@a.example")
        .await;
    let before = theirs(db).await;
    let batch = ["a", "b", "c"].map(|name| user(name).created(&format!("m{name}")));
    assert_eq!(
        db.apply(&batch).await,
        ["created", "retry: email_taken", "created"]
    );
    assert_eq!(theirs(db).await, before);
    assert_eq!(db.user("user_b").await, None);
    assert!(
        !db.versions().await.contains_key("user_b"),
        "it can be applied later"
    );
    // However new the claim is.
    let newer = user("b").at(1_000_000);
    assert_eq!(
        db.apply(&[newer.updated("m4")]).await,
        ["retry: email_taken"]
    );
    assert_eq!(theirs(db).await, before);
}

async fn every_claimant_of_an_unmanaged_rows_address_waits_for_itself(db: &Db) {
    db.application_writes("x", "user_theirs", "shared@a.example")
        .await;
    let claimant = |name: &str, at: i64| user(name).email("shared@a.example").at(at);
    let batch = [
        claimant("a", 1).created("m1"),
        user("b").created("m2"),
        claimant("c", 2).created("m3"),
        // Both events of one user: the older one claims nothing of anybody.
        user("d").created("m4"),
        claimant("d", 3).updated("m5"),
    ];
    let taken = "retry: email_taken";
    assert_eq!(
        db.apply(&batch).await,
        [taken, "created", taken, "created", taken]
    );
    let expected = [
        "user_b b@a.example",
        "user_d d@a.example",
        "user_theirs shared@a.example",
    ];
    assert_eq!(db.addresses().await, expected);
}

async fn a_stale_claim_on_an_unmanaged_rows_address_is_stale(db: &Db) {
    db.apply(&[user("a").email("own@a.example").at(2).created("m2")])
        .await;
    db.application_writes("x", "user_theirs", "shared@a.example")
        .await;
    let old = user("a").email("shared@a.example").at(1);
    assert_eq!(db.apply(&[old.created("m1")]).await, ["stale"]);
    let batch = [old.updated("m3"), user("b").created("m4")];
    assert_eq!(db.apply(&batch).await, ["stale", "created"]);
}

async fn the_retry_succeeds_after_the_unmanaged_rows_own_event(db: &Db) {
    db.application_writes("x", "user_theirs", "shared@a.example")
        .await;
    let claim = user("a").email("shared@a.example").at(1).created("m1");
    assert_eq!(
        db.apply(std::slice::from_ref(&claim)).await,
        ["retry: email_taken"]
    );
    let own = user("theirs").email("own@a.example");
    assert_eq!(db.apply(&[own.updated("m2")]).await, ["updated"]);
    assert_eq!(db.apply(&[claim]).await, ["created"]);
    let expected = ["user_a shared@a.example", "user_theirs own@a.example"];
    assert_eq!(db.addresses().await, expected);

    // Its own event need not free the address: from then on the row is ours, and the newer claim
    // is right.
    db.application_writes("y", "user_others", "more@a.example")
        .await;
    let claim = user("b").email("more@a.example").at(5).created("m3");
    assert_eq!(
        db.apply(std::slice::from_ref(&claim)).await,
        ["retry: email_taken"]
    );
    db.apply(&[user("others").email("more@a.example").at(4).signed_in("m4")])
        .await;
    assert_eq!(db.apply(&[claim]).await, ["created"]);
    assert_eq!(db.addresses().await[1], "user_b more@a.example");
}

async fn the_unmanaged_rows_own_event_in_the_same_batch_makes_way(db: &Db) {
    for (name, own_event_first) in [("a", true), ("b", false)] {
        let (shared, own) = (
            format!("{name}.shared@a.example"),
            format!("{name}.own@a.example"),
        );
        db.application_writes(name, &format!("user_their{name}"), &shared)
            .await;
        let mut batch = [
            user(&format!("their{name}"))
                .email(&own)
                .at(1)
                .updated(&format!("{name}1")),
            user(name).email(&shared).at(2).created(&format!("{name}2")),
        ];
        let mut expected = ["updated", "created"];
        if !own_event_first {
            batch.reverse();
            expected.reverse();
        }
        assert_eq!(db.apply(&batch).await, expected);
        assert_eq!(
            db.user(&format!("user_{name}")).await.unwrap().email,
            shared
        );
        assert_eq!(
            db.user(&format!("user_their{name}")).await.unwrap().email,
            own
        );
    }
}

async fn an_adopted_row_is_taken_over_with_its_id(db: &Db) {
    db.application_writes("theirs", "user_a", "old@a.example")
        .await;
    db.execute(
        r#"INSERT INTO projects (id, "userId", name, "updatedAt")
                  VALUES ('p', 'theirs', 'Kitchen', '2026-01-01 00:00:00')"#,
    )
    .await;
    let projection = db.configured(ProjectionConfig {
        initial_credits: 10,
        ..ProjectionConfig::default()
    });
    let a = user("a");
    assert_eq!(
        db.apply_by(&projection, &[a.created("m1")]).await,
        ["updated"]
    );
    assert_eq!(db.rows().await, [a.row()]);
    assert_eq!(db.users().await[0].id, "theirs");
    assert_eq!(db.number("SELECT count(*) FROM projects").await, 1);
    assert_eq!(
        db.credits().await,
        [],
        "its credits are the application's affair"
    );
}

async fn an_adopted_row_keeps_its_address_against_an_older_claimant(db: &Db) {
    db.application_writes("x", "user_a", "shared@a.example")
        .await;
    let owner = user("a").email("shared@a.example").at(2);
    let older = user("b").email("shared@a.example").at(1);
    let batch = [owner.updated("m2"), older.created("m1")];
    assert_eq!(db.apply(&batch).await, ["updated", "created"]);
    let expected = [
        "user_a shared@a.example",
        "user_b user_b@reassigned.invalid",
    ];
    assert_eq!(db.addresses().await, expected);
}

async fn a_delete_of_an_adopted_row_removes_it(db: &Db) {
    db.application_writes("x", "user_a", "shared@a.example")
        .await;
    let batch = [
        user("a").at(1).deleted("m1"),
        user("b").email("shared@a.example").at(2).created("m2"),
    ];
    assert_eq!(db.apply(&batch).await, ["deleted", "created"]);
    assert_eq!(db.addresses().await, ["user_b shared@a.example"]);
}
