//! Session tokens: who is signed in.
//!
//! Every check that Clerk's own SDK makes, in its order and with its reason codes, and the issuer.
//! The signature comes before the claims, so that whoever cannot sign learns nothing from answers.

mod carrier;
mod check;
mod class;
mod error;
mod form;
mod jwks;
mod key;
mod publishable;

use std::time::SystemTime;

pub use carrier::{Carried, Carrier, Cookies};
pub use check::{DEFAULT_CLOCK_SKEW, Expected, clock_skew};
pub use error::TokenError;
pub use jwks::{Jwks, Timing};
pub use key::{Keys, PublicKey};
pub use publishable::{FrontendApi, PublishableKey};

use form::Unverified;

/// Who is signed in, as Clerk has signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// `user_…`
    pub user_id: String,
    /// `sess_…`, where the token names it.
    pub session_id: Option<String>,
    /// `ins_…`, where the token's `kid` names it: the instance that signed.
    pub instance_id: Option<String>,
}

/// Checks tokens. One per process: it keeps the keys.
#[derive(Debug)]
pub struct Verifier {
    keys: Keys,
    expected: Expected,
}

impl Verifier {
    /// One that believes these keys.
    #[must_use]
    pub fn new(keys: Keys, expected: Expected) -> Self {
        Self { keys, expected }
    }

    /// Checks a token, by the clock's `now`.
    ///
    /// # Errors
    /// Why nobody is signed in; or, [`TokenError::is_ours`], why that cannot be told.
    pub async fn verify(&self, token: &str, now: SystemTime) -> Result<Session, TokenError> {
        let unverified = Unverified::read(token)?;
        class::check(&unverified)?;
        let key = self.keys.get(unverified.header.kid.as_deref()).await?;
        let algorithm = self.expected.header(&unverified.header)?;
        let instance_id = unverified.header.kid.clone();
        let claims = unverified.verify(&key, algorithm)?;
        // Nothing above has looked at a claim, but for its being a machine's.
        self.expected.claims(&claims, now)?;
        let user_id = check::subject(&claims)?;
        if user_id.is_empty() {
            return Err(TokenError::Failed("its subject is empty"));
        }
        Ok(Session {
            user_id: user_id.to_owned(),
            session_id: form::text(claims.sid.as_ref()).map(str::to_owned),
            instance_id,
        })
    }
}
