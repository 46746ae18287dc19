//! Origins: who may ask from a browser, and what the browser is told about it.

use std::{fmt, str::FromStr};

use http::{HeaderMap, HeaderValue, Method, header};
use url::Url;

/// How long a browser may remember an answer to its preflight.
const PREFLIGHT_SECONDS: &str = "600";

/// An origin: scheme, host, and the port if it is not the scheme's. As a browser writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

impl FromStr for Origin {
    type Err = String;

    /// # Errors
    /// It has more or less than an origin has.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let wrong = || {
            format!(
                "`{text}` is not an origin like https://app.example.com: scheme, host, and the \
                 port if it has one; no path, no `*`"
            )
        };
        let url = Url::parse(text).map_err(|_| wrong())?;
        let origin = url.origin().ascii_serialization();
        let plain = matches!(url.scheme(), "http" | "https")
            && url.as_str() == format!("{origin}/")
            && !origin.contains('*');
        if plain {
            Ok(Self(origin))
        } else {
            Err(wrong())
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a request says that it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker<'a> {
    /// It does not: not a browser, or one's plain navigation.
    Unnamed,
    /// A page of an origin that may.
    Allowed(&'a HeaderValue),
    /// A page of any other, or one that hides it.
    Foreign,
}

impl<'a> Asker<'a> {
    pub(crate) fn of(headers: &'a HeaderMap, allowed: &[Origin]) -> Self {
        let mut named = headers.get_all(header::ORIGIN).into_iter();
        let Some(value) = named.next() else {
            return Self::Unnamed;
        };
        let fits = |origin: &Origin| value.as_bytes() == origin.0.as_bytes();
        if named.next().is_none() && allowed.iter().any(fits) {
            Self::Allowed(value)
        } else {
            Self::Foreign
        }
    }

    /// Tells the browser whether the page may read the answer.
    pub(crate) fn mark(self, headers: &mut HeaderMap) {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        if let Self::Allowed(origin) = self {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            let yes = HeaderValue::from_static("true");
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
            let exposed = HeaderValue::from_static("Age, Retry-After");
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
    }

    /// Answers whether the page may ask in the way that it wants to.
    pub(crate) fn mark_preflight(self, method: &Method, headers: &mut HeaderMap) {
        self.mark(headers);
        if let Self::Allowed(_) = self {
            let method = HeaderValue::from_str(method.as_str()).expect("a method is a token");
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, method);
            let sent = HeaderValue::from_static("Authorization, Content-Type");
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, sent);
            let age = HeaderValue::from_static(PREFLIGHT_SECONDS);
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, age);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_a_scheme_a_host_and_nothing_else() {
        for text in [
            "https://app.example.com",
            "http://localhost:3000",
            "http://[::1]:3000",
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), text);
        }
        // As a browser would write it.
        let shorter: Origin = "https://App.example.com:443/".parse().unwrap();
        assert_eq!(shorter.to_string(), "https://app.example.com");
        for text in [
            "*",
            "null",
            "app.example.com",
            "https://*.example.com",
            "https://app.example.com/a",
            "https://me@app.example.com",
            "https://app.example.com?a",
            "file:///a",
            "https://",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_foreign_page_is_told_nothing() {
        let allowed = ["https://app.example.com".parse().unwrap()];
        let asker = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::ORIGIN, HeaderValue::from_static(line));
            }
            let mut answer = HeaderMap::new();
            Asker::of(&headers, &allowed).mark_preflight(&Method::POST, &mut answer);
            answer.len()
        };
        assert_eq!(asker(&["https://app.example.com"]), 7);
        for foreign in [
            &["https://app.example.com.attacker.example"][..],
            &["http://app.example.com"],
            &["https://app.example.com:8443"],
            &["null"],
            &[""],
            &["https://app.example.com", "https://attacker.example"],
            &[],
        ] {
            assert_eq!(asker(foreign), 1, "{foreign:?}: Vary, and nothing else");
        }
    }
}
