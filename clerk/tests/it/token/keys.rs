//! Clerk's `keys`: where the key comes from, and how often it is asked for.

use std::{sync::Arc, time::Duration};

use clerk_sync_clerk::token::{Jwks, Keys, PublicKey, Session, Timing, TokenError, Verifier};
use futures_util::future::join_all;
use serde_json::json;

use super::{
    at, expected,
    publisher::{Asked, Publisher},
    reason,
    signer::{NOW, Signer, claims},
};

fn verifier(jwks: Jwks) -> Verifier {
    Verifier::new(Keys::from(jwks), expected())
}

async fn verify(verifier: &Verifier, token: &str) -> Result<Session, TokenError> {
    #[expect(clippy::cast_precision_loss, reason = "it is far below 2^53")]
    verifier.verify(token, at(NOW as f64)).await
}

fn token() -> String {
    Signer::instance().token(&claims())
}

/// A token that names another key.
fn stranger(kid: &str) -> String {
    let mut header = Signer::instance().header();
    header["kid"] = kid.into();
    Signer::instance().sign(&header, &claims())
}

#[test]
fn a_blank_key_is_none() {
    for text in ["", "  \n", "\"\""] {
        let error = PublicKey::from_pem(text).unwrap_err();
        assert!(error.contains("no CLERK_JWT_KEY"), "{error}");
    }
    assert_eq!(TokenError::LocalKeyMissing.code(), "jwk-local-missing");
}

#[test]
fn without_any_setting_there_is_no_key() {
    let error = Keys::resolve(None, None, None).unwrap_err();
    assert_eq!(error.code(), "jwk-failed-to-resolve");
}

#[tokio::test]
async fn a_pem_key_is_taken_with_its_header_lines_and_without() {
    let signer = Signer::instance();
    let pem = signer.pem();
    for text in [
        pem.clone(),
        pem.replace('\n', "\r\n"),
        pem.replace('\n', "\\n"),
        format!("\"{}\"", pem.replace('\n', "\\n")),
        pem.replace('\n', ""),
        signer.pem_body(),
        signer.pem_body().replace('\n', ""),
    ] {
        let key = PublicKey::from_pem(&text).unwrap();
        let verifier = Verifier::new(Keys::Local(key), expected());
        assert_eq!(reason(&verify(&verifier, &token()).await), "signed in");
    }
}

#[test]
fn what_is_no_public_key_is_refused_by_name_and_not_repeated() {
    let cut = &Signer::instance().pem_body().replace('\n', "")[..200];
    for (text, says) in [
        (
            "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----",
            "private key",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nc2VjcmV0\n-----END CERTIFICATE-----",
            "certificate",
        ),
        ("sk_live_c2VjcmV0", "secret key"),
        ("-----BEGIN PUBLIC KEY-----\nc2VjcmV0", "not base64"),
        ("c2VjcmV0", "not an RSA public key"),
        (cut, "not an RSA public key"),
    ] {
        let error = PublicKey::from_pem(text).unwrap_err();
        assert!(
            error.contains(says) && error.contains("dashboard"),
            "{error}"
        );
        assert!(!error.contains("c2VjcmV0"), "{error}");
    }
}

#[tokio::test]
async fn keys_come_from_the_backend_api_with_the_secret_key() {
    let publisher = Publisher::start(Signer::instance().jwks()).await;
    let verifier = verifier(publisher.of_backend("sk_test_deadbeef"));
    assert_eq!(reason(&verify(&verifier, &token()).await), "signed in");
    let asked = Asked {
        path: "/v1/jwks".to_owned(),
        authorization: Some("Bearer sk_test_deadbeef".to_owned()),
        version: Some("2026-05-12".to_owned()),
    };
    assert_eq!(publisher.asked(), [asked]);
}

#[tokio::test]
async fn keys_come_from_the_frontend_api_without_a_secret() {
    let publisher = Publisher::start(Signer::instance().jwks()).await;
    let verifier = verifier(publisher.of_frontend());
    assert_eq!(reason(&verify(&verifier, &token()).await), "signed in");
    let asked = Asked {
        path: "/__clerk/.well-known/jwks.json".to_owned(),
        authorization: None,
        version: None,
    };
    assert_eq!(publisher.asked(), [asked]);
}

#[tokio::test]
async fn a_key_is_kept_by_its_kid() {
    let publisher = Publisher::start(Signer::instance().jwks()).await;
    let verifier = verifier(publisher.of_backend("sk_test_a"));
    for _ in 0..5 {
        assert_eq!(reason(&verify(&verifier, &token()).await), "signed in");
    }
    assert_eq!(publisher.asked().len(), 1);
}

