//! Clerk's `assertions`: each claim, from the outside. `expected()` sets more than Clerk does.

use std::time::Duration;

use clerk_sync_clerk::token::Expected;
use serde_json::{Value, json};

use super::{
    expected, reason,
    signer::{NOW, Signer, claims},
    verify, with, without,
};

const AUDIENCE: &str = "http://audience.example";
const OTHER: &str = "http://audience-other.example";

async fn outcome(claims: &Value, expected: Expected) -> &'static str {
    reason(&verify(&Signer::instance().token(claims), expected).await)
}

fn audience(audience: &[&str]) -> Expected {
    Expected {
        audience: audience.iter().map(|text| (*text).to_owned()).collect(),
        ..expected()
    }
}

fn parties(parties: &[&str]) -> Expected {
    Expected {
        authorized_parties: parties.iter().map(|text| (*text).to_owned()).collect(),
        ..expected()
    }
}

fn skew(seconds: u64) -> Expected {
    Expected {
        clock_skew: Duration::from_secs(seconds),
        ..expected()
    }
}

#[tokio::test]
async fn an_audience_that_is_missing_on_either_side_is_not_checked() {
    let nothing = [
        without_audience(),
        with("aud", ""),
        with("aud", json!([])),
        with("aud", json!([null, null])),
        with("aud", json!([false, false])),
        with("aud", json!(["", ""])),
    ];
    for claims in &nothing {
        for wanted in [&[][..], &[AUDIENCE], &[AUDIENCE, OTHER]] {
            assert_eq!(
                outcome(claims, audience(wanted)).await,
                "signed in",
                "{claims}"
            );
        }
    }
    for claims in [with("aud", AUDIENCE), with("aud", json!([AUDIENCE, OTHER]))] {
        for wanted in [&[][..], &[""], &["", ""]] {
            assert_eq!(
                outcome(&claims, audience(wanted)).await,
                "signed in",
                "{claims}"
            );
        }
    }
}

fn without_audience() -> Value {
    claims()
}

#[tokio::test]
async fn an_audience_that_is_wanted_is_taken() {
    for (aud, wanted) in [
        (json!(AUDIENCE), &[AUDIENCE][..]),
        (json!(AUDIENCE), &[AUDIENCE, OTHER]),
        (json!([AUDIENCE]), &[AUDIENCE, OTHER]),
        (json!([AUDIENCE, OTHER]), &[AUDIENCE]),
    ] {
        assert_eq!(
            outcome(&with("aud", aud), audience(wanted)).await,
            "signed in"
        );
    }
}

#[tokio::test]
async fn an_audience_that_is_only_a_part_of_the_other_is_refused_both_ways() {
    let part = &AUDIENCE[..AUDIENCE.len() - 2];
    for (aud, wanted) in [
        (json!(AUDIENCE), "http://invalid-audience.example"),
        (json!(AUDIENCE), part),
        (json!([AUDIENCE, OTHER]), part),
        (json!([AUDIENCE]), "http://invalid-audience.example"),
        (json!(part), AUDIENCE),
        (json!([part]), AUDIENCE),
        (json!(7), AUDIENCE),
        (json!([OTHER, 7]), AUDIENCE),
    ] {
        let outcome = outcome(&with("aud", aud.clone()), audience(&[wanted])).await;
        assert_eq!(outcome, "token-verification-failed", "{aud}");
    }
}

#[tokio::test]
async fn an_algorithm_that_is_missing_or_not_rsa_is_refused() {
    for alg in [
        json!(""),
        json!(null),
        json!(7),
        json!("none"),
        json!("None"),
        json!("HS256"),
        json!("ES256"),
        json!("ES384"),
        json!("ES512"),
        json!("PS512"),
        json!("rs256"),
        json!("Aloha"),
    ] {
        let mut header = Signer::instance().header();
        header["alg"] = alg.clone();
        let token = Signer::instance().sign(&header, &claims());
        let outcome = verify(&token, expected()).await;
        assert_eq!(reason(&outcome), "token-invalid-algorithm", "{alg}");
    }
    let mut header = Signer::instance().header();
    header.as_object_mut().unwrap().remove("alg").unwrap();
    let token = Signer::instance().sign(&header, &claims());
    let outcome = verify(&token, expected()).await;
    assert_eq!(reason(&outcome), "token-invalid-algorithm");
}

#[tokio::test]
async fn a_subject_that_is_missing_or_not_a_text_is_refused() {
    // Clerk's SDK takes an empty one. Nobody has it.
    for claims in [
        without("sub"),
        with("sub", json!(null)),
        with("sub", 42),
        with("sub", ""),
    ] {
        let outcome = outcome(&claims, expected()).await;
        assert_eq!(outcome, "token-verification-failed", "{claims}");
    }
}

#[tokio::test]
async fn an_authorized_party_is_not_asked_for_where_none_are_configured() {
    for claims in [
        without("azp"),
        with("azp", ""),
        with("azp", json!(null)),
        with("azp", "azp"),
    ] {
        assert_eq!(outcome(&claims, expected()).await, "signed in");
    }
}

