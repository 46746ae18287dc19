//! An event that can never be applied, in the middle of a batch: the neighbours commit, and the
//! one is told why, without its payload.

use clerk_sync_pipeline::Event;
use clerk_sync_projection::{MissingEmail, ProjectionConfig, change::Rules, database::Kind};
use serde_json::json;

use crate::{
    clerk::{User, event, user},
    database::Db,
};

on_both_databases! {
    a_value_no_database_takes_is_poison_for_its_own_event,
    a_body_that_cannot_be_read_is_poison_for_its_own_event,
    a_check_of_the_application_is_poison_for_its_own_event,
    a_column_the_application_demands_is_poison_for_its_own_event,
    a_unique_index_of_the_application_is_told_and_tried_again,
    a_user_without_an_address_is_refused_only_when_it_is_the_newest,
    a_user_without_an_address_gets_a_placeholder_when_that_is_wanted,
    several_failures_in_one_batch_are_told_apart,
    an_event_of_another_instance_is_poison_for_its_own_event,
}

/// Applies the event between two good ones; returns what became of it.
async fn between_good_ones(db: &Db, poison: Event) -> String {
    db.wipe().await;
    let id = poison.id.as_str().to_owned();
    let batch = [user("a").created("m1"), poison, user("z").created("m9")];
    let [before, told, after]: [String; 3] = db.apply(&batch).await.try_into().unwrap();
    assert_eq!(
        [before, after],
        ["created", "created"],
        "neighbours of {id}"
    );
    assert_eq!(
        db.rows().await,
        [user("a").row(), user("z").row()],
        "with {id}"
    );
    assert!(
        !db.versions().await.contains_key("user_p"),
        "{id} left a version"
    );
    // Alone it fares no better.
    assert_eq!(db.apply(&batch[1..2]).await, [told.as_str()]);
    told
}

async fn a_value_no_database_takes_is_poison_for_its_own_event(db: &Db) {
    let long = format!("{}@a.example", "a".repeat(3_000));
    let poisons = [
        (user("p").named("Ho\0lt"), "dead: invalid_text"),
        (
            user("p").with("image_url", "https://\0".into()),
            "dead: invalid_text",
        ),
        (user("p").email("p\0@a.example"), "dead: invalid_text"),
        (user("p").email(&long), "dead: text_too_long"),
        (
            user("p").with("id", format!("user_{}", "p".repeat(3_000)).into()),
            "dead: text_too_long",
        ),
        (
            user("p").with("created_at", (-1).into()),
            "dead: invalid_timestamp",
        ),
        (
            user("p").with("created_at", i64::MAX.into()),
            "dead: invalid_timestamp",
        ),
        (user("p").changed_at(i64::MIN), "dead: invalid_timestamp"),
    ];
    for (poison, expected) in poisons {
        assert_eq!(between_good_ones(db, poison.created("m5")).await, expected);
        assert_eq!(
            between_good_ones(db, poison.signed_in("m5")).await,
            expected
        );
    }
    // What is long but fits, and what is strange but text, is kept as it is.
    db.wipe().await;
    let odd = user("odd")
        .email(&format!("{}@a.example", "ä".repeat(500)))
        .named(&"long ".repeat(20_000))
        .with(
            "first_name",
            "\u{1f9d1}\u{200d}\u{1f4bb}\u{7f}\u{1}\u{fffd}'\"\\;--".into(),
        );
    assert_eq!(db.apply(&[odd.created("m1")]).await, ["created"]);
    assert_eq!(db.rows().await, [odd.row()]);
}

async fn a_body_that_cannot_be_read_is_poison_for_its_own_event(db: &Db) {
    let bodies = [
        "",
        "secret@a.example",
        r#"{"type":"user.created"}"#,
        r#"{"type":"user.created","data":null}"#,
        r#"{"type":"user.created","data":{"id":"user_p"}}"#,
        r#"{"type":"user.deleted","data":{"deleted":true}}"#,
        r#"{"type":"user.deleted","data":{"id":""}}"#,
        r#"{"data":{"id":"user_p"}}"#,
        r#"[{"type":"user.created"}]"#,
    ];
    for body in bodies {
        let poison = event("m5", "user.created", body);
        assert_eq!(
            between_good_ones(db, poison).await,
            "dead: malformed",
            "{body}"
        );
    }
}

