//! Clerk's `verifyJwt`: signatures, forms, types.

use std::time::Duration;

use clerk_sync_clerk::token::{Expected, Keys, Verifier, clock_skew};
use serde_json::json;

use super::{
    at, expected,
    publisher::Publisher,
    reason,
    signer::{NOW, Signer, USER, claims, part},
    verify, verify_at, with,
};

const EXPIRY: f64 = 1_780_000_060.0;

#[tokio::test]
async fn a_valid_token_is_believed_with_a_jwk() {
    let publisher = Publisher::start(Signer::instance().jwks()).await;
    let verifier = Verifier::new(Keys::from(publisher.of_backend("sk_test_a")), expected());
    let token = Signer::instance().token(&claims());
    let session = verifier.verify(&token, at(EXPIRY - 60.0)).await.unwrap();
    assert_eq!(session.user_id, USER);
    assert_eq!(
        session.session_id.as_deref(),
        Some("sess_2Ro7e2IxrffdqBboq8KfB6eGbIy")
    );
}

#[tokio::test]
async fn a_valid_token_is_believed_with_a_pem_key() {
    for algorithm in ["RS256", "RS384", "RS512"] {
        let mut header = Signer::instance().header();
        header["alg"] = algorithm.into();
        let token = Signer::instance().sign(&header, &claims());
        assert_eq!(reason(&verify(&token, expected()).await), "signed in");
    }
}

#[tokio::test]
async fn a_token_of_another_key_is_not_believed() {
    let token = Signer::other().token(&claims());
    let outcome = verify(&token, expected()).await;
    assert_eq!(reason(&outcome), "token-invalid-signature");
}

#[tokio::test]
async fn what_has_not_three_parts_is_no_token() {
    let whole = Signer::instance().token(&claims());
    let four = format!("{whole}.");
    for token in [
        "null",
        "undefined",
        "",
        "whatever",
        "42",
        "invalid-jwt",
        "a.b",
        "..",
        "...",
        ".",
        &four,
    ] {
        assert_eq!(reason(&verify(token, expected()).await), "token-invalid");
    }
}

#[tokio::test]
async fn parts_that_are_not_base64url_are_refused() {
    let token = Signer::instance().token(&claims());
    let padded = format!("{token}==");
    let standard = token.replace('-', "+").replace('_', "/");
    let spaced = token.replacen('.', ".\n", 1);
    for token in ["aaa.bbb.ccc", "a%.b.c", &padded, &standard, &spaced] {
        assert_eq!(reason(&verify(token, expected()).await), "token-invalid");
    }
}

#[tokio::test]
async fn parts_that_are_not_json_are_refused() {
    let header = part(&Signer::instance().header());
    for token in [
        "YWJj.YWJj.YWJj".to_owned(),
        format!("{header}.YWJj.YWJj"),
        format!("{header}.{}.YWJj", part(&json!(42))),
        format!("{header}.{}.YWJj", part(&json!(null))),
    ] {
        assert_eq!(reason(&verify(&token, expected()).await), "token-invalid");
    }
}

#[tokio::test]
async fn a_list_of_parties_with_a_blank_one_is_no_hole() {
    let parties = || Expected {
        authorized_parties: vec![String::new(), "https://app.example.com".to_owned()],
        ..expected()
    };
    let token = Signer::instance().token(&claims());
    assert_eq!(reason(&verify(&token, parties()).await), "signed in");
    let blank = Signer::instance().token(&with("azp", ""));
    let outcome = verify(&blank, parties()).await;
    assert_eq!(reason(&outcome), "token-invalid-authorized-parties");
}

