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
/// How long a plan waits for who asked for it and whose page was given up: letters change.
const WAITS: Duration = Duration::from_secs(60);
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

#[cfg(test)]
impl Plan {
    /// About one malformed dead letter, of all that there are.
    pub(crate) fn example(deed: Deed) -> Self {
        let mut tally = Tally::default();
        tally.add("malformed");
        Self {
            deed,
            place: Place::Dead,
            which: Which::All,
            ids: Arc::default(),
            tally,
            left_out: 0,
        }
    }
}

/// Plans by their names, which nobody can guess.
#[derive(Default)]
pub(crate) struct Plans(HashMap<String, Kept>);

struct Kept {
    made_at: Instant,
    /// Whether a page has shown it.
    is_seen: bool,
    plan: Plan,
}

impl Plans {
    /// Remembers a plan; returns its name.
    pub(crate) fn keep(&mut self, plan: Plan, now: Instant) -> String {
        self.0.retain(|_, kept| is_within(LASTS, kept.made_at, now));
        if self.0.len() >= MOST {
            let oldest = self.0.iter().min_by_key(|(_, kept)| kept.made_at);
            let oldest = oldest.map(|(name, _)| name.clone());
            oldest.and_then(|name| self.0.remove(&name));
        }
        let name = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>());
        let kept = Kept {
            made_at: now,
            is_seen: false,
            plan,
        };
        self.0.insert(name.clone(), kept);
        name
    }

    /// A page shows a plan.
    pub(crate) fn see(&mut self, name: &str) {
        if let Some(kept) = self.0.get_mut(name) {
            kept.is_seen = true;
        }
    }

    /// A plan that was made a moment ago and that no page has shown; it is shown now.
    pub(crate) fn unseen(
        &mut self,
        deed: Deed,
        place: Place,
        which: &Which,
        now: Instant,
    ) -> Option<(String, Plan)> {
        let is_wanted = |kept: &Kept| {
            let plan = &kept.plan;
            let is_same = plan.deed == deed && plan.place == place && plan.which == *which;
            is_same && !kept.is_seen && is_within(WAITS, kept.made_at, now)
        };
        let mut all = self.0.iter_mut();
        let (name, kept) = all.find(|(_, kept)| is_wanted(kept))?;
        kept.is_seen = true;
        Some((name.clone(), kept.plan.clone()))
    }

    /// Takes a plan for this deed, so that it is done once.
    pub(crate) fn take(&mut self, name: &str, deed: Deed, now: Instant) -> Option<Plan> {
        let Kept { made_at, plan, .. } = self.0.get(name)?;
        if plan.deed != deed || !is_within(LASTS, *made_at, now) {
            return None;
        }
        self.0.remove(name).map(|kept| kept.plan)
    }
}

fn is_within(time: Duration, made_at: Instant, now: Instant) -> bool {
    now.duration_since(made_at) < time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_plan_is_for_one_deed_once_and_for_a_while() {
        let (mut plans, now) = (Plans::default(), Instant::now());
        let name = plans.keep(Plan::example(Deed::Discard), now);
        assert!(plans.take(&name, Deed::Replay, now).is_none());
        assert!(plans.take("another", Deed::Discard, now).is_none());
        assert!(plans.take(&name, Deed::Discard, now + LASTS).is_none());
        assert!(plans.take(&name, Deed::Discard, now).is_some());
        assert!(plans.take(&name, Deed::Discard, now).is_none(), "twice");
    }

    #[tokio::test]
    async fn what_was_counted_too_late_is_shown_to_who_asks_again() {
        let (mut plans, now) = (Plans::default(), Instant::now());
        let name = plans.keep(Plan::example(Deed::Discard), now);
        let mut ask = |deed, which: &Which, at| {
            let found = plans.unseen(deed, Place::Dead, which, at);
            found.map(|(name, _)| name)
        };
        assert_eq!(ask(Deed::Replay, &Which::All, now), None);
        assert_eq!(ask(Deed::Discard, &Which::Id("msg_1".into()), now), None);
        assert_eq!(ask(Deed::Discard, &Which::All, now + WAITS), None, "old");
        assert_eq!(ask(Deed::Discard, &Which::All, now), Some(name));
        assert_eq!(ask(Deed::Discard, &Which::All, now), None, "it was shown");
        let shown = plans.keep(Plan::example(Deed::Discard), now);
        plans.see(&shown);
        assert!(
            plans
                .unseen(Deed::Discard, Place::Dead, &Which::All, now)
                .is_none()
        );
    }

    #[tokio::test]
    async fn whoever_plans_often_is_not_kept_from_planning() {
        let (mut plans, mut now) = (Plans::default(), Instant::now());
        let first = plans.keep(Plan::example(Deed::Discard), now);
        let mut newest = String::new();
        for _ in 0..MOST {
            now += Duration::from_secs(1);
            newest = plans.keep(Plan::example(Deed::Discard), now);
        }
        assert_eq!(plans.0.len(), MOST);
        assert!(plans.take(&first, Deed::Discard, now).is_none());
        assert!(plans.take(&newest, Deed::Discard, now).is_some());
    }
}