async fn a_check_of_the_application_is_poison_for_its_own_event(db: &Db) {
    db.alter(match db.kind {
        Kind::Postgres => {
            "ALTER TABLE users ADD CONSTRAINT no_poison CHECK (name <> 'Secret Poison')"
        }
        // The one way to add a check to a table that exists.
        Kind::Sqlite => {
            "ALTER TABLE users ADD COLUMN extra TEXT CHECK (name IS NOT 'Secret Poison')"
        }
    })
    .await;
    let poison = user("p").named("Poison").created("m5");
    assert_eq!(
        between_good_ones(db, poison.clone()).await,
        "dead: check_violation"
    );

    // A user that is there stays as it was, and its later events are applied.
    db.wipe().await;
    db.apply(&[user("p").created("m1")]).await;
    let poison = user("p").named("Poison").at(1).updated("m2");
    assert_eq!(db.apply(&[poison]).await, ["dead: check_violation"]);
    assert_eq!(db.rows().await, [user("p").row()]);
    assert_eq!(
        db.apply(&[user("p").at(2).updated("m3")]).await,
        ["updated"]
    );
}

async fn a_column_the_application_demands_is_poison_for_its_own_event(db: &Db) {
    db.alter(match db.kind {
        Kind::Postgres => r#"ALTER TABLE users ALTER "imageUrl" SET NOT NULL"#,
        // NULL compares to NULL, which a check lets pass: NOT NULL by a generated column.
        Kind::Sqlite => {
            r#"ALTER TABLE users ADD COLUMN demanded TEXT NOT NULL AS ("imageUrl") VIRTUAL"#
        }
    })
    .await;
    let poison = user("p").with("image_url", json!(null)).created("m5");
    assert_eq!(
        between_good_ones(db, poison).await,
        "dead: not_null_violation"
    );
}

async fn a_unique_index_of_the_application_is_told_and_tried_again(db: &Db) {
    db.alter("CREATE UNIQUE INDEX one_of_each ON users (name)")
        .await;
    let twice = user("p").named("a").created("m5");
    assert_eq!(
        between_good_ones(db, twice.clone()).await,
        "retry: unique_violation"
    );
    // Time cures it.
    db.apply(&[user("a").named("renamed").at(1).updated("m2")])
        .await;
    assert_eq!(db.apply(&[twice]).await, ["created"]);
}

async fn a_user_without_an_address_is_refused_only_when_it_is_the_newest(db: &Db) {
    let missing = "dead: missing_email";
    assert_eq!(
        between_good_ones(db, user("p").without_email().created("m5")).await,
        missing
    );
    assert_eq!(
        between_good_ones(db, user("p").without_email().signed_in("m5")).await,
        missing
    );

    // A user that lost its address stays as it was; an older event is stale, not refused.
    let (with, without) = (user("p").at(2), user("p").without_email());
    db.wipe().await;
    assert_eq!(db.apply(&[with.updated("m2")]).await, ["created"]);
    assert_eq!(
        db.apply(&[without.clone().at(3).updated("m3")]).await,
        [missing]
    );
    assert_eq!(
        db.apply(&[without.clone().at(1).updated("m1")]).await,
        ["stale"]
    );
    assert_eq!(db.rows().await, [with.row()]);
    // An address added later makes all well.
    let again = user("p").email("again@a.example").at(4);
    assert_eq!(db.apply(&[again.updated("m4")]).await, ["updated"]);
    assert_eq!(
        db.apply(&[without.clone().at(3).updated("m3")]).await,
        ["stale"]
    );

    // In one batch with a newer event or a delete, in both orders. In the order of time the event
    // is the newest for a moment: it may be refused or stale, nothing more.
    for (batch, end) in [
        (
            [without.clone().updated("m1"), with.updated("m2")],
            vec![with.row()],
        ),
        (
            [with.updated("m2"), without.clone().updated("m1")],
            vec![with.row()],
        ),
        ([without.clone().updated("m1"), with.deleted("m2")], vec![]),
        ([with.deleted("m2"), without.clone().updated("m1")], vec![]),
    ] {
        db.wipe().await;
        let told = db.apply(&batch).await;
        for (event, told) in batch.iter().zip(&told) {
            if event.id.as_str() == "m1" {
                assert!([missing, "stale"].contains(&told.as_str()), "{told}");
            } else {
                assert!(["created", "deleted"].contains(&told.as_str()), "{told}");
            }
        }
        assert_eq!(db.rows().await, end);
    }
    // One that arrives after the delete.
    assert_eq!(db.apply(&[without.at(9).updated("m9")]).await, ["stale"]);
}

