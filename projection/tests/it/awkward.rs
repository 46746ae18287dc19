//! The deliveries that today's handlers get wrong, each with its right end: no retry for nothing,
//! no stale value, nobody back from the dead, no user lost.

use clerk_sync_pipeline::Event;

use crate::{
    clerk::{User, event, user},
    database::{Db, Row},
};

on_both_databases! {
    awkward_deliveries_end_right,
}

/// Deliveries in the order of their arrival, what becomes of each, and who is there afterwards.
struct Case {
    name: &'static str,
    deliveries: Vec<(Event, &'static str)>,
    end: Vec<Row>,
}

fn case(
    name: &'static str,
    deliveries: impl Into<Vec<(Event, &'static str)>>,
    end: &[&User],
) -> Case {
    Case {
        name,
        deliveries: deliveries.into(),
        end: end.iter().map(|user| user.row()).collect(),
    }
}

#[expect(clippy::too_many_lines, reason = "a table, one case after the other")]
fn cases() -> Vec<Case> {
    let a = user("a");
    let edited = user("a").named("Edited").at(1);
    let again = user("a").named("Edited again").at(2);
    let bare = user("a").without_email();
    let gone = user("a").at(9);
    let b = user("b");
    // An address that A had: A moves on, B takes it.
    let a_moved = user("a").email("new@a.example").at(1);
    let b_took = user("b").email("a@a.example").at(2);
    // A and B swap.
    let a_swapped = user("a").email("b@a.example").at(3);
    let b_swapped = user("b").email("a@a.example").at(4);
    vec![
        case(
            "the same svix-id again (created)",
            [(a.created("m1"), "created"), (a.created("m1"), "duplicate")],
            &[&a],
        ),
        case(
            "an old updated redelivered after a newer one",
            [
                (a.created("m1"), "created"),
                (edited.updated("m2"), "updated"),
                (again.updated("m3"), "updated"),
                (edited.updated("m2"), "duplicate"),
            ],
            &[&again],
        ),
        case(
            "two updates out of order",
            [
                (a.created("m1"), "created"),
                (again.updated("m3"), "updated"),
                (edited.updated("m2"), "stale"),
            ],
            &[&again],
        ),
        case(
            "updated before created",
            [
                (edited.updated("m2"), "created"),
                (a.created("m1"), "stale"),
            ],
            &[&edited],
        ),
        case(
            "created redelivered after updated",
            [
                (a.created("m1"), "created"),
                (edited.updated("m2"), "updated"),
                (a.created("m1"), "duplicate"),
            ],
            &[&edited],
        ),
        case(
            "created sent once more, by a new id, after updated",
            [
                (a.created("m1"), "created"),
                (edited.updated("m2"), "updated"),
                (a.created("m3"), "stale"),
            ],
            &[&edited],
        ),
        case(
            "created redelivered after deleted",
            [
                (a.created("m1"), "created"),
                (gone.deleted("m2"), "deleted"),
                (a.created("m1"), "duplicate"),
                (a.created("m3"), "stale"),
            ],
            &[],
        ),
        case(
            "a late updated after deleted",
            [
                (a.created("m1"), "created"),
                (gone.deleted("m3"), "deleted"),
                (edited.updated("m2"), "stale"),
            ],
            &[],
        ),
        case(
            "deleted before created",
            [(gone.deleted("m2"), "deleted"), (a.created("m1"), "stale")],
            &[],
        ),
        case(
            "deleted for an unknown user",
            [(gone.deleted("m1"), "deleted")],
            &[],
        ),
        case(
            "deleted again",
            [
                (a.created("m1"), "created"),
                (gone.deleted("m2"), "deleted"),
                (gone.deleted("m2"), "duplicate"),
                (gone.deleted("m3"), "stale"),
            ],
            &[],
        ),
        case(
            "a user without an email",
            [(bare.created("m1"), "dead: missing_email")],
            &[],
        ),
        case(
            "a user without an email gets one later",
            [
                (bare.created("m1"), "dead: missing_email"),
                (edited.updated("m2"), "created"),
                (bare.updated("m3"), "stale"),
            ],
            &[&edited],
        ),
        case(
            "a user loses its email",
            [
                (a.created("m1"), "created"),
                (bare.clone().at(1).updated("m2"), "dead: missing_email"),
                (b.created("m3"), "created"),
            ],
            &[&a, &b],
        ),
        case(
            "an email moves from A to B, A first",
            [
                (a.created("m1"), "created"),
                (b.created("m2"), "created"),
                (a_moved.updated("m3"), "updated"),
                (b_took.updated("m4"), "updated"),
            ],
            &[&a_moved, &b_took],
        ),
        case(
            "an email moves from A to B, B first",
            [
                (a.created("m1"), "created"),
                (b.created("m2"), "created"),
                (b_took.updated("m4"), "updated"),
                (a_moved.updated("m3"), "updated"),
            ],
            &[&a_moved, &b_took],
        ),
        case(
            "A and B swap emails",
            [
                (a.created("m1"), "created"),
                (b.created("m2"), "created"),
                (a_swapped.updated("m3"), "updated"),
                (b_swapped.updated("m4"), "updated"),
            ],
            &[&a_swapped, &b_swapped],
        ),
        case(
            "A and B swap emails, and nothing was known of them",
            [
                (b_swapped.updated("m4"), "created"),
                (a.created("m1"), "created"),
                (a_swapped.updated("m3"), "updated"),
                (b.created("m2"), "stale"),
            ],
            &[&a_swapped, &b_swapped],
        ),
        case(
            "A's deleted is late, B signs up with A's email",
            [
                (a.created("m1"), "created"),
                (b_took.created("m3"), "created"),
                (gone.deleted("m2"), "deleted"),
            ],
            &[&b_took],
        ),
        case(
            "A's deleted never arrives before A's older events",
            [
                (b_took.created("m3"), "created"),
                (a.created("m1"), "created"),
                (gone.deleted("m2"), "deleted"),
            ],
            &[&b_took],
        ),
        case(
            "an event of an unknown type",
            [(
                event(
                    "m1",
                    "user.evaporated",
                    r#"{"type":"user.evaporated","data":{"id":"user_a"}}"#,
                ),
                "ignored",
            )],
            &[],
        ),
        case(
            "a NUL in the name",
            [
                (user("a").named("\0").created("m1"), "dead: invalid_text"),
                (b.created("m2"), "created"),
            ],
            &[&b],
        ),
        case(
            "an event without data",
            [
                (
                    event("m1", "user.created", r#"{"type":"user.created"}"#),
                    "dead: malformed",
                ),
                (b.created("m2"), "created"),
            ],
            &[&b],
        ),
        case(
            "a body that is not JSON",
            [(event("m1", "unparsable", "{"), "dead: malformed")],
            &[],
        ),
        case(
            "emails that differ by case only are two users",
            [
                (user("a").email("x@a.example").created("m1"), "created"),
                (user("b").email("X@a.example").created("m2"), "created"),
            ],
            &[
                &user("a").email("x@a.example"),
                &user("b").email("X@a.example"),
            ],
        ),
    ]
}

/// Each case as it arrives; then all of it in one batch, which ends the same. Where the database
/// is away, or the table locked: see `weather`. The same svix-id at eight workers at once: see
/// `workers`.
async fn awkward_deliveries_end_right(db: &Db) {
    for Case {
        name,
        deliveries,
        end,
    } in cases()
    {
        db.wipe().await;
        for (event, expected) in &deliveries {
            let told = db.apply(std::slice::from_ref(event)).await;
            assert_eq!(told, [*expected], "{name}: {}", event.id);
        }
        assert_eq!(db.rows().await, end, "{name}");

        db.wipe().await;
        let batch: Vec<Event> = deliveries.into_iter().map(|(event, _)| event).collect();
        for told in db.apply(&batch).await {
            assert!(!told.starts_with("retry"), "{name}, in one batch: {told}");
        }
        assert_eq!(db.rows().await, end, "{name}, in one batch");
    }
}
