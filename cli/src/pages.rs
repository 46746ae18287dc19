//! Pages of users, fetched ahead: while one is at work, the next is on its way.

use std::{collections::HashMap, time::Duration};

use clerk_sync_clerk::backend::{ApiError, Backend, ChangedWalk, User, Walk};
use indicatif::HumanCount;
use tokio::{sync::mpsc, task::JoinHandle, time::sleep};

/// Pages that wait. One is enough for neither side to wait for the other's latency, and a page may
/// be some 10 MB.
const AHEAD: usize = 1;
/// How often, with a second between, Clerk is asked for more users than it has listed.
const MOST_IN_VAIN: u32 = 3;

/// Which users to walk along.
pub(crate) enum Course {
    /// All.
    All(Everybody),
    /// Those that changed.
    Changed(ChangedWalk),
}

impl Course {
    async fn next_page(&mut self) -> anyhow::Result<Option<Vec<User>>> {
        match self {
            Self::All(everybody) => everybody.next_page().await,
            Self::Changed(walk) => Ok(walk.next_page().await?),
        }
    }
}

/// All users: as many as Clerk counts. A page that is shorter than asked for is the last one by
/// Clerk's word, but a proxy may shorten pages, and a limit may be lowered without one.
pub(crate) struct Everybody {
    backend: Backend,
    walk: Walk,
    /// How many there were when the walk began.
    pub(crate) count: u64,
    seen: u64,
    in_vain: u32,
}

impl Everybody {
    /// From the first user on, or `after` the one with this id, with whom `seen` were seen before.
    pub(crate) async fn begin(
        backend: &Backend,
        after: Option<String>,
        seen: u64,
    ) -> Result<Self, ApiError> {
        Ok(Self {
            count: backend.count().await?,
            walk: backend.walk(after),
            backend: backend.clone(),
            seen,
            in_vain: 0,
        })
    }

    async fn next_page(&mut self) -> anyhow::Result<Option<Vec<User>>> {
        loop {
            if let Some(page) = self.walk.next_page().await? {
                self.seen += page.len() as u64;
                self.in_vain = 0;
                return Ok(Some(page));
            }
            // The lower of both counts: of those who go meanwhile some are never seen, and those
            // who come after the last page need not be.
            let count = self.count.min(self.backend.count().await?);
            if self.seen >= count {
                return Ok(None);
            }
            if self.in_vain == MOST_IN_VAIN {
                anyhow::bail!(
                    "Clerk has {} users, and has listed {}: does a proxy in front of it shorten \
                     its answers?",
                    HumanCount(count),
                    HumanCount(self.seen)
                );
            }
            if self.in_vain > 0 {
                sleep(Duration::from_secs(1)).await;
            }
            self.in_vain += 1;
            self.walk.go_on();
        }
    }
}

/// Who is on a page, as of when.
type Known = HashMap<String, Option<i64>>;

/// Takes out whom the page before had too: two pages may overlap. Returns whom this page has.
fn take_out_known(users: &mut Vec<User>, before: &Known) -> Known {
    let here = users.iter().map(|user| (user.id.clone(), user.updated_at));
    let here: Known = here.collect();
    users.retain(|user| before.get(&user.id) != Some(&user.updated_at));
    here
}

/// A walk that goes ahead.
pub(crate) struct Pages {
    pages: mpsc::Receiver<anyhow::Result<Vec<User>>>,
    walking: JoinHandle<()>,
}

impl Pages {
    pub(crate) fn along(mut course: Course) -> Self {
        let (sender, pages) = mpsc::channel(AHEAD);
        let walking = tokio::spawn(async move {
            let mut before = Known::new();
            loop {
                let page = match course.next_page().await.transpose() {
                    None => return,
                    Some(page) => page.map(|mut users| {
                        before = take_out_known(&mut users, &before);
                        users
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
    pub(crate) async fn next(&mut self) -> Option<anyhow::Result<Vec<User>>> {
        self.pages.recv().await
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.walking.abort();
    }
}
