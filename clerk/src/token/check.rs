//! Checks of header and claims, by hand and in Clerk's order: `jsonwebtoken` has other defaults.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::Algorithm;
use serde_json::Value;

use super::{
    TokenError,
    form::{Claims, Header, text},
};

/// How far Clerk's clock and ours may be apart. Session tokens live for 60 s.
pub const DEFAULT_CLOCK_SKEW: Duration = Duration::from_secs(5);
/// More than that would make an expired session last as long again.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(60);

/// What tokens must say.
#[derive(Clone, Debug)]
pub struct Expected {
    /// `iss`: where the instance's Frontend API is. `None` where no publishable key says it; the
    /// signature still is of the instance's own key.
    pub issuer: Option<String>,
    /// `azp`: origins of the application that tokens may be made for. Empty: any. Otherwise a token
    /// without one is refused.
    pub authorized_parties: Vec<String>,
    /// `aud`, when both sides have one. Clerk's session tokens have none by default.
    pub audience: Vec<String>,
    /// Values of `typ`. Empty: `JWT`, or none at all. Otherwise a token without one is refused.
    pub header_types: Vec<String>,
    /// How far the clocks may be apart.
    pub clock_skew: Duration,
}

impl Default for Expected {
    fn default() -> Self {
        Self {
            issuer: None,
            authorized_parties: Vec::new(),
            audience: Vec::new(),
            header_types: Vec::new(),
            clock_skew: DEFAULT_CLOCK_SKEW,
        }
    }
}

/// Takes a setting: how far the clocks may be apart.
///
/// # Errors
/// Not a time (NaN and infinite neither), or a minute and more.
pub fn clock_skew(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .ok()
        .filter(|skew| *skew < MAX_CLOCK_SKEW)
        .ok_or_else(|| "not a time from 0s to 59s".to_owned())
}

impl Expected {
    pub(super) fn header(&self, header: &Header) -> Result<Algorithm, TokenError> {
        let typ = header.typ.as_ref();
        let fits = if self.header_types.is_empty() {
            typ.is_none_or(|typ| typ == "JWT")
        } else {
            text(typ).is_some_and(|typ| self.header_types.iter().any(|allowed| allowed == typ))
        };
        if !fits {
            return Err(TokenError::Invalid("its type (typ) is not JWT"));
        }
        // Never from the key, never a default: `none` and HMAC with a public key end here.
        match text(header.alg.as_ref()) {
            Some("RS256") => Ok(Algorithm::RS256),
            Some("RS384") => Ok(Algorithm::RS384),
            Some("RS512") => Ok(Algorithm::RS512),
            _ => Err(TokenError::InvalidAlgorithm),
        }
    }

    pub(super) fn claims(&self, claims: &Claims, now: SystemTime) -> Result<(), TokenError> {
        let now = seconds(now);
        let skew = self.clock_skew.as_secs_f64();
        subject(claims)?;
        self.audience(claims.aud.as_ref())?;
        self.authorized_party(claims.azp.as_ref())?;
        let exp = number(claims.exp.as_ref(), "its expiry (exp) is not a number")?;
        let exp = exp.ok_or(TokenError::Failed("it has no expiry (exp)"))?;
        if exp <= now - skew {
            return Err(TokenError::Expired);
        }
        let nbf = number(claims.nbf.as_ref(), "its activation (nbf) is not a number")?;
        if nbf.is_some_and(|nbf| nbf > now + skew) {
            return Err(TokenError::NotActiveYet);
        }
        let iat = number(claims.iat.as_ref(), "its issue (iat) is not a number")?;
        if iat.is_some_and(|iat| iat > now + skew) {
            return Err(TokenError::IssuedInTheFuture);
        }
        // Clerk's SDK ends here. What follows is stricter, and comes last so that whatever Clerk
        // refuses has Clerk's reason.
        if let Some(issuer) = &self.issuer
            && text(claims.iss.as_ref()) != Some(issuer)
        {
            return Err(TokenError::Failed(
                "its issuer (iss) is not this instance's Frontend API",
            ));
        }
        if text(claims.sts.as_ref()) == Some("pending") {
            return Err(TokenError::Pending);
        }
        Ok(())
    }

    fn audience(&self, aud: Option<&Value>) -> Result<(), TokenError> {
        let named: Vec<&Value> = match aud {
            None => Vec::new(),
            Some(Value::Array(several)) => several.iter().collect(),
            Some(one) => vec![one],
        };
        let blank = |value: &&Value| {
            value.is_null() || **value == Value::Bool(false) || value.as_str() == Some("")
        };
        let wanted: Vec<&str> = self.audience.iter().map(String::as_str).collect();
        let wanted: Vec<&str> = wanted.into_iter().filter(|text| !text.is_empty()).collect();
        if wanted.is_empty() || named.iter().all(blank) {
            return Ok(());
        }
        let is_wanted = |value: &Value| value.as_str().is_some_and(|text| wanted.contains(&text));
        if named.into_iter().any(is_wanted) {
            Ok(())
        } else {
            Err(TokenError::Failed("it is for another audience (aud)"))
        }
    }

    fn authorized_party(&self, azp: Option<&Value>) -> Result<(), TokenError> {
        if self.authorized_parties.is_empty() {
            return Ok(());
        }
        // One that is missing or blank is none of them, even where the list has a blank.
        let azp = text(azp).filter(|azp| !azp.is_empty());
        if azp.is_some_and(|azp| self.authorized_parties.iter().any(|party| party == azp)) {
            Ok(())
        } else {
            Err(TokenError::InvalidAuthorizedParty)
        }
    }
}

/// Whose token it is.
pub(super) fn subject(claims: &Claims) -> Result<&str, TokenError> {
    text(claims.sub.as_ref()).ok_or(TokenError::Failed("its subject (sub) is not a text"))
}

/// A moment in seconds, which may be a fraction. There is no NaN in JSON.
fn number(claim: Option<&Value>, complaint: &'static str) -> Result<Option<f64>, TokenError> {
    claim
        .map(|value| value.as_f64().ok_or(TokenError::Failed(complaint)))
        .transpose()
}

fn seconds(moment: SystemTime) -> f64 {
    match moment.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}
