//! The oracle against a receiver that is as plain as the rules: one event after the other, two
//! maps, no database. Small histories are delivered to it in every order there is, which shows
//! that the oracle is right, and that wherever it leaves something open, it really is open.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use clerk_sync_simulator::{Addressless, Email, Event, History, Plan};
use serde_json::Value;

use crate::{body, histories, sent_at, user};

/// 720 orders each at the most.
const MOST_EVENTS: usize = 6;

#[test]
fn with_placeholders_every_order_ends_in_the_table() {
    for history in histories(300) {
        let rows = history.table(Addressless::Placeholder);
        for row in &rows {
            assert!(matches!(row.email, Email::Is(_)), "{row:?} in {history:?}");
        }
        in_every_order(&small(history), Addressless::Placeholder);
    }
}

#[test]
fn with_dead_letters_every_order_ends_in_the_table() {
    let mut open = 0;
    for seed in 0..500 {
        let plan = Plan {
            seed,
            users: 2,
            rounds: 9,
        };
        open += in_every_order(&small(plan.live()), Addressless::DeadLetter);
    }
    assert!(open >= 5, "only {open} addresses depended on the order");
}

/// A few events in a row, of those that change a row. Where they start, they seem to come from
/// nowhere: the oracle must be right for any events.
fn small(history: History) -> History {
    let count = history.events.len();
    let start = count.saturating_sub(MOST_EVENTS) / 2;
    let kept: HashSet<usize> = (start..count)
        .filter(|index| history.events[*index].clerk_id.is_some())
        .take(MOST_EVENTS)
        .collect();
    history.only(|index| kept.contains(&index))
}

/// Returns how many addresses were left open, each of which was seen both ways.
fn in_every_order(history: &History, addressless: Addressless) -> usize {
    let rows = history.table(addressless);
    let last_words = history.last_words(addressless);
    let deliveries: Vec<Delivery> = history.events.iter().map(Delivery::of).collect();
    let mut seen: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let (mut sometimes, mut always) = (BTreeSet::new(), None);
    permute(&mut (0..deliveries.len()).collect(), 0, &mut |order| {
        let mut receiver = Receiver::new(addressless);
        for index in order {
            receiver.receive(&deliveries[*index]);
        }
        let told = || format!("{order:?} of {history:?}");
        assert_eq!(receiver.rows.len(), rows.len(), "{}", told());
        for row in &rows {
            let clerk_id = row.clerk_id.as_str();
            let (email, version) = &receiver.rows[clerk_id];
            assert!(row.email.admits(email), "{email} for {row:?}: {}", told());
            assert_eq!(version.2, last_words[clerk_id].id, "{}", told());
            assert_eq!(version.0, row.updated_at, "{}", told());
            let emails = seen.entry(clerk_id).or_default();
            if !emails.contains(email) {
                emails.insert(email.clone());
            }
        }
        sometimes.extend(receiver.refused.iter().copied());
        always = Some(match always.take() {
            None => receiver.refused,
            Some(so_far) => &so_far & &receiver.refused,
        });
    });
    if addressless == Addressless::DeadLetter {
        let letters = history.dead_letters();
        assert_eq!(always.unwrap_or_default(), letters.must, "{history:?}");
        assert_eq!(sometimes, &letters.must | &letters.may, "{history:?}");
    }
    let mut open = 0;
    for row in &rows {
        let expected: BTreeSet<String> = match &row.email {
            Email::Is(email) => [email.clone()].into(),
            Email::OneOf(several) => several.iter().cloned().collect(),
        };
        open += expected.len() - 1;
        assert_eq!(
            seen[row.clerk_id.as_str()],
            expected,
            "{row:?} in {history:?}"
        );
    }
    open
}

fn permute(order: &mut Vec<usize>, fixed: usize, visit: &mut impl FnMut(&[usize])) {
    if fixed == order.len() {
        return visit(order);
    }
    for next in fixed..order.len() {
        order.swap(fixed, next);
        permute(order, fixed + 1, visit);
        order.swap(fixed, next);
    }
}

/// `updated_at`, `timestamp` in milliseconds, id.
type Version = (i64, i64, String);

/// An event as a receiver reads it.
struct Delivery {
    version: Version,
    clerk_id: String,
    /// `None`: the user is gone.
    email: Option<Option<String>>,
}

impl Delivery {
    fn of(event: &Event) -> Self {
        let body = body(event);
        let user = user(&body);
        let updated_at = user.map_or(0, |user| user["updated_at"].as_i64().unwrap());
        Self {
            version: (updated_at, sent_at(&body), event.id.clone()),
            clerk_id: event.clerk_id.clone().unwrap(),
            email: user.map(address),
        }
    }
}

/// The primary address, else the first verified one.
fn address(user: &Value) -> Option<String> {
    let addresses = user["email_addresses"].as_array().unwrap();
    let primary = &user["primary_email_address_id"];
    let primary = addresses
        .iter()
        .find(|one| !primary.is_null() && one["id"] == *primary);
    let verified = |one: &&Value| one["verification"]["status"] == "verified";
    let chosen = primary.or_else(|| addresses.iter().find(verified))?;
    Some(chosen["email_address"].as_str().unwrap().to_owned())
}

/// The three rules, one event at a time.
struct Receiver<'a> {
    addressless: Addressless,
    rows: BTreeMap<&'a str, (String, &'a Version)>,
    tombstones: HashSet<&'a str>,
    refused: BTreeSet<&'a str>,
}

impl<'a> Receiver<'a> {
    fn new(addressless: Addressless) -> Self {
        Self {
            addressless,
            rows: BTreeMap::new(),
            tombstones: HashSet::new(),
            refused: BTreeSet::new(),
        }
    }

    fn receive(&mut self, delivery: &'a Delivery) {
        let (clerk_id, version) = (delivery.clerk_id.as_str(), &delivery.version);
        let Some(email) = &delivery.email else {
            self.tombstones.insert(clerk_id);
            self.rows.remove(clerk_id);
            return;
        };
        let held = self.rows.get(clerk_id).map(|(_, held)| *held);
        if self.tombstones.contains(clerk_id) || held >= Some(version) {
            return;
        }
        let mut email = match (email, self.addressless) {
            (Some(email), _) => email.clone(),
            (None, Addressless::Placeholder) => format!("{clerk_id}@no-email.invalid"),
            (None, Addressless::DeadLetter) => {
                self.refused.insert(&version.2);
                return;
            }
        };
        let mut others = self.rows.iter_mut().filter(|(id, _)| **id != clerk_id);
        if let Some((holder, (held, since))) = others.find(|(_, (held, _))| *held == email) {
            if *since > version {
                email = format!("{clerk_id}@reassigned.invalid");
            } else {
                *held = format!("{holder}@reassigned.invalid");
            }
        }
        self.rows.insert(clerk_id, (email, version));
    }
}
