//! Who asks: the token of a request, and whether a browser was made to send it.

use std::time::SystemTime;

use clerk_sync_clerk::token::{Carrier, Cookies, Session, TokenError, Verifier};
use http::{HeaderMap, Method};

use crate::{Origin, origin::Asker, refusal::Refusal};

/// What requests are checked against.
pub(crate) struct Credentials {
    pub(crate) verifier: Verifier,
    pub(crate) cookies: Cookies,
    pub(crate) allowed: Vec<Origin>,
}

impl Credentials {
    /// Who is signed in.
    pub(crate) async fn check(
        &self,
        method: &Method,
        headers: &HeaderMap,
        asker: Asker<'_>,
        now: SystemTime,
    ) -> Result<Session, Refusal> {
        let carried = self.cookies.find(headers).ok_or(TokenError::Missing)?;
        // A browser sends cookies along whoever made it ask. What changes something is done only
        // for a page that may; code that sets a header means what it sends.
        let by_browser = carried.carrier == Carrier::Cookie && *method != Method::GET;
        if by_browser && !matches!(asker, Asker::Allowed(_)) {
            return Err(Refusal::ForeignOrigin);
        }
        Ok(self.verifier.verify(carried.token, now).await?)
    }
}
