//! What can go wrong, and what to do about it.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;

/// Longest text of Clerk's that is repeated.
const MAX_TEXT: usize = 200;

/// Why there is no answer. Its text tells an operator what to do; it holds no key.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// 401 or 403: no call will be answered with this key.
    #[error(
        "Clerk refuses CLERK_SECRET_KEY ({complaint}): copy the secret key of the right instance \
         from the Clerk dashboard (Configure, API keys); a key that was rotated or deleted is \
         refused too"
    )]
    KeyRefused {
        /// What Clerk said.
        complaint: Complaint,
    },
    /// Clerk's own word that what was asked for does not exist.
    #[error("Clerk has no such thing ({complaint})")]
    NotFound {
        /// What Clerk said.
        complaint: Complaint,
    },
    /// Another 4xx: the request was not to Clerk's liking, and will not be tomorrow.
    #[error("Clerk refuses the request ({complaint})")]
    Refused {
        /// What Clerk said.
        complaint: Complaint,
    },
    /// Clerk, or our own budget below its limit, has no room for another request in time.
    #[error(
        "the instance's rate limit is used up: try again in {} s; the limit is shared with all \
         that uses the instance's secret keys",
        .retry_after.as_secs_f64().ceil()
    )]
    RateLimited {
        /// When it makes sense to ask again.
        retry_after: Duration,
    },
    /// Not reached, too slow, or 5xx, and again at each attempt.
    #[error("Clerk's Backend API is not available: {what}")]
    Unavailable {
        /// What was seen last.
        what: String,
        /// The error below, if there is one.
        source: Option<reqwest::Error>,
    },
    /// The user that a walk stands on is gone, and so are those before it that are remembered.
    #[error("the user {after}, after whom the walk was to go on, is gone: begin it again")]
    CursorLost {
        /// The user's id.
        after: String,
    },
    /// An answer that is not as Clerk documents it.
    #[error(
        "the answer is not one of Clerk's Backend API ({what}): does CLERK_API_URL point to it, \
         and is there a proxy in between?"
    )]
    Unreadable {
        /// What is wrong with it.
        what: String,
    },
    /// There is no client at all.
    #[error("no HTTPS client could be made; are the system's CA certificates installed?")]
    Client(#[source] reqwest::Error),
}

/// What Clerk said: a status, and a code where there was one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The HTTP status.
    pub status: u16,
    /// `clerk_key_invalid`, `resource_not_found` …
    pub code: Option<String>,
    /// For people.
    pub message: Option<String>,
    /// What Clerk's support asks for.
    pub trace_id: Option<String>,
}

impl ApiError {
    /// Whether the same call may be answered at another time.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::RateLimited { .. } | Self::Unavailable { .. } => true,
            Self::KeyRefused { .. }
            | Self::NotFound { .. }
            | Self::Refused { .. }
            | Self::CursorLost { .. }
            | Self::Unreadable { .. }
            | Self::Client(_) => false,
        }
    }

    /// When it makes sense to ask again, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } => Some(*retry_after),
            _ => None,
        }
    }

    /// From an answer that is neither a success nor a 429.
    pub(super) fn from_answer(status: StatusCode, body: &[u8]) -> Self {
        let complaint = Complaint::from_answer(status, body);
        if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
            let what = format!("it answers {complaint}");
            return Self::Unavailable { what, source: None };
        }
        // A server that does not speak as Clerk does is not Clerk. It must not be believed that a
        // user is gone, or the row would go too.
        if complaint.code.is_none() {
            return Self::unreadable(format!("it is {complaint}, with no code of Clerk's"));
        }
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::KeyRefused { complaint },
            StatusCode::NOT_FOUND => Self::NotFound { complaint },
            _ => Self::Refused { complaint },
        }
    }

    pub(super) fn unreadable(what: impl Into<String>) -> Self {
        Self::Unreadable { what: what.into() }
    }

    /// Where serde's reading stopped. Not its message, which may repeat what it read.
    #[expect(clippy::needless_pass_by_value, reason = "for map_err")]
    pub(super) fn json(error: serde_json::Error) -> Self {
        let kind = match error.classify() {
            serde_json::error::Category::Data => "JSON of another shape",
            serde_json::error::Category::Eof => "JSON that ends too early",
            _ => "not JSON",
        };
        Self::unreadable(format!(
            "it is {kind}, from byte {} of line {} on",
            error.column(),
            error.line()
        ))
    }

    pub(super) fn transport(error: reqwest::Error) -> Self {
        // The URL has ids in it, and says nothing that CLERK_API_URL does not.
        let error = error.without_url();
        let what = if error.is_connect() {
            "no connection to it"
        } else if error.is_timeout() {
            "no answer in time"
        } else {
            "the connection broke"
        };
        Self::Unavailable {
            what: what.into(),
            source: Some(error),
        }
    }
}

/// Clerk's code for what it does not have.
const RESOURCE_NOT_FOUND: &str = "resource_not_found";

impl Complaint {
    /// Whether it is Clerk's own word that it has no such thing: a gateway's 404 may have a code,
    /// too.
    pub(super) fn is_of_a_resource(&self) -> bool {
        self.code.as_deref() == Some(RESOURCE_NOT_FOUND)
    }

    fn from_answer(status: StatusCode, body: &[u8]) -> Self {
        #[derive(Default, Deserialize)]
        struct Errors {
            errors: Vec<One>,
            clerk_trace_id: Option<String>,
        }
        #[derive(Deserialize)]
        struct One {
            code: String,
            message: Option<String>,
            long_message: Option<String>,
        }
        let said: Errors = serde_json::from_slice(body).unwrap_or_default();
        let first = said.errors.into_iter().next();
        let (code, message) = match first {
            Some(one) => (Some(one.code), one.long_message.or(one.message)),
            None => (None, None),
        };
        Self {
            status: status.as_u16(),
            code: code.as_deref().map(printable),
            message: message.as_deref().map(printable),
            trace_id: said.clerk_trace_id.as_deref().map(printable),
        }
    }
}

impl std::fmt::Display for Complaint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.status)?;
        if let Some(code) = &self.code {
            write!(f, " {code}")?;
        }
        if let Some(message) = &self.message {
            write!(f, ": {}", message.trim_end_matches('.'))?;
        }
        if let Some(trace_id) = &self.trace_id {
            write!(f, "; Clerk's trace id {trace_id}")?;
        }
        Ok(())
    }
}

/// One line of a bounded length, for terminals and logs.
fn printable(text: &str) -> String {
    let clean = text.chars().filter(|letter| !letter.is_control());
    clean.take(MAX_TEXT).collect()
}
