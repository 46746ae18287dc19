//! The instance's signing key, what is published of it, and the tokens it signs.

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
use serde_json::{Value, json};

use crate::Settings;

pub(crate) struct Signer {
    key: KeyPair,
    kid: String,
    issuer: String,
    public_pem: String,
}

impl Signer {
    pub(crate) fn new(settings: &Settings) -> Self {
        let key = KeyPair::generate(KeySize::Rsa2048).expect("there is randomness for a key");
        let der: PublicKeyX509Der<'_> = key
            .public_key()
            .as_der()
            .expect("a public key has a DER form");
        let base64 = BASE64_STANDARD.encode(der.as_ref());
        let lines = base64.as_bytes().chunks(64);
        let lines = lines.map(|line| std::str::from_utf8(line).expect("base64 is ASCII"));
        let lines: Vec<&str> = lines.collect();
        Self {
            public_pem: format!(
                "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
                lines.join("\n")
            ),
            kid: settings.instance_id.clone(),
            issuer: format!("https://{}", settings.frontend_api),
            key,
        }
    }

    pub(crate) fn public_pem(&self) -> &str {
        &self.public_pem
    }

    /// As `/v1/jwks` and `/.well-known/jwks.json` give it.
    pub(crate) fn jwks(&self) -> Value {
        let public = self.key.public_key();
        let number = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        json!({
            "keys": [{
                "alg": "RS256",
                "e": number(public.exponent().big_endian_without_leading_zero()),
                "kid": self.kid,
                "kty": "RSA",
                "n": number(public.modulus().big_endian_without_leading_zero()),
                "use": "sig",
            }],
        })
    }

    /// A session token of version 2, with these fields and claims in place of the usual ones.
    pub(crate) fn token(&self, header: &Value, claims: &Value) -> String {
        let now = crate::now() / 1_000;
        let usual_header = json!({
            "alg": "RS256",
            "cat": "cl_B7d4PD111AAA",
            "kid": self.kid,
            "typ": "JWT",
        });
        let usual_claims = json!({
            "exp": now + 60,
            "fva": [0, -1],
            "iat": now,
            "iss": self.issuer,
            "jti": format!("{:016x}", rand::random::<u64>()),
            "nbf": now - 10,
            "sid": "sess_3EZfR000000000000000standin",
            "sts": "active",
            "v": 2,
        });
        let part = |usual, instead| BASE64_URL_SAFE_NO_PAD.encode(merged(usual, instead));
        let signed = format!(
            "{}.{}",
            part(usual_header, header),
            part(usual_claims, claims)
        );
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                signed.as_bytes(),
                &mut signature,
            )
            .expect("an RSA key signs with PKCS #1");
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

/// An object with fields taken from another; `null` takes one out.
fn merged(mut object: Value, instead: &Value) -> String {
    let fields = object.as_object_mut().expect("a token's parts are objects");
    for (name, value) in instead.as_object().into_iter().flatten() {
        if value.is_null() {
            fields.remove(name);
        } else {
            fields.insert(name.clone(), value.clone());
        }
    }
    object.to_string()
}
