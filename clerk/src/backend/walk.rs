//! All users, or all that changed: page after page, while the instance goes on living.

use std::collections::HashSet;

use super::{ApiError, Backend, MAX_IDS, MAX_PAGE, Order, User};

/// How many users two pages of a walk without a cursor have in common, so that deletions and
/// changes meanwhile are noticed.
const OVERLAP: usize = 20;

/// All users, oldest first. Each that exists from the walk's begin to its end is seen; one may be
/// seen twice.
#[derive(Debug)]
pub struct Walk {
    backend: Backend,
    /// The users of the last page, the last one last: where to go on from, should those at its end
    /// be deleted before the next one is asked for.
    trail: Vec<String>,
    done: bool,
}

impl Walk {
    pub(super) fn new(backend: Backend, after: Option<String>) -> Self {
        Self {
            backend,
            trail: after.into_iter().collect(),
            done: false,
        }
    }

    /// The next page, or `None` after the last one.
    ///
    /// # Errors
    /// No page within the client's patience; the same page can be asked for again.
    /// [`ApiError::CursorLost`] when everybody on whom the walk could stand is gone: only a new one
    /// from the start helps.
    pub async fn next_page(&mut self) -> Result<Option<Vec<User>>, ApiError> {
        while !self.done {
            let after = self.trail.last().map(String::as_str);
            let order = Order::OldestFirst { after };
            let page = self.backend.users_page(order, MAX_PAGE).await;
            // What Clerk does when the cursor's user is gone is not documented. It may refuse, or
            // have nobody after nobody, which must not be taken for the end.
            let doubtful = match &page {
                Ok(page) => page.is_empty(),
                Err(ApiError::NotFound { .. } | ApiError::Refused { .. }) => true,
                Err(_) => false,
            };
            if doubtful
                && let Some(after) = after
                && self.backend.user(after).await?.is_none()
            {
                self.step_back().await?;
                continue;
            }
            let page = page?;
            self.done = page.len() < MAX_PAGE;
            self.trail.extend(page.iter().map(|user| user.id.clone()));
            self.trail
                .drain(..self.trail.len().saturating_sub(MAX_PAGE));
            return Ok((!page.is_empty()).then_some(page));
        }
        Ok(None)
    }

    /// Goes on after a page that was taken for the last one, for whoever knows that there are more.
    pub fn go_on(&mut self) {
        self.done = false;
    }

    /// Stands on the last user before who is still there.
    async fn step_back(&mut self) -> Result<(), ApiError> {
        let mut before = self.trail.len().saturating_sub(1);
        while before > 0 {
            let some = &self.trail[before.saturating_sub(MAX_IDS)..before];
            let there = self.backend.users_by_id(some).await?;
            let there: HashSet<&str> = there.iter().map(|user| user.id.as_str()).collect();
            if let Some(last) = some.iter().rposition(|id| there.contains(id.as_str())) {
                self.trail.truncate(before - some.len() + last + 1);
                return Ok(());
            }
            before -= some.len();
        }
        // The trail stays, for whoever asks again.
        let after = self.trail.last().cloned().unwrap_or_default();
        Err(ApiError::CursorLost { after })
    }
}

/// Who changed since a moment, the last changed first. Each that changed before the walk began and
/// not again is seen; whoever changes meanwhile may be missed, and is newer than the walk's begin.
#[derive(Debug)]
pub struct ChangedWalk {
    backend: Backend,
    since: i64,
    offset: usize,
    /// Who was on the last page.
    seen: HashSet<String>,
    done: bool,
}

impl ChangedWalk {
    pub(super) fn new(backend: Backend, since: i64) -> Self {
        Self {
            backend,
            since,
            offset: 0,
            seen: HashSet::new(),
            done: false,
        }
    }

    /// The next page, or `None` after the last one. A user may be on two pages.
    ///
    /// # Errors
    /// No page within the client's patience; the same page can be asked for again.
    pub async fn next_page(&mut self) -> Result<Option<Vec<User>>, ApiError> {
        while !self.done {
            let order = Order::LastChangedFirst {
                offset: self.offset,
            };
            let mut page = self.backend.users_page(order, MAX_PAGE).await?;
            // With nobody in common there may be a gap between the pages: those behind it moved
            // forward, because others were deleted. Go back until the pages meet.
            if self.offset > 0 && !page.iter().any(|user| self.seen.contains(&user.id)) {
                self.offset = self.offset.saturating_sub(MAX_PAGE / 2);
                continue;
            }
            let last = page.len() < MAX_PAGE;
            self.seen = page.iter().map(|user| user.id.clone()).collect();
            self.offset += page.len().saturating_sub(OVERLAP);
            let all = page.len();
            page.retain(|user| user.updated_at.is_none_or(|at| at >= self.since));
            self.done = last || page.len() < all;
            return Ok((!page.is_empty()).then_some(page));
        }
        Ok(None)
    }
}
