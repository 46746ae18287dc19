//! Deeds that somebody thinks about: counted, asked, not done yet.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use clerk_sync_pipeline::queue::parked::{Place, Tally};
use tokio::time::Instant;

use crate::errand::Which;

/// How long somebody may think before a deed.
const LASTS: Duration = Duration::from_secs(15 * 60);
/// Most plans at a time; of more, the oldest is forgotten.
const MOST: usize = 32;

/// What can be done to letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Replay,
    Discard,
}

/// A deed, and exactly these letters, however many come meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) deed: Deed,
    pub(crate) place: Place,
    pub(crate) which: Which,
    pub(crate) ids: Arc<HashSet<String>>,
    pub(crate) tally: Tally,
    /// Letters that are meant too, and too many for one deed.
    pub(crate) left_out: u64,
}

/// Plans by their names, which nobody can guess.
#[derive(Default)]
pub(crate) struct Plans(HashMap<String, (Instant, Plan)>);

impl Plans {
    /// Remembers a plan; returns its name.
    pub(crate) fn keep(&mut self, plan: Plan, now: Instant) -> String {
        self.0.retain(|_, (made_at, _)| is_fresh(*made_at, now));
        if self.0.len() >= MOST {
            let oldest = self.0.iter().min_by_key(|(_, (made_at, _))| *made_at);
            let oldest = oldest.map(|(name, _)| name.clone());
            oldest.and_then(|name| self.0.remove(&name));
        }
        let name = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>());
        self.0.insert(name.clone(), (now, plan));
        name
    }

    /// Takes a plan for this deed, so that it is done once.
    pub(crate) fn take(&mut self, name: &str, deed: Deed, now: Instant) -> Option<Plan> {
        let (made_at, plan) = self.0.get(name)?;
        if plan.deed != deed || !is_fresh(*made_at, now) {
            return None;
        }
        self.0.remove(name).map(|(_, plan)| plan)
    }
}

fn is_fresh(made_at: Instant, now: Instant) -> bool {
    now.duration_since(made_at) < LASTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            deed: Deed::Discard,
            place: Place::Dead,
            which: Which::All,
            ids: Arc::default(),
            tally: Tally::default(),
            left_out: 0,
        }
    }

    #[tokio::test]
    async fn a_plan_is_for_one_deed_once_and_for_a_while() {
        let (mut plans, now) = (Plans::default(), Instant::now());
        let name = plans.keep(plan(), now);
        assert!(plans.take(&name, Deed::Replay, now).is_none());
        assert!(plans.take("another", Deed::Discard, now).is_none());
        assert!(plans.take(&name, Deed::Discard, now + LASTS).is_none());
        assert!(plans.take(&name, Deed::Discard, now).is_some());
        assert!(plans.take(&name, Deed::Discard, now).is_none(), "twice");
    }

    #[tokio::test]
    async fn whoever_plans_often_is_not_kept_from_planning() {
        let (mut plans, mut now) = (Plans::default(), Instant::now());
        let first = plans.keep(plan(), now);
        let mut newest = String::new();
        for _ in 0..MOST {
            now += Duration::from_secs(1);
            newest = plans.keep(plan(), now);
        }
        assert_eq!(plans.0.len(), MOST);
        assert!(plans.take(&first, Deed::Discard, now).is_none());
        assert!(plans.take(&newest, Deed::Discard, now).is_some());
    }
}
