//! Who sent this? A request becomes [`Verified`] here or nowhere.
//!
//! The three headers come as `svix-*` or as their `webhook-*` twins, never as a mixture: as soon as
//! one `svix-*` header is present, the twins are not looked at.

use std::sync::Arc;

use bytes::Bytes;
use clerk_sync_pipeline::{
    event::{Event, EventId, Millis},
    secret::Secret,
};
use http::{HeaderMap, HeaderValue};

use crate::{
    envelope,
    key::{Signed, SigningKey},
};

/// Longest distance between `svix-timestamp` and our clock, either way, inclusive: what every
/// Svix library allows.
const TOLERANCE_S: u64 = 300;
/// Most secrets to try: Svix itself keeps ten old ones while it rotates.
const MAX_SECRETS: usize = 10;
/// Shortest key, in bytes. Svix makes 24; a few bytes are a placeholder someone forgot.
const MIN_KEY_BYTES: usize = 16;
/// Most signatures in one header: Svix sends one per key, at most eleven.
const MAX_SIGNATURES: usize = 32;
/// Longest signature header, in bytes: [`MAX_SIGNATURES`] of the longest kind (ed25519).
const MAX_SIGNATURE_HEADER: usize = 4096;

/// Names of the three headers: id, timestamp, signature.
type Names = [&'static str; 3];
const SVIX: Names = ["svix-id", "svix-timestamp", "svix-signature"];
const STANDARD: Names = ["webhook-id", "webhook-timestamp", "webhook-signature"];

/// The configured signing secrets. Cloning shares them; `Debug` shows nothing of them.
#[derive(Clone, Debug)]
pub struct Verifier {
    keys: Arc<[SigningKey]>,
}

/// A request whose headers are well-formed and recent. Nothing is proven yet.
#[derive(Debug)]
pub struct Unverified<'a> {
    id: EventId,
    attempted_at: i64,
    signed: Signed<'a>,
}

/// A request signed with one of our secrets: the only way to an [`Event`].
#[derive(Debug)]
pub struct Verified {
    id: EventId,
    attempted_at: i64,
    secret_position: usize,
    body: Bytes,
}

/// Why a request is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// Not there, or blank.
    #[error("the header `{0}` is missing or blank")]
    MissingHeader(&'static str),
    /// There twice, or not what it should be.
    #[error("the header `{0}` is repeated or malformed")]
    MalformedHeader(&'static str),
    /// Signed too long ago, or in the future.
    #[error("signed more than 300 s away from this server's clock")]
    TimestampOutOfTolerance,
    /// Signed by somebody else, over other bytes, or not UTF-8 (which Svix never signs).
    #[error("no configured secret made one of the signatures over these bytes")]
    SignatureMismatch,
}

impl Verifier {
    /// Takes 1 to 10 secrets, each base64 with or without its prefix `whsec_`.
    ///
    /// # Errors
    /// Everything that is wrong with them, without showing them.
    pub fn new(secrets: &[Secret]) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut keys = Vec::with_capacity(secrets.len());
        for (position, secret) in (1..).zip(secrets) {
            match key(secret) {
                Ok(key) => keys.push(key),
                Err(problem) => problems.push(format!("secret {position} {problem}")),
            }
        }
        if secrets.is_empty() {
            problems.push("there is none".to_owned());
        }
        if secrets.len() > MAX_SECRETS {
            problems.push(format!(
                "{} secrets are too many, at most {MAX_SECRETS}",
                secrets.len()
            ));
        }
        if problems.is_empty() {
            Ok(Self { keys: keys.into() })
        } else {
            Err(problems)
        }
    }

    /// How many secrets there are.
    #[must_use]
    pub fn secrets(&self) -> usize {
        self.keys.len()
    }
}

fn key(secret: &Secret) -> Result<SigningKey, &'static str> {
    let key = SigningKey::new(secret.expose())
        .map_err(|_| "is not base64: it is the `whsec_…` value, not an API key (`sk_…`, `pk_…`)")?;
    let base64 = secret.expose();
    let base64 = base64
        .strip_prefix("whsec_")
        .unwrap_or(base64)
        .trim_end_matches('=');
    if base64.len() * 3 / 4 < MIN_KEY_BYTES {
        return Err("is too short to be one: a placeholder?");
    }
    Ok(key)
}

