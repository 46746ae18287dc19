//! Who asks: a page of ours or of another site, over HTTPS or in the clear.

use http::{HeaderMap, header};

/// Whether a request may have been made by a page of another site. Browsers say it in
/// `Sec-Fetch-Site`, where the connection is safe or local; else in `Origin`, which is `null` here,
/// as our pages send no referrer: then the form's own token decides.
pub(crate) fn is_foreign(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site != "same-origin";
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return false;
    };
    if origin == "null" {
        return false;
    }
    let own = |origin: &str| {
        let (_, authority) = origin.split_once("://")?;
        Some(authority.eq_ignore_ascii_case(host(headers)?))
    };
    !origin.to_str().ok().and_then(own).unwrap_or(false)
}

/// Whether the browser speaks HTTPS, so that the cookie can be kept to it. It says `Sec-Fetch-Site`
/// only over HTTPS or to its own machine; and a proxy says `X-Forwarded-Proto`. Whoever makes either
/// up only keeps the cookie from being sent to himself in the clear.
pub(crate) fn is_secure(headers: &HeaderMap) -> bool {
    let forwarded = headers
        .get("x-forwarded-proto")
        .is_some_and(|scheme| scheme.as_bytes().eq_ignore_ascii_case(b"https"));
    let is_local = host(headers).is_none_or(|host| {
        let name = host
            .split(':')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase();
        let local_name = name == "localhost" || name.ends_with(".localhost");
        local_name || host.starts_with("127.") || host.starts_with("[::1]")
    });
    forwarded || (headers.contains_key("sec-fetch-site") && !is_local)
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_page_of_another_site_is_foreign() {
        for (lines, foreign) in [
            (&[("sec-fetch-site", "same-origin")][..], false),
            (&[("sec-fetch-site", "cross-site")], true),
            (&[("sec-fetch-site", "same-site")], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("host", "a:8080"), ("origin", "http://a:8080")], false),
            (&[("host", "a:8080"), ("origin", "http://a:9090")], true),
            (&[("host", "a"), ("origin", "https://evil.example")], true),
            (&[("host", "a"), ("origin", "null")], false),
            (&[("host", "a")], false),
            (&[("origin", "http://a")], true),
        ] {
            assert_eq!(is_foreign(&headers(lines)), foreign, "{lines:?}");
        }
    }

    #[test]
    fn the_cookie_is_kept_to_https_where_that_is_spoken() {
        let fetch = ("sec-fetch-site", "same-origin");
        for (lines, secure) in [
            (&[("host", "console.example"), fetch][..], true),
            (&[("host", "console.example:8443"), fetch], true),
            (&[("host", "127.0.0.1:8080"), fetch], false),
            (&[("host", "localhost:8080"), fetch], false),
            (&[("host", "[::1]:8080"), fetch], false),
            (&[("host", "10.0.0.7:8080")], false),
            (&[("host", "a"), ("x-forwarded-proto", "https")], true),
            (&[("host", "a"), ("x-forwarded-proto", "http")], false),
        ] {
            assert_eq!(is_secure(&headers(lines)), secure, "{lines:?}");
        }
    }
}
