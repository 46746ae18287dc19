//! What a token is made of: three parts, of which nothing is believed before the last is checked.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

use super::TokenError;

/// Longer than any token that a head of 16 KiB or a cookie can carry.
const MAX_LENGTH: usize = 64 * 1024;

/// A token that was read, and not checked.
pub(super) struct Unverified<'a> {
    pub(super) header: Header,
    claims: Claims,
    /// What is signed: header and claims as they came, with the dot between them.
    signed: &'a str,
    signature: &'a str,
}

/// The parts of the header that mean something here. Others (`oiat` …) are none of our business.
#[derive(Deserialize)]
pub(super) struct Header {
    pub(super) kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    pub(super) typ: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub(super) alg: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub(super) cat: Option<Value>,
}

/// The claims that are checked, as they came: of which type they are is part of the check.
#[derive(Deserialize)]
pub(super) struct Claims {
    #[serde(default, deserialize_with = "present")]
    pub(super) sub: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub(super) aud: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub(super) azp: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub(super) exp: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub(super) nbf: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub(super) iat: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub(super) iss: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub(super) sts: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub(super) sid: Option<Value>,
}

/// A `null` is there, and is not a number.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

/// A claim's text, if it is one.
pub(super) fn text(claim: Option<&Value>) -> Option<&str> {
    claim.and_then(Value::as_str)
}

impl<'a> Unverified<'a> {
    pub(super) fn read(token: &'a str) -> Result<Self, TokenError> {
        const FORM: TokenError = TokenError::Invalid("it has not three parts with dots in between");
        if token.len() > MAX_LENGTH {
            return Err(TokenError::Invalid("it is too long"));
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(FORM)?;
        let (header, claims) = signed.split_once('.').ok_or(FORM)?;
        if claims.contains('.') {
            return Err(FORM);
        }
        let parsed = Self {
            header: json(header)?,
            claims: json(claims)?,
            signed,
            signature,
        };
        bytes(signature)?;
        Ok(parsed)
    }

    /// Whether a machine is its subject. The one claim that is looked at early, as Clerk's SDK does:
    /// it can only lead to a refusal.
    pub(super) fn is_of_machine(&self) -> bool {
        text(self.claims.sub.as_ref()).is_some_and(|sub| sub.starts_with("mch_"))
    }

    /// The claims, if the signature is that of the key.
    pub(super) fn verify(
        self,
        key: &DecodingKey,
        algorithm: Algorithm,
    ) -> Result<Claims, TokenError> {
        match crypto::verify(self.signature, self.signed.as_bytes(), key, algorithm) {
            Ok(true) => Ok(self.claims),
            Ok(false) => Err(TokenError::InvalidSignature),
            Err(_) => Err(TokenError::Failed("its signature cannot be checked")),
        }
    }
}

fn bytes(part: &str) -> Result<Vec<u8>, TokenError> {
    BASE64_URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| TokenError::Invalid("a part of it is not base64url"))
}

fn json<T: DeserializeOwned>(part: &str) -> Result<T, TokenError> {
    let bytes = bytes(part)?;
    // A repeated name is refused too: two readers would take different ones.
    serde_json::from_slice(&bytes)
        .map_err(|_| TokenError::Invalid("a part of it is not the JSON of a token"))
}
