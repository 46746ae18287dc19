//! Rule three: an address moves to the newer claimant, in any order, without a retry.

use clerk_sync_pipeline::Event;
use clerk_sync_projection::{Projection, ProjectionConfig};

use crate::{
    clerk::{User, user},
    database::{Db, metrics},
};

on_both_databases! {
    an_address_moves_in_any_order,
    a_swap_of_two_users_ends_right_in_any_order,
    a_rotation_of_three_ends_right_in_any_order,
    an_address_that_was_freed_is_taken_by_another_in_any_order,
    a_sign_up_with_a_deleted_users_address_is_kept_in_any_order,
    an_address_passed_on_and_back_is_its_first_owners_in_any_order,
    the_newer_claimant_takes_the_address_and_the_holder_a_placeholder,
    the_older_claimant_takes_the_placeholder,
    of_several_claimants_in_one_batch_the_newest_has_the_address,
    a_placeholder_lasts_until_the_users_own_newer_event,
    a_claimant_that_lost_to_its_own_newer_version_takes_nothing,
    every_placeholder_is_counted,
}

/// Delivers the events in every order; each order one by one, in one batch, and in two. The end is
/// always the same, and no event is ever put off.
async fn in_any_order(db: &Db, events: &[Event], end: &[User]) {
    let expected: Vec<_> = end.iter().map(User::row).collect();
    for order in orders(events.len()) {
        let delivered: Vec<Event> = order.iter().map(|place| events[*place].clone()).collect();
        for size in [1, events.len().div_ceil(2), events.len()] {
            db.wipe().await;
            for batch in delivered.chunks(size) {
                for verdict in db.apply(batch).await {
                    assert!(
                        !verdict.contains(':'),
                        "{verdict} by {size} of {delivered:?}"
                    );
                }
            }
            assert_eq!(db.rows().await, expected, "by {size} of {delivered:?}");
        }
    }
}

/// Every order of `count` things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for shorter in orders(count - 1) {
        for place in 0..count {
            let mut order = shorter.clone();
            order.insert(place, count - 1);
            all.push(order);
        }
    }
    all
}

async fn an_address_moves_in_any_order(db: &Db) {
    let a = user("a").email("one@a.example");
    let a_moved = user("a").email("two@a.example").at(1);
    let b = user("b").email("one@a.example").at(2);
    let events = [a.created("m1"), a_moved.updated("m2"), b.created("m3")];
    in_any_order(db, &events, &[a_moved, b]).await;
}

async fn a_swap_of_two_users_ends_right_in_any_order(db: &Db) {
    let [a, b] = ["a", "b"].map(user);
    let a_swapped = user("a").email("b@a.example").at(1);
    let b_swapped = user("b").email("a@a.example").at(2);
    let events = [
        a.created("m1"),
        b.created("m2"),
        a_swapped.updated("m3"),
        b_swapped.updated("m4"),
    ];
    in_any_order(db, &events, &[a_swapped, b_swapped]).await;
}

async fn a_rotation_of_three_ends_right_in_any_order(db: &Db) {
    let before = ["a", "b", "c"].map(user);
    let after = [("a", "b", 1), ("b", "c", 2), ("c", "a", 3)]
        .map(|(name, next, at)| user(name).email(&format!("{next}@a.example")).at(at));
    let rotation = [
        after[0].updated("m4"),
        after[1].updated("m5"),
        after[2].updated("m6"),
    ];
    // In one batch, against rows that are there.
    for order in orders(3) {
        db.wipe().await;
        db.apply(&[
            before[0].created("m1"),
            before[1].created("m2"),
            before[2].created("m3"),
        ])
        .await;
        let batch: Vec<Event> = order.iter().map(|place| rotation[*place].clone()).collect();
        assert_eq!(db.apply(&batch).await, ["updated"; 3]);
        assert_eq!(
            db.rows().await,
            [after[0].row(), after[1].row(), after[2].row()]
        );
    }
    // Among themselves.
    in_any_order(db, &rotation, &after).await;
}

async fn an_address_that_was_freed_is_taken_by_another_in_any_order(db: &Db) {
    let a = user("a").email("shared@a.example");
    let a_moved = user("a").email("own@a.example").at(1);
    let b = user("b");
    let b_moved = user("b").email("shared@a.example").at(2);
    let events = [
        a.created("m1"),
        a_moved.updated("m2"),
        b.created("m3"),
        b_moved.updated("m4"),
    ];
    in_any_order(db, &events, &[a_moved, b_moved]).await;
}

async fn a_sign_up_with_a_deleted_users_address_is_kept_in_any_order(db: &Db) {
    let a = user("a").email("shared@a.example");
    let b = user("b").email("shared@a.example").at(2);
    let events = [
        a.created("m1"),
        a.clone().at(1).deleted("m2"),
        b.created("m3"),
        b.clone().at(3).signed_in("m4"),
    ];
    in_any_order(db, &events, &[b.at(3)]).await;
}

async fn an_address_passed_on_and_back_is_its_first_owners_in_any_order(db: &Db) {
    let shared = |name: &str, at: i64| user(name).email("shared@a.example").at(at);
    let own = |name: &str, at: i64| user(name).at(at);
    let events = [
        own("a", 1).updated("m2"),
        shared("b", 2).created("m3"),
        own("b", 3).updated("m4"),
        shared("a", 4).updated("m5"),
    ];
    in_any_order(db, &events, &[shared("a", 4), own("b", 3)]).await;
}

