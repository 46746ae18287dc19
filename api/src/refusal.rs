//! Every way to say no, and the one place that turns them into HTTP.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use clerk_sync_clerk::{backend::ApiError, token::TokenError};
use clerk_sync_pipeline::{
    problem,
    queue::{Failure, Reason},
    telemetry::{ApiOutcome, Label as _},
};
use clerk_sync_projection::Unavailable;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;

use crate::fetch::FetchError;

/// Seconds after which it makes sense to come again, where nothing better is known; spread, so that
/// all the refused do not come back together.
const RETRY_AFTER_S: std::ops::RangeInclusive<u64> = 1..=3;

/// Why there is no row in the answer. `Display` is what the client may read. Cloned, because many
/// may wait for the same fetch.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("there is nothing at this path")]
    NoSuchPath,
    #[error("only {0} is served here")]
    MethodNotAllowed(Method),
    #[error("the request's body is too long; none is needed")]
    BodyTooLarge,
    #[error("the request's body did not arrive, or not in time; none is needed")]
    BadBody,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("a request with a cookie must come from a page of one of ALLOWED_ORIGINS")]
    ForeignOrigin,
    #[error("this user was deleted")]
    Deleted,
    #[error("Clerk has no such user, and no row is here")]
    Unknown,
    #[error("the user's row cannot be written: {}", cause(*.0))]
    Unwritable(Reason),
    #[error("the user's row is not there yet")]
    NotSettled,
    #[error("the user could not be fetched from Clerk")]
    Clerk(#[source] Arc<ApiError>),
    #[error("the token and CLERK_SECRET_KEY are of two Clerk instances")]
    OtherInstance,
    #[error("the database is not available")]
    Database(#[source] Arc<Unavailable>),
    #[error("no answer was found in time")]
    TooSlow,
    #[error("too many requests are in flight")]
    Overloaded,
    #[error("this server is shutting down")]
    Draining,
    #[error("the fetch ended with a fault of the program; its log has the place")]
    Bug,
}

impl From<Unavailable> for Refusal {
    fn from(unavailable: Unavailable) -> Self {
        Self::Database(Arc::new(unavailable))
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self::Clerk(Arc::new(error))
    }
}

impl From<FetchError> for Refusal {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Clerk(error) => error.into(),
            FetchError::OtherInstance => Self::OtherInstance,
            FetchError::Unknown => Self::Unknown,
            FetchError::Database(unavailable) => unavailable.into(),
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure.reason {
            // Time cures it, and soon.
            Reason::RowLocked => Self::NotSettled,
            reason => Self::Unwritable(reason),
        }
    }
}

