//! What is done at the parked letters, on whichever queue they are.

use std::{collections::HashSet, path::PathBuf, sync::Arc};

use bytes::Bytes;
use clerk_sync_pipeline::{
    EventId, Millis,
    queue::{
        amqp::{AmqpParked, Server},
        embedded::EmbeddedParked,
        parked::{Fate, Interrupted, Letter, Parked, Place, Tally},
    },
};
use tokio::task::spawn_blocking;

use crate::{
    inventory::Inventory,
    jobs::Job,
    plans::{Deed, Plan},
};

/// Most letters that one event may have on its page.
const MOST_OF_AN_EVENT: usize = 100;
/// Letters that are replayed or discarded at once.
const MOST_AT_ONCE: usize = 10_000;

/// Where letters are parked.
#[derive(Clone)]
pub(crate) enum Parking {
    Rabbit(Box<Server>),
    File(PathBuf),
}

/// Which letters are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    All,
    Code(String),
    Id(String),
}

impl Which {
    fn takes(&self, letter: &Letter) -> bool {
        match self {
            Self::All => true,
            Self::Code(code) => letter.code == *code,
            Self::Id(id) => letter.id.as_str() == id,
        }
    }
}

/// Something to do on whichever queue it is.
pub(crate) trait Errand: Send + 'static {
    type Result: Send + 'static;

    fn run<P: Parked>(
        self,
        parked: &mut P,
    ) -> impl Future<Output = Result<Self::Result, Interrupted>> + Send;
}

impl Parking {
    pub(crate) async fn run<E: Errand>(&self, errand: E) -> Result<E::Result, Interrupted> {
        match self {
            Self::Rabbit(server) => {
                let mut parked = AmqpParked::open(server).await?;
                let result = errand.run(&mut parked).await;
                // Also after a failure: what is in hand is given back at once.
                parked.close().await;
                result
            }
            Self::File(path) => {
                let (path, runtime) = (path.clone(), tokio::runtime::Handle::current());
                // Its calls block their thread.
                let blocking = spawn_blocking(move || {
                    runtime.block_on(async {
                        let opened = EmbeddedParked::open(&path).map_err(|error| Interrupted {
                            done: 0,
                            cause: error.to_string(),
                        });
                        let mut parked = opened?;
                        let result = errand.run(&mut parked).await;
                        parked.close().await;
                        result
                    })
                });
                match blocking.await {
                    Ok(result) => result,
                    Err(failed) => std::panic::resume_unwind(failed.into_panic()),
                }
            }
        }
    }
}

/// Counts all, and remembers the newest.
pub(crate) struct Look(pub(crate) Place);

impl Errand for Look {
    type Result = Inventory;

    async fn run<P: Parked>(self, parked: &mut P) -> Result<Inventory, Interrupted> {
        let mut seen = Inventory::new(Millis::now());
        let mut number = 0;
        let walk = parked.walk(self.0, |letter| {
            number += 1;
            seen.note(letter, number);
            Fate::Keep
        });
        walk.await?;
        Ok(seen)
    }
}

/// Finds the letters of an event.
pub(crate) struct Find(pub(crate) Place, pub(crate) String);

impl Errand for Find {
    type Result = Vec<Letter>;

    async fn run<P: Parked>(self, parked: &mut P) -> Result<Vec<Letter>, Interrupted> {
        let mut found = Vec::new();
        let walk = parked.walk(self.0, |letter| {
            if letter.id.as_str() == self.1 && found.len() < MOST_OF_AN_EVENT {
                found.push(letter.clone());
            }
            Fate::Keep
        });
        walk.await?;
        Ok(found)
    }
}

/// Reads a body.
pub(crate) struct Body(pub(crate) Place, pub(crate) EventId);

impl Errand for Body {
    type Result = Option<Bytes>;

    async fn run<P: Parked>(self, parked: &mut P) -> Result<Option<Bytes>, Interrupted> {
        parked.body(self.0, &self.1).await
    }
}

/// Counts those that are meant, and notes which they are: codes, ids, and how many more there are.
pub(crate) struct Count(pub(crate) Place, pub(crate) Which);

impl Errand for Count {
    type Result = (Tally, HashSet<String>, u64);

    async fn run<P: Parked>(self, parked: &mut P) -> Result<Self::Result, Interrupted> {
        let (mut tally, mut ids, mut left_out) = (Tally::default(), HashSet::new(), 0);
        let walk = parked.walk(self.0, |letter| {
            if self.1.takes(letter) {
                let known = ids.contains(letter.id.as_str());
                if known || ids.len() < MOST_AT_ONCE {
                    tally.add(&letter.code);
                    ids.insert(letter.id.as_str().to_owned());
                } else {
                    left_out += 1;
                }
            }
            Fate::Keep
        });
        walk.await?;
        Ok((tally, ids, left_out))
    }
}

/// Does what was planned, to exactly those.
pub(crate) struct Carry(pub(crate) Plan, pub(crate) Arc<Job>);

impl Errand for Carry {
    type Result = u64;

    async fn run<P: Parked>(self, parked: &mut P) -> Result<u64, Interrupted> {
        let Self(plan, job) = self;
        let Plan {
            deed,
            place,
            which,
            ids,
            ..
        } = plan;
        job.progress.start(parked.count(place).await?);
        // The code again: an event that was replayed since may have come back for another reason.
        let walk = parked.walk(place, |letter| {
            job.progress.one_more();
            match deed {
                _ if !which.takes(letter) || !ids.contains(letter.id.as_str()) => Fate::Keep,
                Deed::Replay => Fate::Replay,
                Deed::Discard => Fate::Mark,
            }
        });
        let replayed = walk.await?;
        match deed {
            Deed::Replay => Ok(replayed),
            Deed::Discard => parked.discard_marked().await,
        }
    }
}
