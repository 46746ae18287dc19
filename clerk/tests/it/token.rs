//! Session tokens. The cases of Clerk's own SDK are all here, under names that say the same.

mod carrier;
mod claims;
mod form;
mod hostile;
mod keys;
mod publisher;
mod request;
mod signer;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clerk_sync_clerk::token::{Expected, Keys, Session, TokenError, Verifier};
use serde_json::Value;

use signer::{ISSUER, NOW, Signer};

/// The moment at which tokens are checked, in seconds; a fraction for what is between two.
fn at(seconds: f64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs_f64(seconds)
}

/// Checks a token with the instance's PEM key.
async fn verify_at(token: &str, expected: Expected, now: f64) -> Result<Session, TokenError> {
    let keys = Keys::Local(Signer::instance().public_key());
    Verifier::new(keys, expected).verify(token, at(now)).await
}

async fn verify(token: &str, expected: Expected) -> Result<Session, TokenError> {
    #[expect(clippy::cast_precision_loss, reason = "it is far below 2^53")]
    verify_at(token, expected, NOW as f64).await
}

/// The reason why nobody is signed in, or `signed in`.
fn reason(outcome: &Result<Session, TokenError>) -> &'static str {
    outcome.as_ref().err().map_or("signed in", TokenError::code)
}

/// With the issuer, as a process has it.
fn expected() -> Expected {
    Expected {
        issuer: Some(ISSUER.to_owned()),
        ..Expected::default()
    }
}

/// The right claims, but for one.
fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut claims = signer::claims();
    claims[name] = value.into();
    claims
}

/// The right claims, without one.
fn without(name: &str) -> Value {
    let mut claims = signer::claims();
    claims.as_object_mut().unwrap().remove(name).unwrap();
    claims
}
