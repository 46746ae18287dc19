//! Answers: their kinds, and what every one of them tells the browser.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{Either, Full, StreamBody};
use hyper::body::Frame;
use maud::Markup;

/// A whole page, or events that go on.
pub(crate) type Body =
    Either<Full<Bytes>, StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>>;
pub(crate) type Answer = Response<Body>;

/// Everything comes from here, nothing goes elsewhere, and nobody may show it in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

const HEADERS: [(&str, &str); 7] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("x-robots-tag", "noindex, nofollow"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("x-frame-options", "DENY"),
];

/// Adds what every answer has. Nothing is kept, unless the answer says so itself.
pub(crate) fn guarded(mut answer: Answer) -> Answer {
    let headers = answer.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let no_store = HeaderValue::from_static("no-store");
    headers.entry(header::CACHE_CONTROL).or_insert(no_store);
    answer
}

/// A page.
pub(crate) fn page(status: StatusCode, page: Markup) -> Answer {
    content("text/html; charset=utf-8", page.into_string(), status)
}

/// Anything that is whole.
pub(crate) fn content(kind: &'static str, text: impl Into<Bytes>, status: StatusCode) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(text.into())));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

/// Sends the browser to a path of ours, which it asks for by GET.
pub(crate) fn see_other(path: &str) -> Answer {
    let mut answer = Response::new(Either::Left(Full::default()));
    *answer.status_mut() = StatusCode::SEE_OTHER;
    let home = HeaderValue::from_static(crate::service::HOME);
    let location = HeaderValue::from_str(path).unwrap_or(home);
    answer.headers_mut().insert(header::LOCATION, location);
    answer
}
