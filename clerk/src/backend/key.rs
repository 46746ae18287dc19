//! The secret key of an instance.

use std::{fmt, str::FromStr};

use reqwest::header::HeaderValue;

/// Where to find the right key.
const WHERE: &str = "copy the secret key (sk_live_… or sk_test_…) from the Clerk dashboard: \
                     Configure, API keys";
/// Longer than any key there is.
const MAX_LENGTH: usize = 512;

/// `CLERK_SECRET_KEY`: whoever has it can do anything to the instance. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey(String);

/// What kind of instance a key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceKind {
    /// `sk_live_…`
    Production,
    /// `sk_test_…`
    Development,
}

impl SecretKey {
    /// What kind of instance it belongs to.
    #[must_use]
    pub fn kind(&self) -> InstanceKind {
        if self.0.starts_with("sk_live_") {
            InstanceKind::Production
        } else {
            InstanceKind::Development
        }
    }

    /// The key itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// As `Authorization`, marked so that HTTP libraries neither print nor index it.
    pub(super) fn header(&self) -> HeaderValue {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.0))
            .expect("a key has letters, digits, - and _ alone");
        value.set_sensitive(true);
        value
    }
}

impl FromStr for SecretKey {
    type Err = String;

    /// # Errors
    /// What it is instead, and where to find the right one. The text is not repeated.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let rest = text
            .strip_prefix("sk_live_")
            .or_else(|| text.strip_prefix("sk_test_"));
        let problem = match rest {
            Some("") => "it ends after its prefix",
            Some(rest) if !rest.bytes().all(is_key_byte) => {
                "it has characters that no secret key has (quotes, spaces or dots, perhaps)"
            }
            Some(_) if text.len() > MAX_LENGTH => "it is too long",
            Some(_) => return Ok(Self(text.to_owned())),
            None if text.is_empty() => "it is blank",
            None if text.starts_with("pk_") => "it is a publishable key, which browsers may know",
            None if text.starts_with("whsec_") => "it is the signing secret of a webhook endpoint",
            None if text.starts_with("ak_") => "it is the key of a machine or of a user",
            None if text.starts_with("sk_") => "it is neither sk_live_… nor sk_test_…",
            None => "it does not begin with sk_live_ or sk_test_",
        };
        Err(format!("{problem}; {WHERE}"))
    }
}

fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

impl fmt::Display for InstanceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Production => "production",
            Self::Development => "development",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_kind_is_refused_by_name_and_not_repeated() {
        for (text, says) in [
            ("", "blank"),
            ("pk_live_Zm9vLmJhciQ", "publishable"),
            ("whsec_C2FVsBQIhrscChlQIMV", "signing secret"),
            ("ak_3EZfRtlIg6cc", "machine"),
            ("sk_prod_3EZfRtlIg6cc", "neither"),
            ("3EZfRtlIg6cc", "does not begin"),
            ("sk_live_", "ends"),
            ("\"sk_live_3EZfRtlIg6cc\"", "does not begin"),
            ("sk_live_3EZfRtlIg6cc\r\nHost: elsewhere", "characters"),
        ] {
            let error = text.parse::<SecretKey>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
            assert!(error.contains("Configure, API keys"), "{error}");
            assert!(!error.contains("3EZfRtlIg6cc"), "{error}");
        }
    }

    #[test]
    fn a_key_says_what_kind_of_instance_it_is_for_and_nothing_else() {
        let key: SecretKey = " sk_live_3EZfRtlIg6cc\n".parse().unwrap();
        assert_eq!(key.kind(), InstanceKind::Production);
        assert_eq!(key.expose(), "sk_live_3EZfRtlIg6cc");
        assert_eq!(
            format!("{key:?} {:?}", key.header()),
            "SecretKey(…) Sensitive"
        );
        let key: SecretKey = "sk_test_3EZf-Rtl_Ig6cc".parse().unwrap();
        assert_eq!(key.kind(), InstanceKind::Development);
    }
}
