//! Refusals over HTTP: problem documents (RFC 9457).

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

/// An answer with this status, `detail` for a person, and our code in `error`.
pub fn response(status: StatusCode, detail: &str, error: &str) -> Response<Full<Bytes>> {
    let problem = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
        "error": error,
    });
    let mut response = Response::new(Full::from(problem.to_string()));
    *response.status_mut() = status;
    let problem_json = HeaderValue::from_static("application/problem+json");
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, problem_json);
    response
}