#[tokio::test]
async fn a_type_that_is_not_configured_is_refused() {
    let types = |types: &[&str]| Expected {
        header_types: types.iter().map(|typ| (*typ).to_owned()).collect(),
        ..expected()
    };
    let token = Signer::instance().token(&claims());
    let mut untyped = Signer::instance().header();
    untyped.as_object_mut().unwrap().remove("typ").unwrap();
    let untyped = Signer::instance().sign(&untyped, &claims());
    for (token, types, says) in [
        (&token, types(&[]), "signed in"),
        (&token, types(&["JWT"]), "signed in"),
        (&token, types(&["other", "JWT"]), "signed in"),
        (&token, types(&["other"]), "token-invalid"),
        (
            &token,
            types(&["at+jwt", "application/at+jwt"]),
            "token-invalid",
        ),
        (&untyped, types(&[]), "signed in"),
        (&untyped, types(&["JWT"]), "token-invalid"),
        (&untyped, types(&["JWT", "other"]), "token-invalid"),
    ] {
        assert_eq!(reason(&verify(token, types).await), says);
    }
    for typ in [
        json!(""),
        json!("Aloha"),
        json!("jwt"),
        json!(null),
        json!(7),
    ] {
        let mut header = Signer::instance().header();
        header["typ"] = typ;
        let token = Signer::instance().sign(&header, &claims());
        assert_eq!(reason(&verify(&token, expected()).await), "token-invalid");
    }
}

#[tokio::test]
async fn a_list_of_audiences_is_hit_or_missed() {
    let audience = || Expected {
        audience: vec!["https://my-resource.example.com".to_owned()],
        ..expected()
    };
    let other = "https://other-resource.example.com";
    let hit = with("aud", json!([other, "https://my-resource.example.com"]));
    let hit = Signer::instance().token(&hit);
    assert_eq!(reason(&verify(&hit, audience()).await), "signed in");
    let miss = Signer::instance().token(&with("aud", json!([other])));
    let outcome = verify(&miss, audience()).await;
    assert_eq!(reason(&outcome), "token-verification-failed");
}

#[tokio::test]
async fn without_skew_a_token_ends_with_its_last_second() {
    let exactly = Expected {
        clock_skew: Duration::ZERO,
        ..expected()
    };
    let token = Signer::instance().token(&claims());
    let outcome = verify_at(&token, exactly.clone(), EXPIRY + 1.0).await;
    assert_eq!(reason(&outcome), "token-expired");
    let outcome = verify_at(&token, exactly, EXPIRY - 1.0).await;
    assert_eq!(reason(&outcome), "signed in");
}

#[tokio::test]
async fn one_second_after_its_end_a_token_is_still_believed_by_default() {
    let token = Signer::instance().token(&claims());
    let outcome = verify_at(&token, expected(), EXPIRY + 1.0).await;
    assert_eq!(reason(&outcome), "signed in");
    let outcome = verify_at(&token, expected(), EXPIRY + 60.0).await;
    assert_eq!(reason(&outcome), "token-expired");
}

/// Clerk's SDK takes its default instead. Here such a setting is refused at the start, and there is
/// no value for it.
#[test]
fn a_skew_that_is_no_time_or_a_long_one_is_refused() {
    for text in ["NaN", "Infinity", "inf", "-1s", "1m", "", "5 000"] {
        assert!(clock_skew(text).is_err(), "{text}");
    }
    assert_eq!(clock_skew("0s"), Ok(Duration::ZERO));
    assert_eq!(clock_skew("1500ms"), Ok(Duration::from_millis(1500)));
    assert_eq!(Expected::default().clock_skew, Duration::from_secs(5));
}

#[tokio::test]
async fn unknown_fields_and_the_first_version_of_claims_do_no_harm() {
    let mut header = Signer::instance().header();
    header["oiat"] = NOW.into();
    header["crit"] = json!(["b64"]);
    let first_version = json!({
        "exp": NOW + 60, "iss": super::ISSUER, "sub": USER, "org_id": "org_1", "org_role": "admin",
        "org_permissions": ["a:b"],
    });
    for claims in [claims(), first_version] {
        let token = Signer::instance().sign(&header, &claims);
        assert_eq!(reason(&verify(&token, expected()).await), "signed in");
    }
}
