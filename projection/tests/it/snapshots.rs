//! Snapshots that no webhook brought: they obey the three rules, bury no webhook, and mend what
//! somebody else did to a row.

use clerk_sync_pipeline::{
    Millis,
    queue::Reason,
    telemetry::{DbOperation, DbResult, Label as _},
};
use clerk_sync_projection::{
    MissingEmail, Projection, ProjectionConfig, Snapshot, SnapshotOutcome, change::Rules,
};

use crate::{
    clerk::{START, User, user},
    database::{Db, Held, metrics},
};

on_both_databases! {
    a_snapshot_makes_a_row_and_again_changes_nothing,
    a_snapshot_buries_no_webhook_of_its_own_moment,
    a_snapshot_older_than_the_row_changes_nothing,
    a_deleted_user_is_not_revived,
    somebody_who_is_gone_is_remembered_as_gone,
    a_row_that_came_back_after_its_delete_is_removed_again,
    a_row_that_somebody_changed_or_removed_is_mended_and_keeps_its_version,
    a_change_of_this_very_moment_is_not_mended,
    what_a_webhook_told_after_the_question_is_not_undone,
    an_address_that_moved_on_is_not_given_back,
    addresses_move_between_snapshots_by_their_time,
    an_adopted_row_is_taken_over_with_its_id_by_a_snapshot,
    an_unmanaged_rows_address_is_refused_to_a_snapshot_alone,
    one_bad_snapshot_keeps_no_neighbour_back,
    a_user_without_an_address_is_told_and_not_made_up,
    a_snapshot_grants_credits_once,
    no_snapshot_is_in_the_ledger,
    a_page_of_256_is_one_transaction,
}

/// Long after anything that happens in these tests.
const LATER: Millis = Millis(START + 86_400_000);

/// A user as the Backend API has it, asked for at some time.
struct Answer(Vec<u8>, Millis);

impl Answer {
    fn as_snapshot(&self) -> Snapshot<'_> {
        Snapshot::Present {
            user: &self.0,
            asked_at: self.1,
        }
    }
}

fn answer(user: &User) -> Answer {
    Answer(user.json(), LATER)
}

async fn apply_by(projection: &Projection, answers: &[Answer]) -> Vec<SnapshotOutcome> {
    let snapshots: Vec<_> = answers.iter().map(Answer::as_snapshot).collect();
    projection.apply_snapshots(&snapshots).await.unwrap()
}

/// What became of these users' snapshots, in words.
async fn apply(db: &Db, users: &[&User]) -> Vec<String> {
    let answers: Vec<Answer> = users.iter().map(|user| answer(user)).collect();
    in_words(&apply_by(&db.projection(), &answers).await)
}

fn in_words(outcomes: &[SnapshotOutcome]) -> Vec<String> {
    let word = |outcome: &SnapshotOutcome| match outcome {
        SnapshotOutcome::Failed(failure) => format!("failed: {}", failure.reason.as_str()),
        other => format!("{other:?}").to_lowercase(),
    };
    outcomes.iter().map(word).collect()
}

async fn gone(db: &Db, clerk_id: &str) -> Vec<String> {
    let gone = [Snapshot::Gone { clerk_id }];
    in_words(&db.projection().apply_snapshots(&gone).await.unwrap())
}

/// The version of a user's snapshot.
fn undelivered(user: &User) -> Held {
    match user.version("") {
        Held::Version(updated_at, ..) => Held::Version(updated_at, 0, String::new()),
        Held::Tombstone => unreachable!("a user has a version"),
    }
}

async fn a_snapshot_makes_a_row_and_again_changes_nothing(db: &Db) {
    let a = user("a");
    assert_eq!(apply(db, &[&a]).await, ["created"]);
    assert_eq!(db.rows().await, [a.row()]);
    assert_eq!(db.versions().await["user_a"], undelivered(&a));
    let before = db.users().await;
    assert_eq!(apply(db, &[&a]).await, ["current"]);
    assert_eq!(db.users().await, before);
    let newer = a.at(5).named("New");
    assert_eq!(apply(db, &[&newer]).await, ["updated"]);
    assert_eq!(db.rows().await, [newer.row()]);
}

async fn a_snapshot_buries_no_webhook_of_its_own_moment(db: &Db) {
    let a = user("a");
    apply(db, &[&a]).await;
    // Sent without a time: nothing else tells it from the snapshot than that it has an id.
    let webhook = a.clone().sent_at(0);
    assert_eq!(db.apply(&[webhook.updated("m1")]).await, ["updated"]);
    assert_eq!(db.versions().await["user_a"], webhook.version("m1"));
    // And the other way round it keeps its version.
    assert_eq!(apply(db, &[&a]).await, ["current"]);
    assert_eq!(db.versions().await["user_a"], webhook.version("m1"));
}

