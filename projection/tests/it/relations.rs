//! What belongs to a user: removed with it, granted to it, or in the way of its removal.

use clerk_sync_entity::{credits, designs, images, projects};
use clerk_sync_projection::{Projection, ProjectionConfig};

use crate::{clerk::user, database::Db};

on_both_databases! {
    a_delete_takes_what_belongs_to_the_user,
    a_delete_the_application_refuses_is_put_off_and_its_neighbours_commit,
    credits_are_granted_once_with_the_first_insert,
    no_credits_are_granted_by_default,
    credits_are_granted_to_every_new_user_of_a_batch_and_to_nobody_else,
}

async fn a_delete_takes_what_belongs_to_the_user(db: &Db) {
    db.apply(&[user("a").created("m1"), user("b").created("m2")])
        .await;
    for owner in db.users().await {
        let (id, at) = (owner.id, "'2026-01-01 00:00:00'");
        db.execute(&format!(
            r#"INSERT INTO projects (id, "userId", name, "updatedAt") VALUES ('p{id}', '{id}', '', {at});
               INSERT INTO designs (id, "userId", "projectId", "updatedAt") VALUES ('d{id}', '{id}', 'p{id}', {at});
               INSERT INTO images (id, url, "projectId") VALUES ('i{id}', '', 'p{id}');
               INSERT INTO images (id, url, "designId") VALUES ('j{id}', '', 'd{id}');
               INSERT INTO credits (id, "userId", amount, "updatedAt") VALUES ('c{id}', '{id}', 5, {at});"#
        ))
        .await;
    }
    assert_eq!(
        db.apply(&[user("a").at(1).deleted("m3")]).await,
        ["deleted"]
    );
    let left = [
        db.count(projects::Entity).await,
        db.count(designs::Entity).await,
        db.count(images::Entity).await,
        db.count(credits::Entity).await,
    ];
    assert_eq!(left, [1, 1, 2, 1], "b keeps its own");
}

async fn a_delete_the_application_refuses_is_put_off_and_its_neighbours_commit(db: &Db) {
    db.alter(
        r#"CREATE TABLE invoices ("userId" TEXT REFERENCES users (id) ON DELETE RESTRICT);
           CREATE TABLE letters ("userId" TEXT REFERENCES users (id) ON DELETE NO ACTION);
           CREATE TABLE debts ("userId" TEXT REFERENCES users (id) DEFERRABLE INITIALLY DEFERRED);"#,
    )
    .await;
    for (table, reason) in [
        ("invoices", "retry: delete_restricted"),
        ("letters", "retry: delete_restricted"),
        // Found out at the commit, where nobody can say which statement it was.
        ("debts", "retry: foreign_key_violation"),
    ] {
        db.wipe().await;
        db.apply(&["a", "b", "c"].map(|name| user(name).created(&format!("m{name}"))))
            .await;
        let id = db.user("user_b").await.unwrap().id;
        db.execute(&format!("INSERT INTO {table} VALUES ('{id}')"))
            .await;

        let refused = user("b").at(1).deleted("m2");
        let batch = [
            user("a").at(1).deleted("m1"),
            refused.clone(),
            user("c").named("Edited").at(1).updated("m3"),
            user("d").created("m4"),
        ];
        let expected = ["deleted", reason, "updated", "created"];
        assert_eq!(db.apply(&batch).await, expected, "{table}");
        assert_eq!(db.rows().await[0], user("b").row());

        // Until then the user lives; then the delete is as final as any.
        let edited = user("b").named("Edited").at(2).updated("m5");
        assert_eq!(db.apply(&[edited]).await, ["updated"]);
        db.execute(&format!("DELETE FROM {table}")).await;
        assert_eq!(db.apply(&[refused]).await, ["deleted"]);
        assert_eq!(db.apply(&[user("b").at(3).updated("m6")]).await, ["stale"]);
        assert_eq!(db.user("user_b").await, None);
    }
}

fn generous(db: &Db) -> Projection {
    db.configured(ProjectionConfig {
        initial_credits: 25,
        ..ProjectionConfig::default()
    })
}

async fn credits_are_granted_once_with_the_first_insert(db: &Db) {
    let projection = generous(db);
    let created = user("a").created("m1");
    // The row is made by whatever arrives first.
    let first = user("a").at(1).signed_in("m2");
    assert_eq!(
        db.apply_by(&projection, std::slice::from_ref(&first)).await,
        ["created"]
    );
    let id = db.users().await[0].id.clone();
    let granted = [(id, 25)];
    assert_eq!(db.credits().await, granted);
    // None for redeliveries, late and later events, or after pruning; spent is spent.
    db.apply_by(
        &projection,
        &[created.clone(), first, user("a").at(2).updated("m3")],
    )
    .await;
    projection
        .prune(chrono::Utc::now() + chrono::TimeDelta::days(1))
        .await
        .unwrap();
    db.apply_by(&projection, &[created, user("a").at(3).updated("m4")])
        .await;
    assert_eq!(db.credits().await, granted);
    db.execute("UPDATE credits SET amount = 0").await;
    db.apply_by(&projection, &[user("a").at(4).updated("m5")])
        .await;
    assert_eq!(db.credits().await[0].1, 0);
    // They go with the user, and do not come back.
    let batch = [user("a").at(5).deleted("m6"), user("a").at(6).updated("m7")];
    db.apply_by(&projection, &batch).await;
    assert_eq!(db.credits().await, []);
}

async fn no_credits_are_granted_by_default(db: &Db) {
    db.apply(&[user("a").created("m1")]).await;
    assert_eq!(db.credits().await, []);
}

async fn credits_are_granted_to_every_new_user_of_a_batch_and_to_nobody_else(db: &Db) {
    let projection = generous(db);
    db.application_writes("adopted", "user_a", "a@a.example")
        .await;
    db.apply(&[user("b").created("m1")]).await;
    let batch = [
        user("a").at(1).updated("m2"),
        user("b").at(1).updated("m3"),
        user("c").created("m4"),
        user("c").at(1).updated("m5"),
        user("d").at(1).deleted("m6"),
        user("e").created("m7"),
    ];
    db.apply_by(&projection, &batch).await;
    let mut expected = Vec::new();
    for name in ["user_c", "user_e"] {
        expected.push((db.user(name).await.unwrap().id, 25));
    }
    expected.sort();
    let mut granted = db.credits().await;
    granted.sort();
    assert_eq!(granted, expected);
}