impl Refusal {
    /// The one match: status, the outcome that is counted, and the code that is sent as `error`.
    pub(crate) fn code(&self) -> (StatusCode, ApiOutcome, &'static str) {
        use ApiOutcome as Outcome;
        match self {
            Self::NoSuchPath => (StatusCode::NOT_FOUND, Outcome::NotFound, "not_found"),
            Self::MethodNotAllowed(_) => (
                StatusCode::METHOD_NOT_ALLOWED,
                Outcome::BadRequest,
                "method_not_allowed",
            ),
            Self::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                Outcome::BadRequest,
                "body_too_large",
            ),
            Self::BadBody => (
                StatusCode::BAD_REQUEST,
                Outcome::BadRequest,
                "malformed_body",
            ),
            Self::Token(error @ TokenError::SecretKeyInvalid) => (
                StatusCode::BAD_GATEWAY,
                Outcome::ClerkUnavailable,
                error.code(),
            ),
            Self::Token(error) if error.is_ours() => (
                StatusCode::SERVICE_UNAVAILABLE,
                Outcome::ClerkUnavailable,
                error.code(),
            ),
            Self::Token(error) => (
                StatusCode::UNAUTHORIZED,
                Outcome::Unauthenticated,
                error.code(),
            ),
            Self::ForeignOrigin => (
                StatusCode::FORBIDDEN,
                Outcome::ForeignOrigin,
                "origin_not_allowed",
            ),
            Self::Deleted => (StatusCode::NOT_FOUND, Outcome::NotFound, "user_deleted"),
            Self::Unknown => (StatusCode::NOT_FOUND, Outcome::NotFound, "user_unknown"),
            // The application's own data stand in the way: somebody must decide.
            Self::Unwritable(reason @ (Reason::EmailTaken | Reason::MissingEmail)) => {
                (StatusCode::CONFLICT, Outcome::Refused, reason.as_str())
            }
            Self::Unwritable(reason) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                Outcome::Refused,
                reason.as_str(),
            ),
            Self::NotSettled => (
                StatusCode::SERVICE_UNAVAILABLE,
                Outcome::DatabaseUnavailable,
                "not_settled",
            ),
            Self::Clerk(error) => clerk(error),
            Self::OtherInstance => (
                StatusCode::BAD_GATEWAY,
                Outcome::ClerkUnavailable,
                "wrong_instance",
            ),
            Self::Database(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                Outcome::DatabaseUnavailable,
                "database_unavailable",
            ),
            Self::TooSlow | Self::Overloaded => (
                StatusCode::SERVICE_UNAVAILABLE,
                Outcome::Overloaded,
                "overloaded",
            ),
            Self::Draining => (
                StatusCode::SERVICE_UNAVAILABLE,
                Outcome::Overloaded,
                "draining",
            ),
            Self::Bug => (
                StatusCode::INTERNAL_SERVER_ERROR,
                Outcome::Refused,
                "internal_error",
            ),
        }
    }

    /// When to come again, if that helps.
    fn retry_after(&self) -> Option<Duration> {
        let (status, ..) = self.code();
        let told = match self {
            Self::Clerk(error) => error.retry_after(),
            _ => None,
        };
        let may_pass =
            status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::BAD_GATEWAY;
        let usual = || Duration::from_secs(rand::random_range(RETRY_AFTER_S));
        may_pass.then(|| told.unwrap_or_else(usual))
    }

    /// The answer: a problem document (RFC 9457) with our code in `error`.
    pub(crate) fn response(&self) -> Response<Full<Bytes>> {
        let (status, _, code) = self.code();
        let mut response = problem::response(status, &self.to_string(), code);
        let headers = response.headers_mut();
        if let Self::MethodNotAllowed(method) = self {
            let allowed = format!("{method}, OPTIONS");
            let allowed = HeaderValue::from_str(&allowed).expect("methods are tokens");
            headers.insert(header::ALLOW, allowed);
        }
        if status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            headers.insert(header::WWW_AUTHENTICATE, bearer);
        }
        if let Some(retry_after) = self.retry_after() {
            let seconds = retry_after.as_secs().max(1);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// What a person can do something about.
fn cause(reason: Reason) -> &'static str {
    match reason {
        Reason::EmailTaken => {
            "the address belongs to a row of the application that was not made from Clerk's users"
        }
        Reason::MissingEmail => "the user has no address, and MISSING_EMAIL is dead-letter",
        reason => reason.as_str(),
    }
}

fn clerk(error: &ApiError) -> (StatusCode, ApiOutcome, &'static str) {
    let (status, code) = match error {
        ApiError::RateLimited { .. } => (StatusCode::SERVICE_UNAVAILABLE, "clerk_rate_limited"),
        ApiError::Unavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "clerk_unavailable"),
        ApiError::KeyRefused { .. } => (StatusCode::BAD_GATEWAY, "clerk_key_refused"),
        ApiError::NotFound { .. }
        | ApiError::CursorLost { .. }
        | ApiError::Refused { .. }
        | ApiError::Unreadable { .. }
        | ApiError::Client(_) => (StatusCode::BAD_GATEWAY, "clerk_answer"),
    };
    (status, ApiOutcome::ClerkUnavailable, code)
}
