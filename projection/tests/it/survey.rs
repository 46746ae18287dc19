//! What is there, compared with what Clerk says, and nothing written; and what is remembered of the
//! whole.

use clerk_sync_entity::bookmarks;
use clerk_sync_pipeline::{Millis, queue::Reason};
use clerk_sync_projection::{Listed, Snapshot, Standing};

use crate::{
    clerk::{START, User, user},
    database::Db,
};

on_both_databases! {
    how_each_row_stands_to_what_clerk_says,
    an_address_that_moved_on_is_no_difference,
    rows_are_listed_in_pages_with_whether_they_are_ours,
    the_first_instance_is_remembered_and_no_other,
    the_instance_of_events_is_noted_once,
    bookmarks_are_put_found_and_removed,
}

async fn standing(db: &Db, user: &User) -> Standing {
    let json = user.json();
    let asked_at = Millis(START + 86_400_000);
    let told = [Snapshot::Present {
        user: &json,
        asked_at,
    }];
    let before = (db.users().await, db.versions().await);
    let standings = db.projection().compare(&told).await.unwrap();
    assert_eq!((db.users().await, db.versions().await), before);
    standings.into_iter().next().unwrap()
}

async fn gone(db: &Db, clerk_id: &str) -> Standing {
    let told = [Snapshot::Gone { clerk_id }];
    db.projection().compare(&told).await.unwrap().remove(0)
}

async fn how_each_row_stands_to_what_clerk_says(db: &Db) {
    let [a, b, c, d] = ["a", "b", "c", "d"].map(user);
    assert_eq!(standing(db, &a).await, Standing::Missing);
    assert_eq!(
        standing(db, &user("n").without_email()).await,
        Standing::MissingEmail
    );
    let unreadable = standing(db, &a.clone().named("\0")).await;
    assert!(
        matches!(unreadable, Standing::Refused(failure) if failure.reason == Reason::InvalidText)
    );
    assert_eq!(gone(db, "user_a").await, Standing::Current);

    let sent = [&a, &b, &c, &d].map(|user| user.clone().at(1).created(user.id()));
    db.apply(&sent).await;
    db.apply(&[d.deleted("m")]).await;
    db.execute(r#"UPDATE users SET name = 'Theirs' WHERE "clerkId" = 'user_b'"#)
        .await;
    db.execute(r#"DELETE FROM users WHERE "clerkId" = 'user_c'"#)
        .await;
    db.application_writes("x", "user_x", "x@a.example").await;
    for (user, at, expected) in [
        (&a, 0, Standing::Newer),
        (&a, 1, Standing::Current),
        (&a, 2, Standing::Stale),
        (&b, 1, Standing::Stale),
        (&b, 0, Standing::Newer),
        (&c, 1, Standing::Missing),
        (&d, 9, Standing::Buried),
        (&user("x"), 0, Standing::Unmanaged),
    ] {
        assert_eq!(
            standing(db, &user.clone().at(at)).await,
            expected,
            "{} at {at}",
            user.id()
        );
    }
    for (clerk_id, expected) in [
        ("user_a", Standing::Ghost),
        ("user_c", Standing::Current),
        ("user_d", Standing::Current),
        ("user_x", Standing::Unmanaged),
    ] {
        assert_eq!(gone(db, clerk_id).await, expected, "{clerk_id}");
    }
}

async fn an_address_that_moved_on_is_no_difference(db: &Db) {
    let (first, second) = (
        user("a").email("s@a.example").at(1),
        user("b").email("s@a.example").at(2),
    );
    db.apply(&[first.updated("m1"), second.updated("m2")]).await;
    assert_eq!(standing(db, &first).await, Standing::Current);
    // Nobody has it: then it is one.
    db.apply(&[user("b").at(3).updated("m3")]).await;
    assert_eq!(standing(db, &first).await, Standing::Stale);
}

async fn rows_are_listed_in_pages_with_whether_they_are_ours(db: &Db) {
    db.apply(&["a", "b", "d"].map(|name| user(name).created(name)))
        .await;
    db.application_writes("x", "user_c", "c@a.example").await;
    let projection = db.projection();
    let mut listed = Vec::new();
    let mut after = String::new();
    loop {
        let page = projection.rows_after(&after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after.clone_from(&last.clerk_id);
        listed.extend(page);
    }
    let expected = [("a", true), ("b", true), ("c", false), ("d", true)];
    let expected = expected.map(|(name, managed)| Listed {
        clerk_id: format!("user_{name}"),
        managed,
    });
    assert_eq!(listed, expected);
    assert_eq!(projection.sample(1).await.unwrap(), ["user_a", "user_d"]);
    // Whoever made the row, and also without one; but of Clerk's ids alone.
    db.application_writes("y", "userXy", "y@a.example").await;
    db.execute(r#"DELETE FROM users WHERE "clerkId" = 'user_b'"#)
        .await;
    assert_eq!(
        projection.sample(9).await.unwrap(),
        ["user_a", "user_b", "user_c", "user_d"]
    );
}

async fn the_first_instance_is_remembered_and_no_other(db: &Db) {
    let projection = db.projection();
    let remembered = || projection.bookmark(bookmarks::FIRST_INSTANCE);
    assert_eq!(remembered().await.unwrap(), None);
    for id in ["ins_first", "ins_second"] {
        projection.note_instance(id).await.unwrap();
        assert_eq!(remembered().await.unwrap().as_deref(), Some("ins_first"));
    }
}

async fn the_instance_of_events_is_noted_once(db: &Db) {
    let projection = db.projection();
    db.apply_by(&projection, &[user("a").created("m1")]).await;
    let remembered = projection
        .bookmark(bookmarks::FIRST_INSTANCE)
        .await
        .unwrap();
    assert_eq!(
        remembered.as_deref(),
        Some("ins_37dGaoGwOSfyBmSM0pBr10zx7PA")
    );
    // It is not asked for again, and events go on without it.
    db.alter(match db.kind {
        clerk_sync_projection::database::Kind::Postgres => {
            "ALTER TABLE clerk_sync.bookmarks RENAME TO gone"
        }
        clerk_sync_projection::database::Kind::Sqlite => {
            "ALTER TABLE clerk_sync_bookmarks RENAME TO gone"
        }
    })
    .await;
    for (projection, id) in [(projection, "m2"), (db.projection(), "m3")] {
        let told = db.apply_by(&projection, &[user(id).created(id)]).await;
        assert_eq!(told, ["created"]);
    }
    db.alter(match db.kind {
        clerk_sync_projection::database::Kind::Postgres => {
            "ALTER TABLE clerk_sync.gone RENAME TO bookmarks"
        }
        clerk_sync_projection::database::Kind::Sqlite => {
            "ALTER TABLE gone RENAME TO clerk_sync_bookmarks"
        }
    })
    .await;
}

async fn bookmarks_are_put_found_and_removed(db: &Db) {
    let projection = db.projection();
    for value in ["one", "two"] {
        projection
            .set_bookmark(bookmarks::BACKFILL, Some(value))
            .await
            .unwrap();
        let found = projection.bookmark(bookmarks::BACKFILL).await.unwrap();
        assert_eq!(found.as_deref(), Some(value));
    }
    projection
        .set_bookmark(bookmarks::BACKFILL, None)
        .await
        .unwrap();
    assert_eq!(
        projection.bookmark(bookmarks::BACKFILL).await.unwrap(),
        None
    );
}
