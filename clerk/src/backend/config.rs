//! What a client needs to know.

use std::{fmt, num::NonZeroU32, str::FromStr, time::Duration};

use reqwest::Url;

use super::{InstanceKind, SecretKey};
use crate::cleartext::is_exposed;

/// Where Clerk's Backend API is.
pub const DEFAULT_API_URL: &str = "https://api.clerk.com";
/// Longest time for one attempt, from the first byte to the last: 500 users of 8 KB metadata each
/// are some 10 MB.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest time for a call with all its attempts: for commands. Who has a browser waiting, has less.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(120);
/// Tenths of the instance's limit for a process that answers to people, and for one that can wait.
const MOST: NonZeroU32 = NonZeroU32::new(9).expect("it is not zero");
const HALF: NonZeroU32 = NonZeroU32::new(5).expect("it is not zero");

/// A client's settings.
#[derive(Clone, Debug)]
pub struct BackendConfig {
    /// The key of the instance.
    pub secret_key: SecretKey,
    /// Where the API is: Clerk, a proxy, or a stand-in in tests.
    pub api_url: ApiUrl,
    /// Most requests in any 10 s. Clerk's limit is the instance's, so the application's own
    /// requests count too: this is nine tenths of it by default.
    pub requests_per_10s: NonZeroU32,
    /// Longest time for one attempt.
    pub timeout: Duration,
    /// Longest time for one call, with its waits and repetitions.
    pub patience: Duration,
}

impl BackendConfig {
    /// The defaults for a key, at Clerk.
    #[must_use]
    pub fn new(secret_key: SecretKey) -> Self {
        Self {
            requests_per_10s: tenths_of_limit(secret_key.kind(), MOST),
            secret_key,
            api_url: ApiUrl::default(),
            timeout: DEFAULT_TIMEOUT,
            patience: DEFAULT_PATIENCE,
        }
    }

    /// For a process that goes through a whole instance: half of its limit, so that whoever has a
    /// browser waiting is not refused meanwhile.
    #[must_use]
    pub fn in_the_background(secret_key: SecretKey) -> Self {
        Self {
            requests_per_10s: tenths_of_limit(secret_key.kind(), HALF),
            ..Self::new(secret_key)
        }
    }
}

/// Tenths of what Clerk allows an instance per 10 s: 1000 requests in production, 100 in
/// development.
fn tenths_of_limit(kind: InstanceKind, tenths: NonZeroU32) -> NonZeroU32 {
    let one = match kind {
        InstanceKind::Production => 100,
        InstanceKind::Development => 10,
    };
    tenths.saturating_mul(NonZeroU32::new(one).expect("neither is zero"))
}

/// `CLERK_API_URL`: scheme, host, and perhaps a path in front of `/v1`. Blank means Clerk's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiUrl(Url);

impl ApiUrl {
    pub(super) fn as_url(&self) -> &Url {
        &self.0
    }
}

impl Default for ApiUrl {
    fn default() -> Self {
        DEFAULT_API_URL.parse().expect("the default is a URL")
    }
}

impl FromStr for ApiUrl {
    type Err = String;

    /// # Errors
    /// What is wrong with it. The text is not repeated: it may hold a password.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = match text.trim() {
            "" => DEFAULT_API_URL,
            text => text,
        };
        let url = Url::parse(text).map_err(|error| {
            format!("not a URL ({error}); leave it out, or use one like {DEFAULT_API_URL}")
        })?;
        let problem = if !matches!(url.scheme(), "http" | "https") {
            "it is neither http:// nor https://"
        } else if is_exposed(&url) {
            "it is http:// to another machine, and the secret key could be read on the way"
        } else if !url.username().is_empty() || url.password().is_some() {
            "it has a user or a password"
        } else if url.query().is_some() || url.fragment().is_some() {
            "it has a query or a fragment"
        } else if url.path().trim_end_matches('/').ends_with("/v1") {
            "it ends in /v1, which is added to it"
        } else {
            return Ok(Self(url));
        };
        Err(format!(
            "{problem}; leave it out, or use one like {DEFAULT_API_URL}"
        ))
    }
}

impl fmt::Display for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_leaves_some_of_the_limit_to_the_application() {
        for (key, limit) in [("sk_live_1", 1_000), ("sk_test_1", 100)] {
            let budget = BackendConfig::new(key.parse().unwrap())
                .requests_per_10s
                .get();
            assert!((limit / 2..limit).contains(&budget), "{key}: {budget}");
            let background = BackendConfig::in_the_background(key.parse().unwrap());
            assert_eq!(background.requests_per_10s.get(), limit / 2, "{key}");
        }
    }

    #[test]
    fn an_address_that_cannot_be_the_api_is_refused_with_the_cure() {
        for (text, says) in [
            ("api.clerk.com", "not a URL"),
            ("ftp://api.clerk.com", "neither"),
            ("http://api.clerk.com", "another machine"),
            ("http://localhost.example.com", "another machine"),
            ("https://me:hunter2@api.clerk.com", "password"),
            ("https://api.clerk.com/?hunter2=1", "query"),
            ("https://api.clerk.com/v1/", "/v1"),
        ] {
            let error = text.parse::<ApiUrl>().unwrap_err();
            assert!(
                error.contains(says) && error.contains("leave it out"),
                "{error}"
            );
            assert!(!error.contains("hunter2"), "{error}");
        }
        let proxied: ApiUrl = "http://127.0.0.1:9/clerk/".parse().unwrap();
        assert_eq!(proxied.to_string(), "http://127.0.0.1:9/clerk");
        for here in [
            "http://localhost:9",
            "http://clerk.localhost",
            "http://[::1]:9",
        ] {
            assert!(here.parse::<ApiUrl>().is_ok(), "{here}");
        }
        assert_eq!(" ".parse::<ApiUrl>().unwrap(), ApiUrl::default());
        assert_eq!(ApiUrl::default().to_string(), DEFAULT_API_URL);
    }
}