#[tokio::test]
async fn an_authorized_party_must_be_one_of_those_configured() {
    let refused = "token-invalid-authorized-parties";
    for (claims, allowed, says) in [
        (with("azp", "azp"), &["azp"][..], "signed in"),
        (with("azp", "azp"), &["other", "azp"], "signed in"),
        (with("azp", "azp"), &[""], refused),
        (with("azp", "azp"), &["azp-1"], refused),
        (with("azp", "azp-1"), &["azp"], refused),
        (without("azp"), &["azp"], refused),
        (with("azp", ""), &["azp"], refused),
        (with("azp", json!(null)), &["azp"], refused),
        (with("azp", json!(["azp"])), &["azp"], refused),
    ] {
        assert_eq!(outcome(&claims, parties(allowed)).await, says, "{claims}");
    }
}

#[tokio::test]
async fn an_expiry_counts_from_its_own_second_on() {
    for (exp, skew_s, says) in [
        (NOW - 5, 0, "token-expired"),
        (NOW - 5, 6, "signed in"),
        (NOW, 0, "token-expired"),
        (NOW, 1, "signed in"),
        (NOW - 5, 5, "token-expired"),
        (NOW + 5, 0, "signed in"),
        (NOW + 5, 6, "signed in"),
    ] {
        assert_eq!(
            outcome(&with("exp", exp), skew(skew_s)).await,
            says,
            "{exp} {skew_s}"
        );
    }
    for claims in [
        without("exp"),
        with("exp", json!(null)),
        with("exp", "1780000060"),
    ] {
        assert_eq!(outcome(&claims, skew(5)).await, "token-verification-failed");
    }
}

#[tokio::test]
async fn an_activation_in_the_future_is_too_early() {
    moments("nbf", "token-not-active-yet").await;
}

#[tokio::test]
async fn an_issue_in_the_future_is_refused() {
    moments("iat", "token-iat-in-the-future").await;
}

async fn moments(name: &str, early: &str) {
    for (moment, skew_s, says) in [
        (NOW - 5, 0, "signed in"),
        (NOW - 5, 6, "signed in"),
        (NOW, 0, "signed in"),
        (NOW, 1, "signed in"),
        (NOW + 5, 0, early),
        (NOW + 5, 4, early),
        (NOW + 5, 5, "signed in"),
        (NOW + 5, 6, "signed in"),
    ] {
        assert_eq!(
            outcome(&with(name, moment), skew(skew_s)).await,
            says,
            "{name} {moment}"
        );
    }
    assert_eq!(outcome(&without(name), skew(0)).await, "signed in");
    for value in [json!(null), json!("1780000000"), json!([NOW])] {
        let outcome = outcome(&with(name, value), skew(0)).await;
        assert_eq!(outcome, "token-verification-failed");
    }
}

#[tokio::test]
async fn an_issuer_must_be_the_frontend_api_of_the_instance() {
    for iss in [
        json!("https://clerk.example.com/"),
        json!("https://clerk.example.com.attacker.example"),
        json!("http://clerk.example.com"),
        json!("https://other.clerk.accounts.dev"),
        json!(""),
        json!(null),
    ] {
        let outcome = outcome(&with("iss", iss.clone()), expected()).await;
        assert_eq!(outcome, "token-verification-failed", "{iss}");
    }
    assert_eq!(
        outcome(&without("iss"), expected()).await,
        "token-verification-failed"
    );
    // Without a publishable key nobody knows it; the signature is of the instance's key.
    assert_eq!(
        outcome(&without("iss"), Expected::default()).await,
        "signed in"
    );
}

#[tokio::test]
async fn a_pending_session_is_signed_out() {
    assert_eq!(
        outcome(&with("sts", "pending"), expected()).await,
        "session-pending"
    );
    assert_eq!(outcome(&without("sts"), expected()).await, "signed in");
}

#[tokio::test]
async fn the_first_check_that_fails_gives_the_reason() {
    // All is wrong; one after the other is mended.
    let mut claims = json!({
        "sub": 7, "aud": OTHER, "azp": "other", "exp": NOW - 100, "nbf": NOW + 100,
        "iat": NOW + 100, "iss": "https://other.example", "sts": "pending",
    });
    let wanted = Expected {
        audience: vec![AUDIENCE.to_owned()],
        ..parties(&["azp"])
    };
    for (name, right, says) in [
        ("sub", json!("user_1"), "token-verification-failed"),
        ("aud", json!(AUDIENCE), "token-verification-failed"),
        ("azp", json!("azp"), "token-invalid-authorized-parties"),
        ("exp", json!(NOW + 60), "token-expired"),
        ("nbf", json!(NOW), "token-not-active-yet"),
        ("iat", json!(NOW), "token-iat-in-the-future"),
        ("iss", json!(super::ISSUER), "token-verification-failed"),
        ("sts", json!("active"), "session-pending"),
    ] {
        assert_eq!(
            outcome(&claims, wanted.clone()).await,
            says,
            "before {name}"
        );
        claims[name] = right;
    }
    assert_eq!(outcome(&claims, wanted).await, "signed in");
}
