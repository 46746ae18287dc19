//! Who signs: an instance with a key of its own, through another interface than the product's.

use std::sync::LazyLock;

use aws_lc_rs::{
    encoding::AsDer as _,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair,
    },
};
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use clerk_sync_clerk::token::PublicKey;
use serde_json::{Value, json};

/// When tokens are made, in seconds.
pub(crate) const NOW: u64 = 1_780_000_000;
pub(crate) const ISSUER: &str = "https://clerk.example.com";
pub(crate) const USER: &str = "user_2RfWKJREkjKbHZy0Wqa5qrHeAnb";
/// Where in the DER form of a public key of 2048 bits its modulus is.
const MODULUS: std::ops::Range<usize> = 33..289;

pub(crate) struct Signer {
    pub(crate) kid: &'static str,
    key: RsaKeyPair,
}

impl Signer {
    /// The instance that tests are about.
    pub(crate) fn instance() -> &'static Self {
        static ONE: LazyLock<Signer> =
            LazyLock::new(|| Signer::new("ins_2GIoQhbUpy0hX7B2cVkuTMinXoD"));
        &ONE
    }

    /// Somebody else's.
    pub(crate) fn other() -> &'static Self {
        static ONE: LazyLock<Signer> =
            LazyLock::new(|| Signer::new("ins_2Xother0000000000000000000"));
        &ONE
    }

    fn new(kid: &'static str) -> Self {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        Self { kid, key }
    }

    pub(crate) fn public_der(&self) -> Vec<u8> {
        let der = self.key.public_key().as_der().unwrap();
        der.as_ref().to_vec()
    }

    /// As the dashboard shows it.
    pub(crate) fn pem(&self) -> String {
        let lines = self.pem_body();
        format!("-----BEGIN PUBLIC KEY-----\n{lines}\n-----END PUBLIC KEY-----\n")
    }

    pub(crate) fn pem_body(&self) -> String {
        let text = BASE64_STANDARD.encode(self.public_der());
        let lines: Vec<&str> = (0..text.len())
            .step_by(64)
            .map(|start| &text[start..text.len().min(start + 64)])
            .collect();
        lines.join("\n")
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        PublicKey::from_pem(&self.pem()).unwrap()
    }

    pub(crate) fn jwk(&self) -> Value {
        let modulus = BASE64_URL_SAFE_NO_PAD.encode(&self.public_der()[MODULUS]);
        json!({
            "use": "sig", "kty": "RSA", "kid": self.kid, "alg": "RS256", "n": modulus, "e": "AQAB",
        })
    }

    pub(crate) fn jwks(&self) -> Value {
        json!({ "keys": [self.jwk()] })
    }

    pub(crate) fn header(&self) -> Value {
        json!({ "alg": "RS256", "cat": "cl_B7d4PD111AAA", "kid": self.kid, "typ": "JWT" })
    }

    /// A token with the right header.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.sign(&self.header(), claims)
    }

    /// A token with any header, signed in the way that its `alg` says, or with RS256.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", part(header), part(claims));
        let encoding: &'static dyn RsaEncoding = match header["alg"].as_str() {
            Some("RS384") => &RSA_PKCS1_SHA384,
            Some("RS512") => &RSA_PKCS1_SHA512,
            _ => &RSA_PKCS1_SHA256,
        };
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(
                encoding,
                &SystemRandom::new(),
                signed.as_bytes(),
                &mut signature,
            )
            .unwrap();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

pub(crate) fn part(json: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(json.to_string())
}

/// What a session token of version 2 says.
pub(crate) fn claims() -> Value {
    json!({
        "azp": "https://app.example.com", "exp": NOW + 60, "fva": [85, -1], "iat": NOW,
        "iss": ISSUER, "jti": "0123456789abcdef", "nbf": NOW - 10,
        "sid": "sess_2Ro7e2IxrffdqBboq8KfB6eGbIy", "sts": "active", "sub": USER, "v": 2,
    })
}
