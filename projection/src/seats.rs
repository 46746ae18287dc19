//! Who sits on which address: rule three. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use clerk_sync_entity::users;

use crate::{
    failure::{Contention, TransactionError},
    reduce::{Goal, Winner},
    version::Version,
};

/// The addresses that a batch claims, each with its claimant, or `None` when there are several.
pub(crate) struct Claims<'a>(BTreeMap<&'a str, Option<&'a str>>);

impl<'a> Claims<'a> {
    pub(crate) fn of(candidates: &BTreeMap<&'a str, Winner<'a>>) -> Self {
        let mut claims = BTreeMap::new();
        for (clerk_id, winner) in candidates {
            let Some(email) = winner.email() else {
                continue;
            };
            claims
                .entry(email)
                .and_modify(|claimant| *claimant = None)
                .or_insert(Some(*clerk_id));
        }
        Self(claims)
    }

    /// The addresses, sorted.
    pub(crate) fn emails(&self) -> Vec<&'a str> {
        self.0.keys().copied().collect()
    }

    /// Whether somebody else than the holder claims its address.
    pub(crate) fn by_others(&self, holder: &users::Holder) -> bool {
        let claimant = self.0.get(holder.email.as_str());
        claimant.is_some_and(|claimant| *claimant != Some(holder.clerk_id.as_str()))
    }
}

/// Who sits on which address after this batch.
pub(crate) struct Seats<'a> {
    /// Rows that lose their address before the upsert: uniqueness is checked row by row, so an
    /// address must be free before another row takes it.
    pub(crate) released: BTreeSet<&'a str>,
    /// Winners that get a placeholder: a newer user holds their address.
    pub(crate) without: HashSet<&'a str>,
    /// How many placeholders that makes.
    pub(crate) reassigned: u64,
}

impl<'a> Seats<'a> {
    /// In Clerk an address has one owner at a time, so of two claimants the newer one is right and
    /// the older one's snapshot is out of date.
    ///
    /// `holders` are those of the claimed addresses, read after the rows for which `is_locked` were locked.
    pub(crate) fn assign(
        winners: &BTreeMap<&'a str, &Winner<'a>>,
        holders: &'a [users::Holder],
        is_locked: impl Fn(&str) -> bool,
    ) -> Result<Self, TransactionError> {
        let mut seats = Self {
            released: BTreeSet::new(),
            without: HashSet::new(),
            reassigned: 0,
        };
        // Among the winners themselves.
        let mut claims: HashMap<&str, (&'a str, &Version)> = HashMap::new();
        for (clerk_id, winner) in winners {
            let (Goal::Row(_, version), Some(email)) = (winner.goal, winner.email()) else {
                continue;
            };
            match claims.get(email) {
                Some((_, best)) if *best > version => {
                    seats.without.insert(clerk_id);
                }
                best => {
                    seats.without.extend(best.map(|(older, _)| *older));
                    claims.insert(email, (clerk_id, version));
                }
            }
        }
        seats.reassigned += seats.without.len() as u64;
        // Against the rows that are there.
        for holder in holders {
            let Some((claimant, version)) = claims.get(holder.email.as_str()) else {
                continue;
            };
            if holder.clerk_id == *claimant {
                continue;
            }
            match winners
                .get(holder.clerk_id.as_str())
                .map(|winner| winner.goal)
            {
                // It goes anyway.
                Some(Goal::Gone) => {}
                // It moves to another address, or lost this one to the claimant above.
                Some(Goal::Row(..)) => {
                    seats.released.insert(&holder.clerk_id);
                }
                None if !is_locked(&holder.clerk_id) => {
                    // It came by the address between two statements.
                    return Err(TransactionError::Contention(Contention::Email));
                }
                None if newer_than(holder, version) => {
                    seats.without.insert(claimant);
                    seats.reassigned += 1;
                }
                None => {
                    seats.released.insert(&holder.clerk_id);
                    seats.reassigned += 1;
                }
            }
        }
        Ok(seats)
    }
}

pub(crate) fn newer_than(holder: &users::Holder, version: &Version) -> bool {
    let held = (
        holder.updated_at_ms.unwrap_or(i64::MIN),
        holder.occurred_at_ms.unwrap_or(i64::MIN),
        holder.event_id.as_deref().unwrap_or_default(),
    );
    held > (
        version.updated_at.0,
        version.occurred_at.0,
        version.event_id(),
    )
}

/// The users that claim an address of a row that the sync has never written, and that no event of
/// this batch makes ours.
pub(crate) fn unmanaged_claims(
    foreign: &[&users::Holder],
    candidates: &BTreeMap<&str, Winner<'_>>,
) -> Vec<String> {
    let unmanaged: HashSet<&str> = foreign
        .iter()
        .filter(|holder| holder.updated_at_ms.is_none())
        .filter(|holder| !candidates.contains_key(holder.clerk_id.as_str()))
        .map(|holder| holder.email.as_str())
        .collect();
    let claims_one = |winner: &Winner<'_>| winner.email().is_some_and(|e| unmanaged.contains(e));
    candidates
        .iter()
        .filter(|(_, winner)| claims_one(winner))
        .map(|(clerk_id, _)| (*clerk_id).to_owned())
        .collect()
}