async fn a_snapshot_older_than_the_row_changes_nothing(db: &Db) {
    let newer = user("a").at(5).named("New");
    db.apply(&[newer.updated("m1")]).await;
    assert_eq!(apply(db, &[&user("a")]).await, ["stale"]);
    assert_eq!(db.rows().await, [newer.row()]);
    // Not even a row that somebody has removed: what is newer will make it.
    db.execute("DELETE FROM users").await;
    assert_eq!(apply(db, &[&user("a")]).await, ["stale"]);
    assert_eq!(db.rows().await, []);
}

async fn a_deleted_user_is_not_revived(db: &Db) {
    let a = user("a");
    db.apply(&[a.created("m1"), a.deleted("m2")]).await;
    for at in [0, 1_000] {
        assert_eq!(apply(db, &[&user("a").at(at)]).await, ["stale"]);
    }
    assert_eq!(db.rows().await, []);
    // Nor by what stands beside it in one batch.
    let (b, alive) = (user("b"), answer(&user("b")));
    let both = [alive.as_snapshot(), Snapshot::Gone { clerk_id: b.id() }];
    let outcomes = db.projection().apply_snapshots(&both).await.unwrap();
    assert_eq!(in_words(&outcomes), ["stale", "deleted"]);
    assert_eq!(db.rows().await, []);
}

async fn somebody_who_is_gone_is_remembered_as_gone(db: &Db) {
    let [a, b] = ["a", "b"].map(user);
    db.apply(&[a.created("m1"), b.created("m2")]).await;
    assert_eq!(gone(db, "user_a").await, ["deleted"]);
    assert_eq!(gone(db, "user_nobody").await, ["deleted"]);
    assert_eq!(gone(db, "user_a").await, ["current"]);
    assert_eq!(db.rows().await, [b.row()]);
    for (id, event) in [("user_a", a), ("user_nobody", user("nobody"))] {
        assert_eq!(db.versions().await[id], Held::Tombstone);
        assert_eq!(db.apply(&[event.at(9).updated(id)]).await, ["stale"]);
    }
}

async fn a_row_that_came_back_after_its_delete_is_removed_again(db: &Db) {
    let a = user("a");
    db.apply(&[a.created("m1"), a.deleted("m2")]).await;
    db.application_writes("x", "user_a", "a@a.example").await;
    assert_eq!(gone(db, "user_a").await, ["deleted"]);
    assert_eq!(db.rows().await, []);
}

