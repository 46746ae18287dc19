//! Classes of tokens: an instance signs many kinds with the same key.

use super::{TokenError, form::Unverified};

/// `cat` of a session token.
const SESSION: &str = "cl_B7d4PD111AAA";
/// `cat` of a token made for a machine.
const MACHINE: &str = "cl_B7d4PD333AAA";
/// `cat` of every token of instances that do not tell them apart.
const IGNORED: &str = "cl_I7d4PD111III";
/// `typ` of an access token of OAuth.
const ACCESS_TOKENS: [&str; 2] = ["at+jwt", "application/at+jwt"];

/// Refuses what is signed by the instance and is not a session's, before a key is looked for.
pub(super) fn check(token: &Unverified<'_>) -> Result<(), TokenError> {
    match token.header.cat.as_ref().map(|cat| cat.as_str()) {
        // Older than the categories.
        None => {}
        Some(Some(SESSION | IGNORED)) => {}
        Some(Some(MACHINE)) => return Err(TokenError::Invalid("it is a machine's")),
        Some(_) => {
            return Err(TokenError::TypeMismatch(
                "its category is not that of a session",
            ));
        }
    }
    let typ = super::form::text(token.header.typ.as_ref());
    if typ.is_some_and(|typ| ACCESS_TOKENS.contains(&typ)) {
        return Err(TokenError::TypeMismatch("it is an OAuth access token"));
    }
    if token.is_of_machine() {
        return Err(TokenError::TypeMismatch("its subject is a machine"));
    }
    Ok(())
}
