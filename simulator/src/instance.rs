//! The instance itself: its users, who owns which address, its clock, and what it sends.

use std::collections::{BTreeMap, HashMap};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;

use crate::{
    history::{Event, History, Told},
    payload,
    person::{Address, Person},
};

/// Where its time begins: 2026-06-01, in milliseconds.
const START: i64 = 1_780_272_000_000;
/// Ascending bytewise, so that ids of one length ascend with the numbers that they spell.
const BASE_62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Characters of an id after its prefix.
const ID_LENGTH: usize = 27;

pub(crate) struct Instance {
    pub(crate) random: StdRng,
    /// Who is there.
    pub(crate) people: Vec<Person>,
    /// In milliseconds.
    pub(crate) now: i64,
    /// Addresses that deleted users had, the last one last. Some have found another owner.
    pub(crate) left_behind: Vec<String>,
    pub(crate) history: History,
    /// Whether `timestamp` is in seconds. An instance has one unit: were there two, of two events
    /// within a second none could say which was first.
    in_seconds: bool,
    /// When the last event was sent, in milliseconds. They are sent in the order of the changes.
    sent: i64,
    /// Each address's one owner, by Clerk id.
    owners: HashMap<String, String>,
    /// Addresses that somebody had before. Some have found another owner.
    freed: Vec<String>,
    /// How many addresses there ever were.
    addresses: usize,
    domain: String,
}

impl Instance {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let in_seconds = random.random_bool(0.5);
        let instance_id = format!("ins_{}", base_62(&mut random, ID_LENGTH));
        let domain = base_62(&mut random, 8).to_lowercase();
        Self {
            random,
            people: Vec::new(),
            now: START,
            left_behind: Vec::new(),
            history: History {
                instance_id,
                events: Vec::new(),
                changes: BTreeMap::new(),
            },
            in_seconds,
            sent: START,
            owners: HashMap::new(),
            freed: Vec::new(),
            addresses: 0,
            domain,
        }
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.random.random_bool(probability)
    }

    /// Somebody, if anybody is there.
    pub(crate) fn anybody(&mut self) -> Option<usize> {
        let count = self.people.len();
        (count > 0).then(|| self.random.random_range(0..count))
    }

    /// Time goes on, or several changes share a millisecond.
    pub(crate) fn tick(&mut self) {
        self.now += match self.random.random_range(0..10) {
            0..3 => 0,
            3..5 => 1,
            5..8 => self.random.random_range(2..1_000),
            8 => self.random.random_range(1_000..60_000),
            _ => self.random.random_range(60_000..86_400_000),
        };
    }

    /// An id of this kind, like no other. Ids say nothing of the order in which they were made.
    pub(crate) fn id(&mut self, prefix: &str) -> String {
        format!("{prefix}{}", base_62(&mut self.random, ID_LENGTH))
    }

    // ---- addresses

    /// A free address, given to this user: one that others had before, or a new one.
    pub(crate) fn take_any_address(&mut self, clerk_id: &str) -> Address {
        while !self.freed.is_empty() && self.chance(0.6) {
            let last = self.freed.len() - 1;
            let place = if self.chance(0.5) {
                last
            } else {
                self.random.random_range(0..=last)
            };
            let email = self.freed.swap_remove(place);
            if self.is_free(&email) {
                return self.take(email, clerk_id);
            }
        }
        self.addresses += 1;
        let email = format!("mail{}@{}.example", self.addresses, self.domain);
        self.take(email, clerk_id)
    }

    pub(crate) fn is_free(&self, email: &str) -> bool {
        !self.owners.contains_key(email)
    }

    /// Gives a free address to a user.
    pub(crate) fn take(&mut self, email: String, clerk_id: &str) -> Address {
        let owner = self.owners.insert(email.clone(), clerk_id.to_owned());
        assert_eq!(owner, None, "an address has one owner at a time");
        Address {
            id: self.id("idn_"),
            email,
            verified: true,
            created_at: self.now,
        }
    }

    /// Takes this user's addresses away, all but the one to keep.
    pub(crate) fn give_up_addresses(&mut self, who: usize, kept: Option<&str>) {
        let person = &mut self.people[who];
        let given_up = person
            .addresses
            .extract_if(.., |address| Some(&*address.id) != kept);
        for address in given_up {
            let owner = self.owners.remove(&address.email);
            assert_eq!(
                owner.as_deref(),
                Some(&*person.clerk_id),
                "an owner gives up what it has"
            );
            self.freed.push(address.email);
        }
    }

    // ---- events

    /// Something about a user has changed: it is sent as it is now.
    pub(crate) fn changed(&mut self, who: usize) {
        self.people[who].updated_at = self.now;
        self.tell("user.updated", who);
    }

    /// Sends a user as it is.
    pub(crate) fn tell(&mut self, event_type: &'static str, who: usize) {
        let data = payload::user(&self.people[who]);
        let told = Told::User(self.people[who].snapshot());
        let clerk_id = self.people[who].clerk_id.clone();
        self.send(event_type, Some(clerk_id), &data, told);
    }

    /// Sends anything.
    pub(crate) fn send(
        &mut self,
        event_type: &'static str,
        clerk_id: Option<String>,
        data: &Value,
        told: Told,
    ) {
        let delay = self.random.random_range(4..=58);
        self.sent = self.sent.max(self.now + delay);
        let timestamp = if self.in_seconds {
            self.sent / 1_000
        } else {
            self.sent
        };
        let by_api = self.chance(0.2);
        let instance_id = &self.history.instance_id;
        let event = Event {
            body: payload::envelope(event_type, data, timestamp, instance_id, by_api),
            id: self.event_id(),
            event_type,
            clerk_id,
            occurred_at: if self.in_seconds {
                timestamp * 1_000
            } else {
                timestamp
            },
            told,
        };
        self.history.events.push(event);
    }

    /// As Svix makes them, the time first; then the number of the event, since the order of two
    /// changes in one millisecond is that of their ids; then noise.
    fn event_id(&mut self) -> String {
        let time = spelled(self.sent.unsigned_abs(), 8);
        let number = spelled(self.history.events.len() as u64, 6);
        let noise = base_62(&mut self.random, ID_LENGTH - 14);
        format!("msg_{time}{number}{noise}")
    }
}

fn base_62(random: &mut StdRng, length: usize) -> String {
    let letter = |_| char::from(BASE_62[random.random_range(0..BASE_62.len())]);
    (0..length).map(letter).collect()
}

/// A number in base 62, with zeros in front.
fn spelled(mut number: u64, length: usize) -> String {
    let mut letters = vec![b'0'; length];
    for letter in letters.iter_mut().rev() {
        let digit = usize::try_from(number % 62).expect("a digit is small");
        *letter = BASE_62[digit];
        number /= 62;
    }
    letters.into_iter().map(char::from).collect()
}
