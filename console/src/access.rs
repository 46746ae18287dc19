//! Who may come in: the token, and sessions.

use std::{
    collections::HashMap,
    fmt,
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;

use crate::attempts::Attempts;

/// The session's cookie.
const COOKIE: &str = "clerk_sync_console";
/// How long a session lasts.
const SESSION: Duration = Duration::from_secs(12 * 3600);
/// Most sessions at a time; of more, the oldest ends.
const MOST_SESSIONS: usize = 64;
/// Fewest characters of a token: 96 bits, if it was made by chance.
const TOKEN_CHARACTERS: usize = 16;

type Hash = [u8; 32];

/// What opens the console. Its `Debug` prints nothing of it; only its hash is kept.
#[derive(Clone)]
pub struct Token(Hash);

impl Token {
    /// A new token, and its text: 160 bits.
    #[must_use]
    pub fn random() -> (Self, String) {
        let text = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 20]>());
        (Self(hash(&text)), text)
    }
}

impl FromStr for Token {
    type Err = String;

    /// # Errors
    /// It is too short. The text is not repeated.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.chars().count() < TOKEN_CHARACTERS {
            return Err(format!(
                "use {TOKEN_CHARACTERS} characters at least, like those of `openssl rand -hex 20`"
            ));
        }
        Ok(Self(hash(text)))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Why somebody may not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It is not the token.
    Wrong,
    /// Too many attempts; the next one is looked at after this time.
    TooMany(Duration),
}

/// The door.
pub(crate) struct Access {
    token: Token,
    sessions: Mutex<HashMap<Hash, Session>>,
    attempts: Mutex<Attempts>,
}

#[derive(Clone)]
pub(crate) struct Session {
    /// What a form of ours sends along, which no other page can know.
    pub(crate) csrf: String,
    since: Instant,
}

impl Access {
    pub(crate) fn new(token: Token, now: Instant) -> Self {
        Self {
            token,
            sessions: Mutex::default(),
            attempts: Mutex::new(Attempts::new(now)),
        }
    }

    /// Begins a session for who knows the token; returns its cookie. Each attempt counts, also the
    /// good one: what is over the limit is not compared at all.
    pub(crate) fn sign_in(
        &self,
        token: &str,
        secure: bool,
        now: Instant,
    ) -> Result<HeaderValue, Denied> {
        lock(&self.attempts).take(now).map_err(Denied::TooMany)?;
        // Hashes, so that neither the time nor the length tells anything of the token.
        let same: bool = hash(token.trim()).ct_eq(&self.token.0).into();
        if !same {
            return Err(Denied::Wrong);
        }
        let id = random();
        let session = Session {
            csrf: random(),
            since: now,
        };
        let mut sessions = lock(&self.sessions);
        sessions.retain(|_, session| session.lasts(now));
        if sessions.len() >= MOST_SESSIONS {
            let oldest = sessions.iter().min_by_key(|(_, session)| session.since);
            let oldest = oldest.map(|(id, _)| *id);
            oldest.and_then(|id| sessions.remove(&id));
        }
        sessions.insert(hash(&id), session);
        Ok(cookie(&id, SESSION.as_secs(), secure))
    }

    /// The session of a request.
    pub(crate) fn session(&self, headers: &HeaderMap, now: Instant) -> Option<Session> {
        let id = session_id(headers)?;
        let session = lock(&self.sessions).get(&hash(id)).cloned();
        session.filter(|session| session.lasts(now))
    }

    /// Ends the session of a request; returns the cookie that takes it from the browser.
    pub(crate) fn sign_out(&self, headers: &HeaderMap) -> HeaderValue {
        if let Some(id) = session_id(headers) {
            lock(&self.sessions).remove(&hash(id));
        }
        cookie("", 0, false)
    }
}

impl Session {
    /// Whether a form was made for this session.
    pub(crate) fn made(&self, csrf: &str) -> bool {
        self.csrf.as_bytes().ct_eq(csrf.as_bytes()).into()
    }

    fn lasts(&self, now: Instant) -> bool {
        now.duration_since(self.since) < SESSION
    }
}

fn session_id(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).into_iter();
    let pairs = lines.filter_map(|line| line.to_str().ok());
    pairs.flat_map(|line| line.split(';')).find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE).then_some(value)
    })
}

fn cookie(id: &str, seconds: u64, secure: bool) -> HeaderValue {
    let secure = if secure { "; Secure" } else { "" };
    let cookie = format!(
        "{COOKIE}={id}; Path={}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}",
        crate::service::HOME
    );
    HeaderValue::from_str(&cookie).expect("base64 and numbers")
}

fn random() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

fn hash(text: &str) -> Hash {
    Sha256::digest(text.as_bytes()).into()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "correct-horse-battery";

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn access(now: Instant) -> Access {
        Access::new(TOKEN.parse().unwrap(), now)
    }

    #[tokio::test]
    async fn a_session_begins_with_the_token_and_ends_with_its_time_or_its_wish() {
        let now = Instant::now();
        let access = access(now);
        assert_eq!(access.sign_in("wrong", false, now), Err(Denied::Wrong));
        assert_eq!(access.sign_in("", false, now), Err(Denied::Wrong));
        let cookie = access.sign_in(&format!(" {TOKEN}\n"), true, now).unwrap();
        let cookie = cookie.to_str().unwrap();
        for part in ["HttpOnly", "SameSite=Strict", "Path=/console", "Secure"] {
            assert!(cookie.contains(part), "{part}");
        }
        let pair = cookie.split(';').next().unwrap();
        let browser = headers(&[("cookie", &format!("a=b; {pair}"))]);
        let session = access.session(&browser, now).unwrap();
        assert!(session.made(&session.csrf) && !session.made("") && !session.made("x"));
        assert!(access.session(&headers(&[]), now).is_none());
        assert!(access.session(&browser, now + SESSION).is_none());
        assert!(
            access
                .sign_out(&browser)
                .to_str()
                .unwrap()
                .contains("Max-Age=0")
        );
        assert!(access.session(&browser, now).is_none());
    }

    #[tokio::test]
    async fn ten_attempts_then_one_in_three_seconds() {
        let now = Instant::now();
        let access = access(now);
        for _ in 0..10 {
            assert_eq!(access.sign_in("wrong", false, now), Err(Denied::Wrong));
        }
        // Not even the right one is compared.
        let denied = access.sign_in(TOKEN, false, now);
        assert_eq!(denied, Err(Denied::TooMany(Duration::from_secs(3))));
        let later = now + Duration::from_secs(3);
        assert!(access.sign_in(TOKEN, false, later).is_ok());
        assert!(access.sign_in(TOKEN, false, later).is_err());
    }

    #[tokio::test]
    async fn the_oldest_of_too_many_sessions_ends() {
        let mut now = Instant::now();
        let access = access(now);
        for _ in 0..MOST_SESSIONS + 10 {
            now += Duration::from_secs(3);
            access.sign_in(TOKEN, false, now).unwrap();
        }
        assert_eq!(lock(&access.sessions).len(), MOST_SESSIONS);
    }

    #[test]
    fn a_token_is_long_and_is_not_printed() {
        assert!("short".parse::<Token>().is_err());
        let (token, text) = Token::random();
        assert!(text.parse::<Token>().unwrap().0 == token.0);
        assert_eq!(format!("{token:?}"), "Token(…)");
    }
}
