//! Whoever tries.

use std::sync::LazyLock;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac as _};
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::Sha256;

use super::{
    expected, reason,
    signer::{NOW, Signer, claims, part},
    verify,
};

fn hmac_signed(header: &Value, secret: &[u8]) -> String {
    let signed = format!("{}.{}", part(header), part(&claims()));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(signed.as_bytes());
    let signature = BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    format!("{signed}.{signature}")
}

#[tokio::test]
async fn a_token_of_another_instance_is_refused() {
    let theirs = Signer::other();
    // With its own name, and with ours.
    let mut ours = theirs.header();
    ours["kid"] = Signer::instance().kid.into();
    for header in [theirs.header(), ours] {
        let outcome = verify(&theirs.sign(&header, &claims()), expected()).await;
        assert_eq!(reason(&outcome), "token-invalid-signature");
    }
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let mut claims = claims();
    claims["exp"] = (NOW - 6).into();
    let outcome = verify(&Signer::instance().token(&claims), expected()).await;
    assert_eq!(reason(&outcome), "token-expired");
}

#[tokio::test]
async fn a_token_without_a_signature_is_refused() {
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let mut header = Signer::instance().header();
        header["alg"] = alg.into();
        let unsigned = format!("{}.{}.", part(&header), part(&claims()));
        let outcome = verify(&unsigned, expected()).await;
        assert_eq!(reason(&outcome), "token-invalid-algorithm");
    }
    // Nor one that only lost it.
    let token = Signer::instance().token(&claims());
    let (signed, _) = token.rsplit_once('.').unwrap();
    let outcome = verify(&format!("{signed}."), expected()).await;
    assert_eq!(reason(&outcome), "token-invalid-signature");
}

#[tokio::test]
async fn the_public_key_is_not_a_secret_to_sign_with() {
    let signer = Signer::instance();
    let pem = signer.pem();
    let secrets = [pem.as_bytes(), pem.trim().as_bytes(), &signer.public_der()];
    for secret in secrets {
        for alg in ["HS256", "RS256"] {
            let mut header = signer.header();
            header["alg"] = alg.into();
            let outcome = verify(&hmac_signed(&header, secret), expected()).await;
            let says = if alg == "HS256" {
                "token-invalid-algorithm"
            } else {
                "token-invalid-signature"
            };
            assert_eq!(reason(&outcome), says);
        }
    }
}

#[tokio::test]
async fn a_key_that_the_token_brings_along_is_not_looked_at() {
    let theirs = Signer::other();
    let mut header = theirs.header();
    header["jwk"] = theirs.jwk();
    header["jku"] = json!("https://attacker.example/jwks.json");
    let outcome = verify(&theirs.sign(&header, &claims()), expected()).await;
    assert_eq!(reason(&outcome), "token-invalid-signature");
}

#[tokio::test]
async fn a_claim_that_is_said_twice_is_refused() {
    let signer = Signer::instance();
    let twice = format!(r#"{{"sub":"user_a",{}"#, &claims().to_string()[1..]);
    let signed = format!(
        "{}.{}",
        part(&signer.header()),
        BASE64_URL_SAFE_NO_PAD.encode(twice)
    );
    let outcome = verify(&format!("{signed}.AAAA"), expected()).await;
    assert_eq!(reason(&outcome), "token-invalid");
}

#[tokio::test]
async fn a_token_that_is_deep_or_long_is_refused_in_peace() {
    let header = part(&Signer::instance().header());
    let deep = BASE64_URL_SAFE_NO_PAD.encode(format!("{{\"a\":{}", "[".repeat(20_000)));
    for token in [
        format!("{header}.{deep}.AAAA"),
        "a".repeat(100_000),
        ".".repeat(100_000),
    ] {
        assert_eq!(reason(&verify(&token, expected()).await), "token-invalid");
    }
}

static TOKEN: LazyLock<String> = LazyLock::new(|| Signer::instance().token(&claims()));

/// A way to change a token.
#[derive(Clone, Debug)]
enum Change {
    Replace(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
    Cut(prop::sample::Index),
    Append(Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    let place = any::<prop::sample::Index>;
    // Most are bytes that a token may have: the rest is refused by its form.
    let byte =
        || prop_oneof![4 => "[A-Za-z0-9_.-]".prop_map(|text| text.as_bytes()[0]), 1 => 0..128u8];
    prop_oneof![
        4 => (place(), byte()).prop_map(|(at, byte)| Change::Replace(at, byte)),
        2 => (place(), byte()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        1 => place().prop_map(Change::Remove),
        1 => (place(), place()).prop_map(|(a, b)| Change::Swap(a, b)),
        1 => place().prop_map(Change::Cut),
        1 => prop::collection::vec(byte(), 1..4).prop_map(Change::Append),
    ]
}

fn changed(token: &str, changes: &[Change]) -> String {
    let mut bytes = token.as_bytes().to_vec();
    for change in changes {
        if bytes.is_empty() {
            break;
        }
        let length = bytes.len();
        match change {
            Change::Replace(at, byte) => bytes[at.index(length)] = *byte,
            Change::Insert(at, byte) => bytes.insert(at.index(length), *byte),
            Change::Remove(at) => drop(bytes.remove(at.index(length))),
            Change::Swap(a, b) => bytes.swap(a.index(length), b.index(length)),
            Change::Cut(at) => bytes.truncate(at.index(length)),
            Change::Append(more) => bytes.extend_from_slice(more),
        }
    }
    String::from_utf8(bytes).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_change_of_a_valid_token_is_believed(changes in prop::collection::vec(change(), 1..4)) {
        let token = changed(&TOKEN, &changes);
        prop_assume!(token != *TOKEN);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let outcome = runtime.block_on(verify(&token, expected()));
        let error = outcome.expect_err("believed");
        // And no text has anything of it.
        let said = format!("{error} {error:?}");
        for part in token.split('.').filter(|part| part.len() > 20) {
            prop_assert!(!said.contains(&part[..20]));
        }
    }
}

/// Every byte, each of its bits: also the bits that base64 leaves over at the end of a part.
#[tokio::test]
async fn no_bit_of_a_valid_token_can_be_turned() {
    assert_eq!(reason(&verify(&TOKEN, expected()).await), "signed in");
    for at in 0..TOKEN.len() {
        for bit in 0..7 {
            let mut bytes = TOKEN.as_bytes().to_vec();
            bytes[at] ^= 1 << bit;
            let token = String::from_utf8(bytes).unwrap();
            let outcome = verify(&token, expected()).await;
            assert!(outcome.is_err(), "byte {at}, bit {bit}");
        }
    }
}
