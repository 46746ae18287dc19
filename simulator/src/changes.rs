//! What happens in an instance, by chance.

use rand::Rng as _;

use crate::{
    Plan,
    history::{History, Told},
    instance::Instance,
    payload,
    person::Person,
};

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// A new user with one address.
    SignUp,
    /// A new user with several addresses, the primary one not the first.
    SignUpWithSeveralAddresses,
    /// A new user with a phone number alone.
    SignUpWithoutAddress,
    /// A new user with the address of a deleted one, under an id of its own.
    SignUpAgain,
    /// Another name, none, or another picture.
    ProfileEdit,
    /// Something that is not projected: only `updated_at` moves.
    MetadataEdit,
    /// Several edits of one user in one millisecond: only the events' ids tell which was last.
    Burst,
    /// Another primary address. The old one stays with the user, or is freed.
    AddressMoved,
    /// Users pass their addresses around, by way of a temporary one.
    AddressesSwapped,
    /// A user frees its address, and at once another one takes it.
    AddressTakenOver,
    /// The primary address is gone, and `primary_email_address_id` still names it.
    PrimaryDangling,
    /// The last address is removed.
    AddressRemoved,
    /// A session event that carries the whole user, with a new `updated_at` or the old one.
    SignIn,
    /// A session event with `user: null`.
    SessionWithoutUser,
    /// The user is deleted, for good. Its sessions end, now and then after that.
    Deletion,
    /// An event of a family that is not projected, or of one that does not exist yet.
    OtherFamily,
}

pub(crate) fn live(plan: Plan) -> History {
    let mut instance = Instance::new(plan.seed);
    let steps = plan.users.saturating_mul(plan.rounds.saturating_add(1));
    for _ in 0..steps {
        instance.tick();
        let room = instance.people.len() < plan.users;
        let change = match instance.anybody() {
            Some(who) if !(room && instance.chance(0.5)) => instance.change(who),
            _ => instance.sign_up(),
        };
        *instance.history.changes.entry(change).or_default() += 1;
    }
    instance.history
}

impl Instance {
    /// Something happens to somebody.
    fn change(&mut self, who: usize) -> Change {
        match self.random.random_range(0..100) {
            0..12 => self.edit_profile(who),
            12..20 => self.edit_metadata(who),
            20..26 => self.burst(who),
            26..40 => self.move_address(who),
            40..54 => self.swap_addresses(who),
            54..64 => self.take_over_address(who),
            64..67 => self.lose_primary(who),
            67..73 => self.remove_addresses(who),
            73..83 => self.sign_in(who),
            83..86 => self.session_without_user(who),
            86..96 => self.delete(who),
            _ => self.other_family(who),
        }
    }

    // ---- coming and going

    fn sign_up(&mut self) -> Change {
        let clerk_id = self.id("user_");
        let person = Person {
            external_id: self
                .chance(0.3)
                .then(|| format!("crm-{}", &clerk_id[5..11])),
            image_url: format!("https://img.clerk.com/{clerk_id}"),
            first_name: None,
            last_name: None,
            addresses: Vec::new(),
            primary: None,
            phone: None,
            edition: 0,
            last_sign_in_at: None,
            // An import through the API keeps the day on which the user came.
            created_at: if self.chance(0.1) {
                self.now - 31_536_000_000
            } else {
                self.now
            },
            updated_at: 0,
            clerk_id,
        };
        self.people.push(person);
        let who = self.people.len() - 1;
        let change = self.sign_up_with_addresses(who);
        self.name(who);
        self.now += self.random.random_range(18..=56);
        self.people[who].updated_at = self.now;
        self.tell("user.created", who);
        if self.chance(0.3) {
            self.sign_in(who);
        }
        change
    }

    fn sign_up_with_addresses(&mut self, who: usize) -> Change {
        let kind = self.random.random_range(0..10);
        if kind == 0 {
            self.give_phone(who);
            return Change::SignUpWithoutAddress;
        }
        let clerk_id = self.people[who].clerk_id.clone();
        let left_behind = if kind < 5 {
            self.left_behind.pop()
        } else {
            None
        };
        let (address, change) = match left_behind.filter(|email| self.is_free(email)) {
            Some(email) => (self.take(email, &clerk_id), Change::SignUpAgain),
            None => (self.take_any_address(&clerk_id), Change::SignUp),
        };
        let primary = address.id.clone();
        let mut addresses = vec![address];
        if kind >= 8 {
            for _ in 0..self.random.random_range(1..3) {
                let mut other = self.take_any_address(&clerk_id);
                other.verified = self.chance(0.7);
                addresses.insert(0, other);
            }
        }
        let several = addresses.len() > 1;
        self.people[who].primary = Some(primary);
        self.people[who].addresses = addresses;
        if several {
            Change::SignUpWithSeveralAddresses
        } else {
            change
        }
    }