async fn a_user_without_an_address_gets_a_placeholder_when_that_is_wanted(db: &Db) {
    let projection = db.configured(ProjectionConfig {
        rules: Rules {
            missing_email: MissingEmail::Placeholder,
            ..Rules::default()
        },
        ..ProjectionConfig::default()
    });
    let phone_only = user("p").without_email();
    assert_eq!(
        db.apply_by(&projection, &[phone_only.created("m1")]).await,
        ["created"]
    );
    assert_eq!(db.addresses().await, ["user_p user_p@no-email.invalid"]);
    // It comes and goes as any other address, and frees the one it had.
    let with = user("p").at(1);
    assert_eq!(
        db.apply_by(&projection, &[with.updated("m2")]).await,
        ["updated"]
    );
    assert_eq!(db.rows().await, [with.row()]);
    let batch = [
        phone_only.clone().at(2).updated("m3"),
        user("b").email("p@a.example").at(3).created("m4"),
    ];
    assert_eq!(
        db.apply_by(&projection, &batch).await,
        ["updated", "created"]
    );
    let expected = ["user_b p@a.example", "user_p user_p@no-email.invalid"];
    assert_eq!(db.addresses().await, expected);
}

async fn several_failures_in_one_batch_are_told_apart(db: &Db) {
    db.application_writes("x", "user_theirs", "taken@a.example")
        .await;
    db.alter("CREATE UNIQUE INDEX one_of_each ON users (name)")
        .await;
    let good = |name: &str| user(name).created(&format!("m-{name}"));
    let batch = [
        good("a"),
        user("p1").without_email().created("m1"),
        good("b"),
        user("p2").named("Ho\0lt").created("m2"),
        user("p3").email("taken@a.example").created("m3"),
        good("c"),
        user("p4").named("c").created("m4"),
        good("a"),
        event("m5", "unparsable", "}"),
        good("d"),
    ];
    let expected = [
        "created",
        "dead: missing_email",
        "created",
        "dead: invalid_text",
        "retry: email_taken",
        "created",
        "retry: unique_violation",
        "duplicate",
        "dead: malformed",
        "created",
    ];
    assert_eq!(db.apply(&batch).await, expected);
    let mut end = ["a", "b", "c", "d"].map(|name| user(name).row()).to_vec();
    end.retain(|row| row.clerk_id != "user_theirs");
    let mut rows = db.rows().await;
    rows.retain(|row| row.clerk_id != "user_theirs");
    assert_eq!(rows, end);
}

async fn an_event_of_another_instance_is_poison_for_its_own_event(db: &Db) {
    let projection = db.configured(ProjectionConfig {
        rules: Rules {
            instance_id: Some("ins_37dGaoGwOSfyBmSM0pBr10zx7PA".to_owned()),
            ..Rules::default()
        },
        ..ProjectionConfig::default()
    });
    let mut other = user("p").created("m2");
    let body = String::from_utf8(other.body.to_vec()).unwrap();
    other.body = body
        .replace("ins_37dGaoGwOSfyBmSM0pBr10zx7PA", "ins_development")
        .into();
    let batch = [user("a").created("m1"), other, user("z").created("m3")];
    let expected = ["created", "dead: wrong_instance", "created"];
    assert_eq!(db.apply_by(&projection, &batch).await, expected);
}

