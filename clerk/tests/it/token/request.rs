//! Clerk's `verify` and `request`: what wins when several things are wrong, and classes of tokens.

use clerk_sync_clerk::token::{Expected, Keys, Verifier};
use serde_json::json;

use super::{
    at, expected,
    publisher::Publisher,
    reason,
    signer::{NOW, Signer, claims},
    verify, with,
};

const MACHINE: &str = "cl_B7d4PD333AAA";

fn category(cat: &str) -> String {
    let mut header = Signer::instance().header();
    header["cat"] = cat.into();
    Signer::instance().sign(&header, &claims())
}

#[tokio::test]
async fn a_wrong_signature_wins_over_a_wrong_claim() {
    let expired = Signer::other().token(&with("exp", NOW - 1000));
    let outcome = verify(&expired, expected()).await;
    assert_eq!(reason(&outcome), "token-invalid-signature");
}

#[tokio::test]
async fn a_machines_token_is_refused_before_a_key_is_looked_for() {
    let publisher = Publisher::start(Signer::instance().jwks()).await;
    let verifier = Verifier::new(Keys::from(publisher.of_backend("sk_test_a")), expected());
    #[expect(clippy::cast_precision_loss, reason = "it is far below 2^53")]
    let outcome = verifier.verify(&category(MACHINE), at(NOW as f64)).await;
    assert_eq!(reason(&outcome), "token-invalid");
    assert!(publisher.asked().is_empty());
}

#[tokio::test]
async fn only_a_sessions_category_is_taken() {
    for (cat, says) in [
        ("cl_B7d4PD111AAA", "signed in"),
        ("cl_I7d4PD111III", "signed in"),
        (MACHINE, "token-invalid"),
        // A JWT template: the application fills it as it likes.
        ("cl_B7d4PD222AAA", "token-type-mismatch"),
        ("cl_unheard_of", "token-type-mismatch"),
        ("", "token-type-mismatch"),
    ] {
        assert_eq!(
            reason(&verify(&category(cat), expected()).await),
            says,
            "{cat}"
        );
    }
    let mut header = Signer::instance().header();
    header["cat"] = json!(7);
    let odd = Signer::instance().sign(&header, &claims());
    assert_eq!(
        reason(&verify(&odd, expected()).await),
        "token-type-mismatch"
    );
    header.as_object_mut().unwrap().remove("cat").unwrap();
    let older = Signer::instance().sign(&header, &claims());
    assert_eq!(reason(&verify(&older, expected()).await), "signed in");
}

#[tokio::test]
async fn an_oauth_access_token_is_not_a_session() {
    for typ in ["at+jwt", "application/at+jwt"] {
        let mut header = Signer::instance().header();
        header["typ"] = typ.into();
        let token = Signer::instance().sign(&header, &claims());
        // Not even where somebody has configured the type.
        let asked_for = Expected {
            header_types: vec![typ.to_owned()],
            ..expected()
        };
        for expected in [expected(), asked_for] {
            let outcome = verify(&token, expected).await;
            assert_eq!(reason(&outcome), "token-type-mismatch");
        }
    }
}

#[tokio::test]
async fn a_machine_as_subject_is_not_a_session() {
    let token = Signer::instance().token(&with("sub", "mch_2vYVtestTESTtestTESTtestTESTtest"));
    let outcome = verify(&token, expected()).await;
    assert_eq!(reason(&outcome), "token-type-mismatch");
}

#[tokio::test]
async fn each_refusal_has_its_own_reason() {
    let parties = || Expected {
        authorized_parties: vec!["https://somewhere.example".to_owned()],
        ..expected()
    };
    let token = Signer::instance().token(&claims());
    let (signed, _) = token.rsplit_once('.').unwrap();
    let bad_signature = format!("{signed}.{}", "A".repeat(342));
    for (token, expected, says) in [
        (token.clone(), parties(), "token-invalid-authorized-parties"),
        (
            Signer::instance().token(&with("exp", NOW - 60)),
            expected(),
            "token-expired",
        ),
        (bad_signature, expected(), "token-invalid-signature"),
        (format!("{signed}."), expected(), "token-invalid-signature"),
        ("test_header_token".to_owned(), expected(), "token-invalid"),
    ] {
        assert_eq!(reason(&verify(&token, expected).await), says);
    }
}
