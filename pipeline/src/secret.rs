//! Values that must not be printed.

use std::{fmt, str::FromStr};

use url::Url;

/// A secret whose `Debug` and `Display` print nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::new(text.trim()))
    }
}

/// A server's URL, which may hold a password: printed without it.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl(Url);

impl ServerUrl {
    /// The URL with its password, for the client that connects.
    #[must_use]
    pub fn expose(&self) -> &Url {
        &self.0
    }
}

impl FromStr for ServerUrl {
    type Err = String;

    /// # Errors
    /// Not a URL. The text itself is not repeated: it may hold a password.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Url::parse(text.trim())
            .map(Self)
            .map_err(|error| format!("not a URL ({error})"))
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        if shown.password().is_some() {
            // Fails only for URLs that cannot have a password.
            let _ = shown.set_password(Some("***"));
        }
        // A password can also be a parameter: sslpassword, password.
        shown.set_query(None);
        shown.fmt(f)
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_printed() {
        assert_eq!(format!("{:?}", Secret::new("whsec_abc")), "Secret(…)");
        let url: ServerUrl = "amqps://me:hunter2@broker:5671/%2f?password=hunter2"
            .parse()
            .unwrap();
        assert_eq!(url.to_string(), "amqps://me:***@broker:5671/%2f");
        assert_eq!(format!("{url:?}"), url.to_string());
        let error = "hunter2@broker".parse::<ServerUrl>().unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