async fn a_row_that_somebody_changed_or_removed_is_mended_and_keeps_its_version(db: &Db) {
    let a = user("a");
    let damages = [
        r#"DELETE FROM users WHERE "clerkId" = 'user_a'"#,
        "UPDATE users SET name = 'Theirs'",
        "UPDATE users SET name = NULL",
        r#"UPDATE users SET "imageUrl" = NULL"#,
        "UPDATE users SET email = 'other@a.example'",
        "UPDATE users SET email = 'user_a@reassigned.invalid'",
        r#"UPDATE users SET "createdAt" = '2020-01-01 00:00:00'"#,
    ];
    for (source, held) in [("webhook", a.version("m1")), ("snapshot", undelivered(&a))] {
        db.wipe().await;
        match source {
            "webhook" => drop(db.apply(&[a.created("m1")]).await),
            _ => drop(apply(db, &[&a]).await),
        }
        for damage in damages {
            db.execute(damage).await;
            let expected = if damage.starts_with("DELETE") {
                "created"
            } else {
                "updated"
            };
            assert_eq!(apply(db, &[&a]).await, [expected], "{source}: {damage}");
            assert_eq!(db.rows().await, [a.row()], "{source}: {damage}");
            assert_eq!(db.versions().await["user_a"], held, "{source}: {damage}");
            assert_eq!(apply(db, &[&a]).await, ["current"], "{source}: {damage}");
        }
    }
    // Prisma sets `updatedAt` when the application writes to columns of its own.
    db.execute(r#"UPDATE users SET "updatedAt" = '2027-01-01 00:00:00'"#)
        .await;
    assert_eq!(apply(db, &[&a]).await, ["current"]);
}

async fn a_change_of_this_very_moment_is_not_mended(db: &Db) {
    // Two changes in one millisecond, and somebody asked between the two.
    let (first, second) = (user("a").named("First"), user("a").named("Second"));
    db.apply(&[second.updated("m2")]).await;
    let between = Answer(first.json(), Millis(START + 1));
    let outcomes = apply_by(&db.projection(), &[between]).await;
    assert_eq!(outcomes, [SnapshotOutcome::Stale]);
    assert_eq!(db.rows().await, [second.row()]);
    // Clocks of which one is far off are no reason to mend nothing.
    let long_before = Answer(first.json(), Millis(START - 3_600_000));
    let outcomes = apply_by(&db.projection(), &[long_before]).await;
    assert_eq!(outcomes, [SnapshotOutcome::Updated]);
}

async fn what_a_webhook_told_after_the_question_is_not_undone(db: &Db) {
    // Two changes in one millisecond. The answer took its time, and is from before the second.
    let (first, second) = (user("a").named("First"), user("a").named("Second"));
    let second = second.sent_at(START + 5_000);
    db.apply(&[second.updated("m2")]).await;
    let before = Answer(first.json(), Millis(START + 4_000));
    let outcomes = apply_by(&db.projection(), &[before]).await;
    assert_eq!(outcomes, [SnapshotOutcome::Stale]);
    assert_eq!(db.rows().await, [second.row()]);
    // Of a later question it is the last word.
    let after = Answer(first.json(), Millis(START + 8_000));
    let outcomes = apply_by(&db.projection(), &[after]).await;
    assert_eq!(outcomes, [SnapshotOutcome::Updated]);
    assert_eq!(db.rows().await, [first.row()]);
}

async fn an_address_that_moved_on_is_not_given_back(db: &Db) {
    let shared = "shared@a.example";
    let before = user("a").email(shared).at(1);
    db.apply(&[before.updated("m1")]).await;
    db.apply(&[user("b").email(shared).at(2).updated("m2")])
        .await;
    let placed = [
        "user_a user_a@reassigned.invalid",
        "user_b shared@a.example",
    ];
    assert_eq!(apply(db, &[&before]).await, ["current"]);
    assert_eq!(db.addresses().await, placed);
    // Whatever else is mended.
    db.execute("UPDATE users SET name = NULL").await;
    assert_eq!(apply(db, &[&before]).await, ["updated"]);
    assert_eq!(db.addresses().await, placed);
    assert_eq!(db.users().await[0].name.as_deref(), Some("Secret a"));
}

async fn addresses_move_between_snapshots_by_their_time(db: &Db) {
    let swap = |a: &str, b: &str, at: i64| {
        [
            user("a").email(&format!("{a}@a.example")).at(at),
            user("b").email(&format!("{b}@a.example")).at(at + 1),
        ]
    };
    let [a, b] = swap("one", "two", 1);
    assert_eq!(apply(db, &[&a, &b]).await, ["created", "created"]);
    let [a, b] = swap("two", "one", 3);
    assert_eq!(apply(db, &[&b]).await, ["updated"]);
    let half = ["user_a user_a@reassigned.invalid", "user_b one@a.example"];
    assert_eq!(db.addresses().await, half);
    assert_eq!(apply(db, &[&a]).await, ["updated"]);
    assert_eq!(
        db.addresses().await,
        ["user_a two@a.example", "user_b one@a.example"]
    );
    let [a, b] = swap("one", "two", 5);
    assert_eq!(apply(db, &[&b, &a]).await, ["updated", "updated"]);
    assert_eq!(db.rows().await, [a.row(), b.row()]);
}

async fn an_adopted_row_is_taken_over_with_its_id_by_a_snapshot(db: &Db) {
    db.application_writes("theirs", "user_a", "old@a.example")
        .await;
    let a = user("a");
    assert_eq!(apply(db, &[&a]).await, ["updated"]);
    assert_eq!(db.rows().await, [a.row()]);
    assert_eq!(db.users().await[0].id, "theirs");
    assert_eq!(db.versions().await["user_a"], undelivered(&a));
}

async fn an_unmanaged_rows_address_is_refused_to_a_snapshot_alone(db: &Db) {
    db.application_writes("x", "user_theirs", "b@a.example")
        .await;
    let before = db.user("user_theirs").await;
    let [a, b, c] = ["a", "b", "c"].map(user);
    let outcomes = apply(db, &[&a, &b, &c]).await;
    assert_eq!(outcomes, ["created", "failed: email_taken", "created"]);
    assert_eq!(db.user("user_theirs").await, before);
    assert!(!db.versions().await.contains_key("user_b"));
    // Its own snapshot makes way.
    let theirs = user("theirs").email("own@a.example");
    assert_eq!(apply(db, &[&theirs, &b]).await, ["updated", "created"]);
}

async fn one_bad_snapshot_keeps_no_neighbour_back(db: &Db) {
    let [a, z] = ["a", "z"].map(user);
    let bad = [
        (user("p").named("Ho\0lt").json(), Reason::InvalidText),
        (user("p").changed_at(-1).json(), Reason::InvalidTimestamp),
        (b"{\"id\":\"user_p\"}".to_vec(), Reason::Malformed),
        (b"nothing".to_vec(), Reason::Malformed),
    ];
    for (json, reason) in bad {
        db.wipe().await;
        let answers = [answer(&a), Answer(json, LATER), answer(&z)];
        let outcomes = apply_by(&db.projection(), &answers).await;
        let [
            SnapshotOutcome::Created,
            SnapshotOutcome::Failed(failure),
            SnapshotOutcome::Created,
        ] = &outcomes[..]
        else {
            panic!("{outcomes:?}");
        };
        assert_eq!(failure.reason, reason);
        assert!(!failure.detail.contains("Secret"), "{}", failure.detail);
        assert_eq!(db.rows().await, [a.row(), z.row()]);
    }
    // What only the database finds out.
    db.wipe().await;
    db.alter(match db.kind {
        clerk_sync_projection::database::Kind::Postgres => {
            "ALTER TABLE users ADD CONSTRAINT no_p CHECK (name <> 'Secret p')"
        }
        clerk_sync_projection::database::Kind::Sqlite => {
            "CREATE TRIGGER no_p BEFORE INSERT ON users WHEN NEW.name = 'Secret p'
             BEGIN SELECT RAISE(ABORT, 'no'); END"
        }
    })
    .await;
    let outcomes = apply(db, &[&a, &user("p"), &z]).await;
    assert_eq!([&*outcomes[0], &*outcomes[2]], ["created", "created"]);
    assert!(outcomes[1].starts_with("failed: "), "{}", outcomes[1]);
    assert_eq!(db.rows().await, [a.row(), z.row()]);
}

async fn a_user_without_an_address_is_told_and_not_made_up(db: &Db) {
    let (a, nobody) = (user("a"), user("n").without_email());
    let outcomes = apply(db, &[&a, &nobody]).await;
    assert_eq!(outcomes, ["created", "missingemail"]);
    assert_eq!(db.rows().await, [a.row()]);
    let projection = db.configured(ProjectionConfig {
        rules: Rules {
            missing_email: MissingEmail::Placeholder,
            ..Rules::default()
        },
        ..ProjectionConfig::default()
    });
    let outcomes = apply_by(&projection, &[answer(&nobody)]).await;
    assert_eq!(outcomes, [SnapshotOutcome::Created]);
    assert_eq!(db.rows().await, [a.row(), nobody.row()]);
    // A user who lost the last address is told as such, unless something newer is known.
    let lost = a.without_email().at(5);
    assert_eq!(apply(db, &[&lost]).await, ["missingemail"]);
    db.apply(&[user("a").at(9).updated("m9")]).await;
    assert_eq!(apply(db, &[&lost]).await, ["stale"]);
}

async fn a_snapshot_grants_credits_once(db: &Db) {
    let projection = db.configured(ProjectionConfig {
        initial_credits: 3,
        ..ProjectionConfig::default()
    });
    let a = user("a");
    for _ in 0..2 {
        apply_by(&projection, &[answer(&a)]).await;
        db.apply_by(&projection, &[a.created("m1")]).await;
    }
    let id = db.users().await[0].id.clone();
    assert_eq!(db.credits().await, [(id, 3)]);
}

async fn no_snapshot_is_in_the_ledger(db: &Db) {
    let a = user("a");
    apply(db, &[&a, &user("n").without_email()]).await;
    gone(db, "user_b").await;
    assert!(db.ledger().await.is_empty());
    assert_eq!(db.apply(&[a.created("m1")]).await, ["updated"]);
}

async fn a_page_of_256_is_one_transaction(db: &Db) {
    let metrics = metrics();
    let projection = Projection::new(
        db.pool.clone(),
        ProjectionConfig::default(),
        metrics.clone(),
    );
    let page: Vec<Answer> = (0..256).map(|n| answer(&user(&format!("{n}")))).collect();
    for (pass, expected) in [(1, SnapshotOutcome::Created), (2, SnapshotOutcome::Current)] {
        let outcomes = apply_by(&projection, &page).await;
        assert!(outcomes.iter().all(|outcome| *outcome == expected));
        let batches = metrics
            .db_operations
            .get(DbOperation::ApplyBatch, DbResult::Ok);
        assert_eq!(batches.get(), pass);
        let singles = metrics
            .db_operations
            .get(DbOperation::ApplyOne, DbResult::Ok);
        assert_eq!(singles.get(), 0);
    }
    assert_eq!(db.rows().await.len(), 256);
}
