//! Every way to say no, and the one place that turns them into HTTP.

use bytes::Bytes;
use clerk_sync_pipeline::{
    problem,
    queue::PublishError,
    telemetry::{Label as _, WebhookOutcome},
};
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;

use crate::verify::Untrusted;

/// Seconds after which a refused sender may come again: long enough for a reconnect, spread so
/// that all the refused do not come back together. Svix waits at least as long on its own.
const RETRY_AFTER_S: std::ops::RangeInclusive<u16> = 5..=15;

/// Why a request was not answered 204. `Display` is what the client may read; what only the
/// operator may read is logged where the refusal is made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("there is nothing at this path")]
    NotFound,
    #[error("only POST is served here")]
    MethodNotAllowed,
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    #[error("the request's head did not arrive in time")]
    HeadTimeout,
    #[error("the request's body did not arrive in time")]
    BodyTimeout,
    #[error("the request's body is over {0} bytes")]
    BodyTooLarge(usize),
    #[error("the request's body broke off or is badly framed")]
    MalformedBody,
    #[error("too many requests are in flight")]
    Overloaded,
    #[error("the event could not be queued")]
    Queue(#[source] PublishError),
    #[error("this server is shutting down")]
    Draining,
}

impl Refusal {
    /// The one match: status, and the outcome that is counted and sent as `error`.
    pub(crate) fn code(&self) -> (StatusCode, WebhookOutcome) {
        match self {
            Self::Untrusted(Untrusted::MissingHeader(_)) => {
                (StatusCode::BAD_REQUEST, WebhookOutcome::MissingHeader)
            }
            Self::Untrusted(Untrusted::MalformedHeader(_)) => {
                (StatusCode::BAD_REQUEST, WebhookOutcome::MalformedHeader)
            }
            Self::MalformedBody => (StatusCode::BAD_REQUEST, WebhookOutcome::MalformedBody),
            Self::Untrusted(Untrusted::TimestampOutOfTolerance) => (
                StatusCode::UNAUTHORIZED,
                WebhookOutcome::TimestampOutOfTolerance,
            ),
            Self::Untrusted(Untrusted::SignatureMismatch) => {
                (StatusCode::UNAUTHORIZED, WebhookOutcome::SignatureMismatch)
            }
            Self::NotFound => (StatusCode::NOT_FOUND, WebhookOutcome::NotFound),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                WebhookOutcome::MethodNotAllowed,
            ),
            Self::HeadTimeout | Self::BodyTimeout => {
                (StatusCode::REQUEST_TIMEOUT, WebhookOutcome::RequestTimeout)
            }
            Self::BodyTooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, WebhookOutcome::BodyTooLarge),
            Self::Overloaded | Self::Queue(PublishError::Overloaded) => {
                (StatusCode::SERVICE_UNAVAILABLE, WebhookOutcome::Overloaded)
            }
            Self::Queue(PublishError::Unavailable(_)) => (
                StatusCode::SERVICE_UNAVAILABLE,
                WebhookOutcome::QueueUnavailable,
            ),
            Self::Draining => (StatusCode::SERVICE_UNAVAILABLE, WebhookOutcome::Draining),
        }
    }

    /// Whether the connection cannot go on after it: the rest of the body may still come.
    pub(crate) fn spoils_connection(&self) -> bool {
        matches!(
            self,
            Self::HeadTimeout | Self::BodyTimeout | Self::BodyTooLarge(_) | Self::MalformedBody
        )
    }

    /// The answer: a problem document (RFC 9457) with our code in `error`.
    pub(crate) fn response(&self) -> Response<Full<Bytes>> {
        let (status, outcome) = self.code();
        let mut response = problem::response(status, &self.to_string(), outcome.as_str());
        let headers = response.headers_mut();
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(
                header::ALLOW,
                HeaderValue::from_static(Method::POST.as_str()),
            );
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let seconds = rand::random_range(RETRY_AFTER_S);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