impl<'a> Unverified<'a> {
    /// Reads the three headers: all that can be judged before the body.
    ///
    /// # Errors
    /// One of them is not as it should be, or it was signed too far from `now`.
    pub fn read(headers: &'a HeaderMap, now: Millis) -> Result<Self, Untrusted> {
        let names = if SVIX.iter().any(|name| headers.contains_key(*name)) {
            SVIX
        } else {
            STANDARD
        };
        let [id_name, timestamp_name, signature_name] = names;
        let id = value(headers, id_name)?;
        let timestamp = value(headers, timestamp_name)?;
        let signature = value(headers, signature_name)?;

        let signed = Signed {
            id,
            timestamp,
            signatures: signature,
            headers,
        };
        let id = parse_id(id).ok_or(Untrusted::MalformedHeader(id_name))?;
        let attempted_at =
            parse_timestamp(timestamp).ok_or(Untrusted::MalformedHeader(timestamp_name))?;
        if !is_signature_list(signature) {
            return Err(Untrusted::MalformedHeader(signature_name));
        }
        if now.0.div_euclid(1000).abs_diff(attempted_at) > TOLERANCE_S {
            return Err(Untrusted::TimestampOutOfTolerance);
        }
        Ok(Self {
            id,
            attempted_at,
            signed,
        })
    }

    /// Compares the signatures, in constant time, with that of each secret over the exact bytes.
    ///
    /// # Errors
    /// None of them is ours.
    pub fn verify(self, verifier: &Verifier, body: Bytes) -> Result<Verified, Untrusted> {
        // `svix` would compare the timestamp with a clock of its own; `read` did, with ours.
        let signed = |key: &SigningKey| key.has_signed(&self.signed, &body);
        let secret_position = verifier
            .keys
            .iter()
            .position(signed)
            .ok_or(Untrusted::SignatureMismatch)?;
        Ok(Verified {
            id: self.id,
            attempted_at: self.attempted_at,
            secret_position,
            body,
        })
    }
}

impl Verified {
    /// Which secret signed it, from 0.
    #[must_use]
    pub fn secret_position(&self) -> usize {
        self.secret_position
    }

    /// How long before `now` it was signed, in seconds, by our clock and that of Svix; less than 0
    /// if ours is behind. Svix writes whole seconds.
    #[must_use]
    pub fn signed_before(&self, now: Millis) -> f64 {
        let signed = Millis(self.attempted_at.saturating_mul(1000));
        // One of the two is 0.
        now.seconds_since(signed) - signed.seconds_since(now)
    }

    /// The event to queue: the bytes as they came, their type read from the envelope.
    #[must_use]
    pub fn into_event(self, received_at: Millis, traceparent: Option<String>) -> Event {
        Event {
            id: self.id,
            event_type: envelope::event_type(&self.body),
            received_at,
            attempted_at: self.attempted_at,
            traceparent,
            body: self.body,
        }
    }
}

/// The header's only value, visible ASCII and not blank.
fn value<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, Untrusted> {
    let mut values = headers.get_all(name).iter();
    let only = values.next().ok_or(Untrusted::MissingHeader(name))?;
    if values.next().is_some() {
        return Err(Untrusted::MalformedHeader(name));
    }
    let text = HeaderValue::to_str(only).map_err(|_| Untrusted::MalformedHeader(name))?;
    if text.trim().is_empty() {
        Err(Untrusted::MissingHeader(name))
    } else {
        Ok(text)
    }
}

/// An id without a full stop: what is signed is `id.timestamp.body`, and a full stop in the id
/// would let one signature fit two readings (Standard Webhooks forbids it for that reason).
fn parse_id(text: &str) -> Option<EventId> {
    EventId::parse(text).filter(|id| !id.as_str().contains('.'))
}

/// Decimal digits only, as they were signed: `svix` writes the number anew, so `+5` or `05` could
/// never match.
fn parse_timestamp(text: &str) -> Option<i64> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

/// Whether this is `version,signature`, once or several times with a space between, of which the
/// ones that are not `v1` will be skipped.
fn is_signature_list(text: &str) -> bool {
    text.len() <= MAX_SIGNATURE_HEADER
        && text.split(' ').count() <= MAX_SIGNATURES
        && text.split(' ').any(|signature| signature.contains(','))
}
