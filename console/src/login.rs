//! Signing in.

use http::{HeaderMap, StatusCode, header};
use maud::html;
use tokio::time::Instant;

use crate::{
    access::{Access, Denied},
    answer::{Answer, page, see_other},
    asker::is_secure,
    form::{self, Fields},
    frame,
    refusal::Refusal,
    service::HOME,
};

/// The page that asks for the token.
pub(crate) fn ask(next: Option<&str>, wrong: bool) -> Answer {
    let main = html! {
        section.login {
            h1 { "Sign in" }
            @if wrong {
                p.notice.bad #wrong role="alert" { "That is not the token of this console." }
            }
            form method="post" action=(form::address("/login", &[])) {
                input type="hidden" name="next" value=(own(next));
                label for="token" { "Token" }
                input #token type="password" name="token" required autocomplete="current-password"
                    spellcheck="false" autofocus aria-describedby=(if wrong { "wrong where" } else { "where" })
                    aria-invalid=[wrong.then_some("true")];
                p.hint #where {
                    "It is what " code { "CONSOLE_TOKEN" } " says. Where that is not set, "
                    code { "clerk-sync up" } " prints it when it starts."
                }
                button.primary type="submit" { "Sign in" }
            }
        }
    };
    let status = if wrong {
        StatusCode::UNAUTHORIZED
    } else {
        StatusCode::OK
    };
    page(status, frame::bare("Sign in", &main))
}

/// Looks at the token.
pub(crate) fn enter(
    access: &Access,
    headers: &HeaderMap,
    fields: &Fields,
) -> Result<Answer, Refusal> {
    let token = fields.get("token").unwrap_or_default();
    let next = own(fields.get("next"));
    match access.sign_in(token, is_secure(headers), Instant::now()) {
        Ok(cookie) => {
            tracing::info!("somebody has signed in to the console");
            let mut answer = see_other(&next);
            answer.headers_mut().insert(header::SET_COOKIE, cookie);
            Ok(answer)
        }
        Err(Denied::Wrong) => {
            tracing::warn!("somebody tried to sign in to the console with a wrong token");
            Ok(ask(Some(&next), true))
        }
        Err(Denied::TooMany(wait)) => Err(Refusal::TooManyAttempts(wait)),
    }
}

/// Ends the session.
pub(crate) fn leave(access: &Access, headers: &HeaderMap) -> Answer {
    let mut answer = see_other(&form::address("/login", &[]));
    let cookie = access.sign_out(headers);
    answer.headers_mut().insert(header::SET_COOKIE, cookie);
    answer
}

/// A page of ours to go to, whatever was asked for.
fn own(next: Option<&str>) -> String {
    let is_own = |next: &&str| {
        let rest = next.strip_prefix(HOME);
        let plain = next
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\');
        plain && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    };
    next.filter(is_own).unwrap_or(HOME).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_goes_on_to_pages_of_ours_only() {
        for next in ["/console", "/console/events?outcome=stale", "/console?a"] {
            assert_eq!(own(Some(next)), next);
        }
        for next in [
            "",
            "https://evil.example",
            "//evil.example",
            "/consoles",
            "/console\\x",
            "/a",
        ] {
            assert_eq!(own(Some(next)), HOME, "{next}");
        }
        assert_eq!(own(None), HOME);
    }
}
