//! Where a request carries its token.

use http::{HeaderMap, header};

use super::PublishableKey;

/// How a token came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// `Authorization`: sent by code that means it.
    Authorization,
    /// A cookie: sent by a browser, whoever made it ask.
    Cookie,
}

/// A token, as it came.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Carried<'a> {
    /// The token.
    pub token: &'a str,
    /// How it came.
    pub carrier: Carrier,
}

/// The names of the cookies that may hold one, the more special first.
#[derive(Clone, Debug)]
pub struct Cookies(Vec<String>);

impl Cookies {
    /// Those of an instance. Without its publishable key, the name that all instances share.
    #[must_use]
    pub fn of(key: Option<&PublishableKey>) -> Self {
        let suffixed = key.map(|key| format!("__session_{}", key.cookie_suffix()));
        Self(
            suffixed
                .into_iter()
                .chain(["__session".to_owned()])
                .collect(),
        )
    }

    /// The token of a request: in `Authorization`, as `Bearer` or bare; or else in a cookie. Other
    /// schemes are somebody else's.
    #[must_use]
    pub fn find<'a>(&self, headers: &'a HeaderMap) -> Option<Carried<'a>> {
        let authorization = headers.get(header::AUTHORIZATION);
        if let Some(token) = authorization.and_then(|value| bearer(value.to_str().ok()?)) {
            let carrier = Carrier::Authorization;
            return Some(Carried { token, carrier });
        }
        let cookie = self.0.iter().find_map(|name| cookie(headers, name));
        cookie.map(|token| Carried {
            token,
            carrier: Carrier::Cookie,
        })
    }
}

fn bearer(value: &str) -> Option<&str> {
    let value = value.trim();
    let token = match value.split_once(' ') {
        None => value,
        Some(("Bearer", token)) => token.trim_start(),
        Some(_) => return None,
    };
    // `Bearer` alone carries nothing.
    (!token.is_empty() && token != "Bearer").then_some(token)
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let values = headers.get_all(header::COOKIE).into_iter();
    let pairs = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(found, _)| *found == name);
    values.find_map(|(_, value)| Some(value.trim_matches('"')).filter(|v| !v.is_empty()))
}

impl std::fmt::Debug for Carried<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Carried(…, {:?})", self.carrier)
    }
}