async fn the_newer_claimant_takes_the_address_and_the_holder_a_placeholder(db: &Db) {
    let a = user("a").email("shared@a.example");
    let b = user("b").email("shared@a.example").at(1);
    db.apply(&[a.created("m1")]).await;
    let id = db.users().await[0].id.clone();
    assert_eq!(db.apply(&[b.created("m2")]).await, ["created"]);

    let [holder, claimant] = db.users().await.try_into().unwrap();
    assert_eq!(holder.email, "user_a@reassigned.invalid");
    assert_eq!(
        (holder.id, holder.name),
        (id, a.row().name),
        "the rest of the row stays"
    );
    assert_eq!(claimant.email, "shared@a.example");
}

async fn the_older_claimant_takes_the_placeholder(db: &Db) {
    let a = user("a").email("shared@a.example").at(1);
    let b = user("b").email("shared@a.example").at(2);
    db.apply(&[b.created("m2")]).await;
    assert_eq!(db.apply(&[a.created("m1")]).await, ["created"]);
    let expected = [
        "user_a user_a@reassigned.invalid",
        "user_b shared@a.example",
    ];
    assert_eq!(db.addresses().await, expected);
    // A row of its own that had another address is no better off.
    db.apply(&[user("c").created("m0")]).await;
    let c = user("c").email("shared@a.example").at(1);
    assert_eq!(db.apply(&[c.updated("m3")]).await, ["updated"]);
    assert_eq!(db.addresses().await[2], "user_c user_c@reassigned.invalid");
}

async fn of_several_claimants_in_one_batch_the_newest_has_the_address(db: &Db) {
    let claimant = |name: &str, at: i64| user(name).email("shared@a.example").at(at);
    db.apply(&[claimant("holder", 2).created("m1")]).await;
    let batch = [
        claimant("a", 3),
        claimant("b", 5),
        claimant("c", 4),
        claimant("d", 1),
    ];
    let batch = batch.map(|user| user.created(&format!("m{}", user.id())));
    assert_eq!(db.apply(&batch).await, ["created"; 4]);
    let expected = [
        "user_a user_a@reassigned.invalid",
        "user_b shared@a.example",
        "user_c user_c@reassigned.invalid",
        "user_d user_d@reassigned.invalid",
        "user_holder user_holder@reassigned.invalid",
    ];
    assert_eq!(db.addresses().await, expected);
    // All of them older than the holder.
    let batch = [claimant("e", 1), claimant("f", 2)];
    let batch = batch.map(|user| user.created(&format!("m{}", user.id())));
    db.apply(&batch).await;
    assert_eq!(db.addresses().await[1], "user_b shared@a.example");
}

async fn a_placeholder_lasts_until_the_users_own_newer_event(db: &Db) {
    let a = user("a").email("shared@a.example").at(1);
    let b = user("b").email("shared@a.example").at(2);
    db.apply(&[a.created("m1")]).await;
    db.apply(&[b.created("m2")]).await;
    // The event that was applied, and one older than it, bring nothing back.
    assert_eq!(db.apply(&[a.created("m1")]).await, ["duplicate"]);
    assert_eq!(db.apply(&[a.clone().at(0).updated("m0")]).await, ["stale"]);
    assert_eq!(db.addresses().await[0], "user_a user_a@reassigned.invalid");
    let moved = user("a").email("own@a.example").at(3);
    assert_eq!(db.apply(&[moved.updated("m3")]).await, ["updated"]);
    assert_eq!(db.rows().await, [moved.row(), b.row()]);
    // It may even be the same address, given back.
    let back = user("a").email("shared@a.example").at(4);
    assert_eq!(db.apply(&[back.updated("m4")]).await, ["updated"]);
    let expected = [
        "user_a shared@a.example",
        "user_b user_b@reassigned.invalid",
    ];
    assert_eq!(db.addresses().await, expected);
}

async fn a_claimant_that_lost_to_its_own_newer_version_takes_nothing(db: &Db) {
    let b = user("b").email("shared@a.example").at(1);
    let a_then = user("a").email("shared@a.example").at(2);
    let a_now = user("a").at(3);
    db.apply(&[b.created("m1"), a_now.created("m3")]).await;
    assert_eq!(db.apply(&[a_then.updated("m2")]).await, ["stale"]);
    assert_eq!(db.rows().await, [a_now.row(), b.row()]);
}

async fn every_placeholder_is_counted(db: &Db) {
    let metrics = metrics();
    let projection = Projection::new(
        db.pool.clone(),
        ProjectionConfig::default(),
        metrics.clone(),
    );
    let claimant = |name: &str, at: i64| user(name).email("shared@a.example").at(at);
    let applied = [
        (vec![claimant("b", 2).created("m1")], 0),
        // A newer claimant, an older one, two of which one wins; then one that leaves by itself.
        (vec![claimant("c", 3).created("m2")], 1),
        (vec![claimant("a", 1).created("m3")], 2),
        (
            vec![
                claimant("d", 4).created("m4"),
                claimant("e", 5).created("m5"),
            ],
            4,
        ),
        (
            vec![
                user("e").at(6).updated("m6"),
                claimant("f", 7).created("m7"),
            ],
            4,
        ),
    ];
    for (batch, placeholders) in applied {
        db.apply_by(&projection, &batch).await;
        assert_eq!(metrics.email_reassignments.get(), placeholders, "{batch:?}");
    }
}
