//! Answers, and Clerk's way of saying no.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use rand::Rng as _;
use serde_json::{Value, json};

/// A body that may break off.
pub(crate) type Body = BoxBody<Bytes, std::io::Error>;

/// What is answered.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: String,
    /// In seconds.
    pub(crate) retry_after: Option<u64>,
}

/// Dates an answer as a clock does that is so many seconds ahead. What has no date is given the
/// right one by the server.
pub(crate) fn dated(mut response: Response<Body>, ahead_s: i64) -> Response<Body> {
    let now = SystemTime::now();
    let away = Duration::from_secs(ahead_s.unsigned_abs());
    let there = if ahead_s < 0 { now - away } else { now + away };
    let date = HeaderValue::from_str(&httpdate::fmt_http_date(there));
    let date = date.expect("a date has visible letters only");
    response.headers_mut().insert(header::DATE, date);
    response
}

impl Answer {
    pub(crate) fn ok(body: impl Into<String>) -> Self {
        Self {
            status: StatusCode::OK,
            body: body.into(),
            retry_after: None,
        }
    }

    pub(crate) fn json(body: &Value) -> Self {
        Self::ok(body.to_string())
    }

    /// `{errors: […], clerk_trace_id}`
    pub(crate) fn error(status: u16, code: &str, message: &str, long_message: &str) -> Self {
        Self::errors(
            status,
            &json!({ "code": code, "long_message": long_message, "message": message }),
        )
    }

    /// 422 for a parameter.
    pub(crate) fn parameter(name: &str, long_message: &str) -> Self {
        Self::errors(
            422,
            &json!({
                "code": "form_param_value_invalid",
                "long_message": long_message,
                "message": "is invalid",
                "meta": { "param_name": name },
            }),
        )
    }

    pub(crate) fn not_found(long_message: &str) -> Self {
        Self::error(404, "resource_not_found", "not found", long_message)
    }

    fn errors(status: u16, error: &Value) -> Self {
        let mut random = rand::rng();
        let digits = (0..32).map(|_| char::from(b"0123456789abcdef"[random.random_range(0..16)]));
        let trace_id: String = digits.collect();
        let body = json!({ "clerk_trace_id": trace_id, "errors": [error] });
        Self {
            status: StatusCode::from_u16(status).expect("statuses here have three digits"),
            body: body.to_string(),
            retry_after: None,
        }
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let body = Full::new(Bytes::from(self.body));
        let mut response = Response::new(body.map_err(|never| match never {}).boxed());
        *response.status_mut() = self.status;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        if let Some(seconds) = self.retry_after {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }

    /// The head, half the body, and then the connection breaks.
    pub(crate) fn into_broken_response(self) -> Response<Body> {
        let half = self.body.len() / 2;
        let length = self.body.len();
        let first = Bytes::from(self.body).slice(..half);
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionAborted);
        let body = StreamBody::new(stream::iter([Ok(Frame::data(first)), Err(broken)]));
        let mut response = Response::new(body.boxed());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, length.into());
        response
    }
}