/// A trigger on `users` that refuses a row named `Secret Poison` with this statement.
async fn refuse_poison(db: &Db, statement: &str) {
    db.alter(&format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.name = 'Secret Poison' THEN {statement}; END IF; RETURN NEW; END $$;
         CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON users
             FOR EACH ROW EXECUTE FUNCTION refuse();"
    ))
    .await;
}

#[tokio::test]
async fn a_trigger_of_the_application_that_refuses_is_tried_again() {
    let db = Db::postgres().await;
    // Its text is the application's, and may repeat the row.
    refuse_poison(&db, "RAISE EXCEPTION 'no % <%>', NEW.name, NEW.email").await;
    let poison: User = user("p").named("Poison");
    let refused = "retry: database_error";
    assert_eq!(between_good_ones(&db, poison.created("m5")).await, refused);
    db.alter("DROP TRIGGER refuse ON users").await;
    assert_eq!(db.apply(&[poison.created("m5")]).await, ["created"]);
}

#[tokio::test]
async fn a_trigger_that_refuses_on_sqlite_is_tried_again() {
    let db = Db::sqlite().await;
    db.alter(
        "CREATE TRIGGER refuse BEFORE INSERT ON users WHEN NEW.name = 'Secret Poison'
         BEGIN SELECT RAISE(ABORT, 'no secret@a.example'); END",
    )
    .await;
    let poison = user("p").named("Poison").created("m5");
    let told = between_good_ones(&db, poison).await;
    assert!(told.starts_with("retry: "), "{told}");
}

#[tokio::test]
async fn a_value_for_which_the_application_made_a_column_too_short_is_poison() {
    let db = Db::postgres().await;
    db.alter("ALTER TABLE users ALTER name TYPE varchar(20)")
        .await;
    let poison = user("p").named(&"long ".repeat(20)).created("m5");
    assert_eq!(between_good_ones(&db, poison).await, "dead: data_refused");
}

#[tokio::test]
async fn a_value_that_does_not_fit_an_index_of_the_application_is_poison() {
    let db = Db::postgres().await;
    db.alter("CREATE INDEX by_name ON users (name)").await;
    // Not to be compressed.
    let noise = (0..9_000_u32).map(|n| char::from_u32(0x4e00 + n).unwrap());
    let poison = user("p").named(&noise.collect::<String>()).created("m5");
    assert_eq!(between_good_ones(&db, poison).await, "dead: data_refused");
}

#[tokio::test]
async fn the_weather_in_mid_batch_keeps_what_was_decided() {
    let db = Db::postgres().await;
    refuse_poison(&db, "RAISE EXCEPTION 'disk full' USING ERRCODE = '53100'").await;
    db.alter("ALTER TABLE users ADD CONSTRAINT no_name CHECK (name <> 'Secret Refused')")
        .await;
    // Together the batch fails by the check, as its row is the first; alone, the third event
    // meets the weather.
    let events = [
        user("a").named("Refused").created("m1"),
        user("b").created("m2"),
        user("c").named("Poison").created("m3"),
        user("d").created("m4"),
    ];
    let projection = db.projection();
    let mut batch = projection.read(&events);
    projection.apply(&mut batch).await.unwrap_err();
    assert_eq!(db.addresses().await, ["user_b b@a.example"]);
    db.alter("DROP TRIGGER refuse ON users").await;
    projection.apply(&mut batch).await.unwrap();
    let told: Vec<String> = batch
        .into_verdicts()
        .into_iter()
        .map(|(verdict, _)| format!("{verdict:?}"))
        .collect();
    assert!(told[0].starts_with("DeadLetter"), "{told:?}");
    assert_eq!(
        told[1..],
        ["Applied(Created)"; 3],
        "nothing was applied twice"
    );
}