    fn delete(&mut self, who: usize) -> Change {
        let primary = self.people[who]
            .address()
            .map(|address| address.email.clone());
        let last = self.people[who].clone();
        self.give_up_addresses(who, None);
        self.left_behind.extend(primary);
        self.people.swap_remove(who);
        let clerk_id = Some(last.clerk_id.clone());
        self.send(
            "user.deleted",
            clerk_id.clone(),
            &payload::deleted(&last),
            Told::Gone,
        );
        if self.chance(0.3) {
            // The session ends with its user, and its event still carries it.
            let id = self.id("sess_");
            let data = payload::session(&id, "removed", self.now, &last, true);
            self.send(
                "session.removed",
                clerk_id,
                &data,
                Told::User(last.snapshot()),
            );
        }
        Change::Deletion
    }

    // ---- profile

    fn edit_profile(&mut self, who: usize) -> Change {
        if self.chance(0.3) {
            let picture = self.id("https://img.clerk.com/");
            self.people[who].image_url = picture;
        } else {
            self.name(who);
        }
        self.changed(who);
        Change::ProfileEdit
    }

    /// Another name, or none.
    fn name(&mut self, who: usize) {
        const NAMES: [&str; 12] = [
            "Maren",
            "Holt-Aas",
            "O'Neill",
            "van der Berg",
            "Zoë",
            "Zoe\u{308}",
            "李小龍",
            "עֲדִינָה",
            "Ελένη",
            "👩🏽‍🚀",
            "Robert'); DROP TABLE users;--",
            "",
        ];
        let mut name = || {
            let place = self.random.random_range(0..16);
            NAMES.get(place).map(|name| (*name).to_owned())
        };
        let (first, last) = (name(), name());
        self.people[who].first_name = first;
        self.people[who].last_name = last;
    }

    fn edit_metadata(&mut self, who: usize) -> Change {
        self.people[who].edition += 1;
        self.changed(who);
        Change::MetadataEdit
    }

    fn burst(&mut self, who: usize) -> Change {
        for _ in 0..self.random.random_range(2..5) {
            self.edit_profile(who);
        }
        Change::Burst
    }

    pub(crate) fn give_phone(&mut self, who: usize) {
        let id = self.id("idn_");
        let number = format!("+1555{:07}", self.random.random_range(0..10_000_000));
        self.people[who].phone = Some((id, number));
    }

    // ---- beside the users

    fn sign_in(&mut self, who: usize) -> Change {
        const KINDS: [(&str, &str); 5] = [
            ("session.created", "active"),
            ("session.pending", "pending"),
            ("session.ended", "ended"),
            ("session.removed", "removed"),
            ("session.revoked", "revoked"),
        ];
        let (event_type, status) = KINDS[self.random.random_range(0..KINDS.len())];
        if self.chance(0.5) {
            self.people[who].last_sign_in_at = Some(self.now);
            self.now += self.random.random_range(0..=62);
            self.people[who].updated_at = self.now;
        }
        let id = self.id("sess_");
        let person = &self.people[who];
        let data = payload::session(&id, status, self.now, person, true);
        let (clerk_id, told) = (person.clerk_id.clone(), Told::User(person.snapshot()));
        self.send(event_type, Some(clerk_id), &data, told);
        Change::SignIn
    }

    fn session_without_user(&mut self, who: usize) -> Change {
        let id = self.id("sess_");
        let data = payload::session(&id, "ended", self.now, &self.people[who], false);
        self.send("session.ended", None, &data, Told::Nothing);
        Change::SessionWithoutUser
    }

    fn other_family(&mut self, who: usize) -> Change {
        if self.chance(0.5) {
            let id = self.id("org_");
            let data = payload::organization(&id, self.now);
            self.send("organization.created", None, &data, Told::Nothing);
        } else {
            let id = self.id("pk_");
            let data = payload::passkey(&id, self.now, Some(&self.people[who].clerk_id));
            self.send("userPasskey.enrolled", None, &data, Told::Nothing);
        }
        Change::OtherFamily
    }
}
