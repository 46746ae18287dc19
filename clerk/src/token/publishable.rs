//! What a publishable key tells: where the instance's Frontend API is.

use std::{fmt, str::FromStr};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD},
};
use url::Url;

use crate::{backend::InstanceKind, cleartext::is_exposed};

/// Where to find the right key.
const WHERE: &str = "copy the publishable key (pk_live_… or pk_test_…) from the Clerk dashboard: \
                     Configure, API keys";
/// Letters of a key's digest that name its cookies.
const SUFFIX_LENGTH: usize = 8;

/// `CLERK_PUBLISHABLE_KEY`: no secret, browsers have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishableKey {
    text: String,
    frontend: FrontendApi,
}

/// Where the instance's Frontend API is: its own host, or a proxy in front of it. Its URL is the
/// issuer of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendApi(String);

impl PublishableKey {
    /// The Frontend API that the key names.
    #[must_use]
    pub fn frontend(&self) -> &FrontendApi {
        &self.frontend
    }

    /// What kind of instance it belongs to.
    #[must_use]
    pub fn kind(&self) -> InstanceKind {
        if self.text.starts_with("pk_live_") {
            InstanceKind::Production
        } else {
            InstanceKind::Development
        }
    }

    /// What distinguishes this instance's cookies from another's on the same domain.
    #[must_use]
    pub fn cookie_suffix(&self) -> String {
        // As Clerk does it; nothing rests on the digest's strength.
        let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, self.text.as_bytes());
        let mut suffix = BASE64_URL_SAFE_NO_PAD.encode(digest);
        suffix.truncate(SUFFIX_LENGTH);
        suffix
    }
}

impl FromStr for PublishableKey {
    type Err = String;

    /// # Errors
    /// What it is instead, and where to find the right one. The text is not repeated: it may be a
    /// secret in the wrong place.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let rest = text
            .strip_prefix("pk_live_")
            .or_else(|| text.strip_prefix("pk_test_"));
        let problem = match rest {
            Some(rest) => match host(rest) {
                Some(host) => {
                    return Ok(Self {
                        text: text.to_owned(),
                        frontend: FrontendApi(format!("https://{host}")),
                    });
                }
                None => "it does not name a Frontend API: part of it is missing, most likely",
            },
            None if text.is_empty() => "it is blank",
            None if text.starts_with("sk_") => "it is a secret key",
            None => "it does not begin with pk_live_ or pk_test_",
        };
        Err(format!("{problem}; {WHERE}"))
    }
}

/// The host in the base64 part, which ends in `$`.
fn host(encoded: &str) -> Option<String> {
    let decoded = BASE64_STANDARD_NO_PAD
        .decode(encoded.trim_end_matches('='))
        .ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let host = text.strip_suffix('$')?;
    let url = Url::parse(&format!("https://{host}")).ok()?;
    // Nothing but a host: no user, port, path or query, and nothing that a URL's reader changes.
    let plain = host.contains('.') && url.host_str() == Some(host) && url.path() == "/";
    plain.then(|| host.to_owned())
}

impl FrontendApi {
    /// What tokens name as their issuer.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.0
    }

    pub(super) fn jwks_url(&self) -> String {
        format!("{}/.well-known/jwks.json", self.0)
    }
}

impl FromStr for FrontendApi {
    type Err = String;

    /// Takes the value of `CLERK_PROXY_URL`.
    ///
    /// # Errors
    /// What is wrong with it; it is not repeated.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text.trim()).map_err(|error| format!("not a URL ({error})"))?;
        let plain = matches!(url.scheme(), "http" | "https")
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        if is_exposed(&url) {
            Err(
                "it is http:// to another machine, where who is on the way could put keys of \
                 their own: use https://"
                    .to_owned(),
            )
        } else if plain {
            Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
        } else {
            Err("not a plain https:// URL like https://example.com/__clerk".to_owned())
        }
    }
}

impl fmt::Display for FrontendApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
