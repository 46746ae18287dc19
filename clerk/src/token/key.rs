//! The public key: one that was configured, or those that Clerk publishes.

use std::{borrow::Cow, fmt, sync::Arc};

use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use jsonwebtoken::DecodingKey;

use super::{FrontendApi, Jwks, TokenError};
use crate::backend::{ApiUrl, SecretKey};

/// Where to find the key.
const WHERE: &str = "copy the PEM public key from the Clerk dashboard: Configure, API keys, \
                     JWKS public key";

/// `CLERK_JWT_KEY`: with it, no network is needed.
#[derive(Clone)]
pub struct PublicKey(Arc<DecodingKey>);

/// Who may have signed.
#[derive(Debug)]
pub enum Keys {
    /// The holder of one key, whatever `kid` a token names.
    Local(PublicKey),
    /// The instance, with the key that the token names.
    Remote(Box<Jwks>),
}

impl From<Jwks> for Keys {
    fn from(jwks: Jwks) -> Self {
        Self::Remote(Box::new(jwks))
    }
}

impl Keys {
    /// The nearest of those that are configured: the key itself, then what is published without a
    /// secret, then what the Backend API says.
    ///
    /// # Errors
    /// None is; or no HTTPS client can be made.
    pub fn resolve(
        key: Option<PublicKey>,
        frontend: Option<&FrontendApi>,
        backend: Option<(&ApiUrl, &SecretKey)>,
    ) -> Result<Self, TokenError> {
        match (key, frontend, backend) {
            (Some(key), _, _) => Ok(Self::Local(key)),
            (None, Some(frontend), _) => Jwks::of_frontend(frontend).map(Self::from),
            (None, None, Some((url, secret))) => Jwks::of_backend(url, secret).map(Self::from),
            (None, None, None) => Err(TokenError::FailedToResolve),
        }
    }

    pub(super) async fn get(&self, kid: Option<&str>) -> Result<Arc<DecodingKey>, TokenError> {
        match self {
            Self::Local(key) => Ok(key.0.clone()),
            Self::Remote(jwks) => jwks.get(kid.ok_or(TokenError::KidMismatch)?).await,
        }
    }
}

impl PublicKey {
    /// Takes the value of `CLERK_JWT_KEY`: PEM, with its header lines or without, with its line
    /// breaks or with `\n` in their place, as environments have it.
    ///
    /// # Errors
    /// What it is instead, and where to find the right one. The text is not repeated.
    pub fn from_pem(text: &str) -> Result<Self, String> {
        let text = text.trim().trim_matches(['"', '\'']).trim();
        if text.is_empty() {
            return Err(format!("{}; {WHERE}", TokenError::LocalKeyMissing));
        }
        let problem = if text.contains("PRIVATE KEY") {
            "it is a private key, which belongs nowhere near here"
        } else if text.contains("CERTIFICATE") {
            "it is a certificate"
        } else if text.starts_with("pk_") || text.starts_with("sk_") {
            "it is a publishable or a secret key"
        } else {
            match decode(text) {
                None => "it is not base64 between the PEM lines",
                Some(der) => match ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &der) {
                    Ok(_) => return Ok(Self(Arc::new(DecodingKey::from_rsa_der(&der)))),
                    Err(_) => "it is not an RSA public key, or one that was cut off",
                },
            }
        };
        Err(format!("{problem}; {WHERE}"))
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let text = if text.contains("\\n") {
        Cow::Owned(text.replace("\\r", "").replace("\\n", "\n"))
    } else {
        Cow::Borrowed(text)
    };
    let body = match text.split_once("-----BEGIN PUBLIC KEY-----") {
        Some((_, rest)) => rest.split_once("-----END PUBLIC KEY-----")?.0,
        None => &text,
    };
    let body: String = body.split_ascii_whitespace().collect();
    BASE64_STANDARD.decode(body).ok()
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicKey(…)")
    }
}
