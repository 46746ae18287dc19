//! Why nobody is signed in, with Clerk's reason codes.

use std::sync::Arc;

/// Why a token is not believed. No text holds anything of the token, of a key, or of what was
/// expected of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is none.
    #[error("no session token: sign in, and send it as `Authorization: Bearer …` or as a cookie")]
    Missing,
    /// It is no JWT, or of a class that is never a session's.
    #[error("not a session token: {0}")]
    Invalid(&'static str),
    /// It is signed for a machine, an OAuth client or a template.
    #[error("a token of another type: {0}")]
    TypeMismatch(&'static str),
    /// Signed otherwise than with RSA, or not at all.
    #[error("the token's algorithm is none of RS256, RS384 and RS512")]
    InvalidAlgorithm,
    /// The signature is not that of the key.
    #[error("the token's signature is not right")]
    InvalidSignature,
    /// A claim is not as it must be.
    #[error("the token is refused: {0}")]
    Failed(&'static str),
    /// It was made for another application.
    #[error("the token's authorized party (azp) is not one of AUTHORIZED_PARTIES")]
    InvalidAuthorizedParty,
    /// It was good once.
    #[error("the token is expired")]
    Expired,
    /// It will be good.
    #[error("the token is not active yet")]
    NotActiveYet,
    /// Its issuer's clock or ours is wrong.
    #[error("the token was issued in the future: one of the clocks is wrong")]
    IssuedInTheFuture,
    /// Clerk counts a session that has tasks left as signed out.
    #[error("the session is pending: the user has tasks left to complete")]
    Pending,
    /// `CLERK_JWT_KEY` is blank.
    #[error("there is no CLERK_JWT_KEY")]
    LocalKeyMissing,
    /// Nothing says where keys are.
    #[error("neither CLERK_JWT_KEY, CLERK_PUBLISHABLE_KEY nor CLERK_SECRET_KEY is set")]
    FailedToResolve,
    /// The instance's keys cannot be fetched.
    #[error("Clerk's signing keys could not be loaded: {0}")]
    RemoteFailedToLoad(Arc<str>),
    /// It is signed by a key that the instance does not have: that of another instance, most likely.
    #[error("no signing key of this instance has the token's kid")]
    KidMismatch,
    /// `CLERK_SECRET_KEY` is refused.
    #[error("Clerk refuses CLERK_SECRET_KEY")]
    SecretKeyInvalid,
}

impl TokenError {
    /// Clerk's reason code; two are of the kind that Clerk has other names for, or none.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "session-token-missing",
            Self::Invalid(_) => "token-invalid",
            Self::TypeMismatch(_) => "token-type-mismatch",
            Self::InvalidAlgorithm => "token-invalid-algorithm",
            Self::InvalidSignature => "token-invalid-signature",
            Self::Failed(_) => "token-verification-failed",
            Self::InvalidAuthorizedParty => "token-invalid-authorized-parties",
            Self::Expired => "token-expired",
            Self::NotActiveYet => "token-not-active-yet",
            Self::IssuedInTheFuture => "token-iat-in-the-future",
            Self::Pending => "session-pending",
            Self::LocalKeyMissing => "jwk-local-missing",
            Self::FailedToResolve => "jwk-failed-to-resolve",
            Self::RemoteFailedToLoad(_) => "jwk-remote-failed-to-load",
            Self::KidMismatch => "jwk-kid-mismatch",
            Self::SecretKeyInvalid => "secret-key-invalid",
        }
    }

    /// Whether the token is not to blame: nobody could tell whether it is good.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        match self {
            Self::LocalKeyMissing
            | Self::FailedToResolve
            | Self::RemoteFailedToLoad(_)
            | Self::SecretKeyInvalid => true,
            Self::Missing
            | Self::Invalid(_)
            | Self::TypeMismatch(_)
            | Self::InvalidAlgorithm
            | Self::InvalidSignature
            | Self::Failed(_)
            | Self::InvalidAuthorizedParty
            | Self::Expired
            | Self::NotActiveYet
            | Self::IssuedInTheFuture
            | Self::Pending
            | Self::KidMismatch => false,
        }
    }
}
