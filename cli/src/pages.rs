//! Pages of users, fetched ahead: while one is at work, the next is on its way.

use std::collections::HashMap;

use clerk_sync_clerk::backend::{ApiError, ChangedWalk, User, Walk};
use clerk_sync_pipeline::Millis;
use tokio::{sync::mpsc, task::JoinHandle};

/// Pages that wait. One is enough for neither side to wait for the other's latency, and a page may
/// be some 10 MB.
const AHEAD: usize = 1;

/// Users that Clerk gave together.
pub(crate) struct Page {
    pub(crate) users: Vec<User>,
    /// Not after Clerk looked.
    pub(crate) asked_at: Millis,
}

/// Which users to walk along.
pub(crate) enum Course {
    /// All.
    All(Walk),
    /// Those that changed.
    Changed(ChangedWalk),
}

impl Course {
    async fn next_page(&mut self) -> Result<Option<Vec<User>>, ApiError> {
        match self {
            Self::All(walk) => walk.next_page().await,
            Self::Changed(walk) => walk.next_page().await,
        }
    }
}

/// Takes out whom the page before had too: two pages may overlap. Returns whom this page has.
fn take_out_known(users: &mut Vec<User>, before: &HashMap<String, i64>) -> HashMap<String, i64> {
    let here = users.iter().map(|user| (user.id.clone(), user.updated_at));
    let here: HashMap<String, i64> = here.collect();
    users.retain(|user| before.get(&user.id) != Some(&user.updated_at));
    here
}

/// A walk that goes ahead.
pub(crate) struct Pages {
    pages: mpsc::Receiver<Result<Page, ApiError>>,
    walking: JoinHandle<()>,
}

impl Pages {
    pub(crate) fn along(mut course: Course) -> Self {
        let (sender, pages) = mpsc::channel(AHEAD);
        let walking = tokio::spawn(async move {
            let mut before = HashMap::new();
            loop {
                let asked_at = Millis::now();
                let page = match course.next_page().await.transpose() {
                    None => return,
                    Some(page) => page.map(|mut users| {
                        before = take_out_known(&mut users, &before);
                        Page { users, asked_at }
                    }),
                };
                let failed = page.is_err();
                if sender.send(page).await.is_err() || failed {
                    return;
                }
            }
        });
        Self { pages, walking }
    }

    /// The next page; `None` after the last one.
    pub(crate) async fn next(&mut self) -> Option<Result<Page, ApiError>> {
        self.pages.recv().await
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.walking.abort();
    }
}