#[tokio::test]
async fn many_who_wait_make_one_fetch() {
    let publisher = Publisher::start(Signer::instance().jwks()).await;
    publisher.delay(Duration::from_millis(100));
    let verifier = Arc::new(verifier(publisher.of_backend("sk_test_a")));
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let verifier = verifier.clone();
            tokio::spawn(async move { reason(&verify(&verifier, &token()).await) })
        })
        .collect();
    for waiter in waiting {
        assert_eq!(waiter.await.unwrap(), "signed in");
    }
    assert_eq!(publisher.asked().len(), 1);
}

#[tokio::test]
async fn many_who_wait_for_a_failure_make_one_fetch_too() {
    let publisher = Publisher::start(json!({})).await;
    publisher.answer(401, "");
    publisher.delay(Duration::from_millis(300));
    let timing = Timing {
        rest: Duration::ZERO,
        ..Timing::default()
    };
    let verifier = verifier(publisher.of_backend("sk_test_a").with_timing(timing));
    let token = token();
    let outcomes = join_all((0..50).map(|_| verify(&verifier, &token))).await;
    for outcome in &outcomes {
        assert_eq!(reason(outcome), "secret-key-invalid");
    }
    assert_eq!(publisher.asked().len(), 1);
}

#[tokio::test]
async fn a_fetch_goes_on_when_who_asked_first_goes_away() {
    let publisher = Publisher::start(Signer::instance().jwks()).await;
    publisher.delay(Duration::from_millis(200));
    let verifier = Arc::new(verifier(publisher.of_backend("sk_test_a")));
    let ask = || {
        let verifier = verifier.clone();
        tokio::spawn(async move { reason(&verify(&verifier, &token()).await) })
    };
    let leader = ask();
    while publisher.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    let waiter = ask();
    tokio::task::yield_now().await;
    leader.abort();
    assert_eq!(waiter.await.unwrap(), "signed in");
    assert_eq!(publisher.asked().len(), 1);
}

#[tokio::test]
async fn strangers_who_hang_up_make_us_ask_no_more_often() {
    let publisher = Publisher::start(Signer::instance().jwks()).await;
    publisher.delay(Duration::from_millis(200));
    let verifier = Arc::new(verifier(publisher.of_backend("sk_test_a")));
    for number in 0..20 {
        let verifier = verifier.clone();
        let token = stranger(&format!("ins_{number}"));
        let stranger = tokio::spawn(async move { reason(&verify(&verifier, &token).await) });
        tokio::time::sleep(Duration::from_millis(20)).await;
        stranger.abort();
    }
    assert_eq!(publisher.asked().len(), 1);
    assert_eq!(reason(&verify(&verifier, &token()).await), "signed in");
    assert_eq!(publisher.asked().len(), 1);
}

#[tokio::test]
async fn who_is_signed_in_stays_so_for_a_while_when_clerk_is_away() {
    for (grace, says) in [(3600, "signed in"), (0, "jwk-remote-failed-to-load")] {
        let publisher = Publisher::start(Signer::instance().jwks()).await;
        let timing = Timing {
            lifetime: Duration::ZERO,
            grace: Duration::from_secs(grace),
            ..Timing::default()
        };
        let verifier = verifier(publisher.of_backend("sk_test_a").with_timing(timing));
        assert_eq!(reason(&verify(&verifier, &token()).await), "signed in");
        publisher.answer(500, "");
        // Asked in vain, and again without being asked.
        for _ in 0..2 {
            assert_eq!(reason(&verify(&verifier, &token()).await), says);
        }
        assert_eq!(publisher.asked().len(), 6);
        let unknown = verify(&verifier, &stranger("ins_whatever")).await;
        assert_eq!(reason(&unknown), "jwk-remote-failed-to-load");
    }
}

