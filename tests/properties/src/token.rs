//! Session tokens: one is believed only if it is signed, and says what it must.

use std::{
    collections::HashMap,
    fmt,
    sync::LazyLock,
    time::{Duration, UNIX_EPOCH},
};

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use clerk_sync_clerk::token::{Expected, Keys, PublicKey, Verifier};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;

/// The server's clock, in seconds.
const NOW: u64 = 1_780_000_000;
const SKEW: f64 = 5.0;
const ISSUER: &str = "https://clerk.example.com";
const PARTY: &str = "https://app.example.com";

/// The input is lines: `sign` or anything else, a header, claims. Signed with the instance's key,
/// RS256, if it says so; otherwise the rest of the first line stands for the signature.
///
/// Believed is none that is not signed, and of those that are, exactly those that a second reading
/// of header and claims takes.
pub fn token(input: &[u8]) {
    let mut lines = input.splitn(3, |byte| *byte == b'\n');
    let [first, header, claims] = [(); 3].map(|()| lines.next().unwrap_or_default());
    let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!("{}.{}", part(header), part(claims));
    let is_signed = first == b"sign";
    let signature = if is_signed {
        let mut signature = vec![0; INSTANCE.key.public_modulus_len()];
        let random = SystemRandom::new();
        INSTANCE
            .key
            .sign(
                &RSA_PKCS1_SHA256,
                &random,
                signed.as_bytes(),
                &mut signature,
            )
            .expect("an RSA key signs");
        part(&signature)
    } else {
        String::from_utf8_lossy(first).into_owned()
    };
    let token = format!("{signed}.{signature}");
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    let outcome = INSTANCE
        .runtime
        .block_on(INSTANCE.verifier.verify(&token, now));
    match outcome {
        Ok(session) => {
            assert!(is_signed, "believed, although it is not signed");
            let subject = second_reading(header, claims).expect("believed, although it is wrong");
            assert_eq!(session.user_id, subject);
        }
        Err(error) => {
            let right = is_signed && second_reading(header, claims).is_some();
            assert!(!right, "refused, although it is right: {error}");
            let said = format!("{error} {error:?}");
            assert!(said.len() < 300, "a reason is short: {said}");
        }
    }
}

struct Instance {
    key: KeyPair,
    verifier: Verifier,
    runtime: tokio::runtime::Runtime,
}

static INSTANCE: LazyLock<Instance> = LazyLock::new(|| {
    let key = KeyPair::generate(KeySize::Rsa2048).expect("there is randomness");
    let der: PublicKeyX509Der<'_> = key.public_key().as_der().expect("it has a DER form");
    let pem = BASE64_STANDARD.encode(der.as_ref());
    let public = PublicKey::from_pem(&pem).expect("it is one");
    let expected = Expected {
        issuer: Some(ISSUER.to_owned()),
        authorized_parties: vec![PARTY.to_owned()],
        ..Expected::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    Instance {
        verifier: Verifier::new(Keys::Local(public), expected),
        runtime: runtime.expect("a process may have a runtime"),
        key,
    }
});

/// The subject, if header and claims are as the table in Clerk's documentation has them. By a tree,
/// where the product reads into structures.
fn second_reading(header: &[u8], claims: &[u8]) -> Option<String> {
    let header: Known<true> = serde_json::from_slice(header).ok()?;
    let claims: Known<false> = serde_json::from_slice(claims).ok()?;
    let cat_fits = header
        .get("cat")
        .is_none_or(|cat| *cat == "cl_B7d4PD111AAA" || *cat == "cl_I7d4PD111III");
    let typ_fits = header.get("typ").is_none_or(|typ| *typ == "JWT");
    let kid_fits = header
        .get("kid")
        .is_none_or(|kid| kid.is_string() || kid.is_null());
    let alg_fits = header.get("alg").is_some_and(|alg| *alg == "RS256");
    #[expect(clippy::cast_precision_loss, reason = "it is far below 2^53")]
    let now = NOW as f64;
    let expires = claims.get("exp")?.as_f64()?;
    let begun = ["nbf", "iat"].iter().all(|name| match claims.get(name) {
        None => true,
        Some(moment) => moment.as_f64().is_some_and(|moment| moment <= now + SKEW),
    });
    let subject = claims.get("sub")?.as_str()?;
    let right = cat_fits
        && typ_fits
        && kid_fits
        && alg_fits
        && begun
        && expires > now - SKEW
        && claims.get("azp")? == PARTY
        && claims.get("iss")? == ISSUER
        && claims.get("sts").is_none_or(|sts| *sts != "pending")
        && !subject.is_empty()
        && !subject.starts_with("mch_");
    right.then(|| subject.to_owned())
}

/// What a header may say that means something, and what claims may.
const HEADER: &[&str] = &["kid", "typ", "alg", "cat"];
const CLAIMS: &[&str] = &[
    "sub", "aud", "azp", "exp", "nbf", "iat", "iss", "sts", "sid",
];

/// An object's values of these names, each of which it has once: of two, readers take different
/// ones. Whatever else it says is passed over.
struct Known<const OF_HEADER: bool>(HashMap<String, Value>);

impl<const OF_HEADER: bool> Known<OF_HEADER> {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }
}

impl<'de, const OF_HEADER: bool> Deserialize<'de> for Known<OF_HEADER> {
    fn deserialize<D: Deserializer<'de>>(object: D) -> Result<Self, D::Error> {
        struct Reader<const OF_HEADER: bool>;
        impl<'de, const OF_HEADER: bool> Visitor<'de> for Reader<OF_HEADER> {
            type Value = Known<OF_HEADER>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let names = if OF_HEADER { HEADER } else { CLAIMS };
                let mut known = HashMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !names.contains(&name.as_str()) {
                        map.next_value::<IgnoredAny>()?;
                    } else if known.insert(name, map.next_value()?).is_some() {
                        return Err(A::Error::custom("said twice"));
                    }
                }
                Ok(Known(known))
            }
        }
        object.deserialize_map(Reader::<OF_HEADER>)
    }
}