#[tokio::test]
async fn five_attempts_are_made_while_clerk_is_away() {
    let publisher = Publisher::start(json!({})).await;
    publisher.answer(503, "something awful happened");
    let verifier = verifier(publisher.of_backend("sk_test_a"));
    let outcome = verify(&verifier, &token()).await;
    assert_eq!(reason(&outcome), "jwk-remote-failed-to-load");
    assert!(outcome.unwrap_err().is_ours());
    assert_eq!(publisher.asked().len(), 5);
    // Whoever comes right after has the same answer, and asks nobody.
    let outcome = verify(&verifier, &token()).await;
    assert_eq!(reason(&outcome), "jwk-remote-failed-to-load");
    assert_eq!(publisher.asked().len(), 5);
    // And it mends by itself.
    publisher.answer(200, &Signer::instance().jwks().to_string());
    tokio::time::timeout(Duration::from_secs(30), async {
        while verify(&verifier, &token()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_secret_key_that_is_refused_is_said_at_once() {
    let publisher = Publisher::start(json!({})).await;
    publisher.answer(
        401,
        r#"{"errors":[{"code":"clerk_key_invalid","message":"no"}]}"#,
    );
    let verifier = verifier(publisher.of_backend("sk_test_a"));
    let outcome = verify(&verifier, &token()).await;
    assert_eq!(reason(&outcome), "secret-key-invalid");
    assert_eq!(publisher.asked().len(), 1);
}

#[tokio::test]
async fn a_kid_that_is_unknown_is_refused_without_listing_those_that_are_known() {
    let publisher = Publisher::start(Signer::instance().jwks()).await;
    let verifier = verifier(publisher.of_backend("sk_test_a"));
    let error = verify(&verifier, &stranger("ins_whatever"))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "jwk-kid-mismatch");
    let said = format!("{error} {error:?}");
    assert!(!said.contains(Signer::instance().kid), "{said}");
    assert!(!said.contains("ins_whatever"), "{said}");
    // Nor does a token without one make us ask.
    let mut header = Signer::instance().header();
    header.as_object_mut().unwrap().remove("kid").unwrap();
    let nameless = Signer::instance().sign(&header, &claims());
    let outcome = verify(&verifier, &nameless).await;
    assert_eq!(reason(&outcome), "jwk-kid-mismatch");
    assert_eq!(publisher.asked().len(), 1);
}

#[tokio::test]
async fn a_new_key_is_found_and_strangers_cannot_make_us_ask_without_end() {
    let publisher = Publisher::start(Signer::other().jwks()).await;
    let timing = |floor| Timing {
        floor,
        ..Timing::default()
    };
    let eager = verifier(
        publisher
            .of_backend("sk_test_a")
            .with_timing(timing(Duration::ZERO)),
    );
    assert_eq!(reason(&verify(&eager, &token()).await), "jwk-kid-mismatch");
    let both = json!({ "keys": [Signer::other().jwk(), Signer::instance().jwk()] });
    publisher.answer(200, &both.to_string());
    assert_eq!(reason(&verify(&eager, &token()).await), "signed in");
    assert_eq!(publisher.asked().len(), 2);

    let calm = verifier(publisher.of_backend("sk_test_a"));
    for number in 0..20 {
        let outcome = verify(&calm, &stranger(&format!("ins_{number}"))).await;
        assert_eq!(reason(&outcome), "jwk-kid-mismatch");
    }
    assert_eq!(publisher.asked().len(), 3);
}

#[tokio::test]
async fn a_stranger_while_clerk_is_away_takes_no_key_from_the_others() {
    let publisher = Publisher::start(Signer::instance().jwks()).await;
    let timing = Timing {
        floor: Duration::ZERO,
        ..Timing::default()
    };
    let verifier = verifier(publisher.of_backend("sk_test_a").with_timing(timing));
    assert_eq!(reason(&verify(&verifier, &token()).await), "signed in");
    publisher.answer(500, "");
    let outcome = verify(&verifier, &stranger("ins_whatever")).await;
    assert_eq!(reason(&outcome), "jwk-remote-failed-to-load");
    assert_eq!(reason(&verify(&verifier, &token()).await), "signed in");
}

#[tokio::test]
async fn keys_are_fetched_again_when_their_time_is_over() {
    let publisher = Publisher::start(Signer::instance().jwks()).await;
    let timing = Timing {
        lifetime: Duration::ZERO,
        ..Timing::default()
    };
    let verifier = verifier(publisher.of_backend("sk_test_a").with_timing(timing));
    assert_eq!(reason(&verify(&verifier, &token()).await), "signed in");
    // The instance has another key now: the old one is worth nothing.
    publisher.answer(200, &Signer::other().jwks().to_string());
    let outcome = verify(&verifier, &token()).await;
    assert_eq!(reason(&outcome), "jwk-kid-mismatch");
    assert_eq!(publisher.asked().len(), 2);
}

#[tokio::test]
async fn no_key_is_served_to_the_holder_of_another_secret() {
    let first = Publisher::start(Signer::instance().jwks()).await;
    let second = Publisher::start(Signer::other().jwks()).await;
    let one = verifier(first.of_backend("sk_test_one"));
    let two = verifier(second.of_backend("sk_test_two"));
    assert_eq!(reason(&verify(&one, &token()).await), "signed in");
    assert_eq!(reason(&verify(&two, &token()).await), "jwk-kid-mismatch");
    assert_eq!(second.asked().len(), 1, "it asked for itself");
}

#[tokio::test]
async fn an_answer_without_signing_keys_is_a_failure() {
    let mut encrypts = Signer::instance().jwk();
    encrypts["use"] = "enc".into();
    let other_kind = json!({ "kty": "EC", "kid": "a", "crv": "P-256", "x": "AA", "y": "AA" });
    for keys in [
        json!({ "keys": [] }),
        json!({ "keys": [encrypts, other_kind] }),
        json!([]),
    ] {
        let publisher = Publisher::start(keys).await;
        let verifier = verifier(publisher.of_frontend());
        let outcome = verify(&verifier, &token()).await;
        assert_eq!(reason(&outcome), "jwk-remote-failed-to-load");
    }
}
