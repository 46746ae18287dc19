//! Addresses that move: within a user, between users, and away.

use rand::Rng as _;

use crate::{changes::Change, instance::Instance};

impl Instance {
    pub(crate) fn move_address(&mut self, who: usize) -> Change {
        let kept = self.people[who].address().map(|address| address.id.clone());
        let kept = kept.filter(|_| self.chance(0.3));
        self.move_to(who, None, kept.as_deref());
        Change::AddressMoved
    }

    /// Another primary address: this one, if it is free, or any that is. Of the others, one may be
    /// kept, in front of it.
    fn move_to(&mut self, who: usize, email: Option<String>, kept: Option<&str>) {
        let clerk_id = self.people[who].clerk_id.clone();
        let address = match email.filter(|email| self.is_free(email)) {
            Some(email) => self.take(email, &clerk_id),
            None => self.take_any_address(&clerk_id),
        };
        self.give_up_addresses(who, kept);
        self.people[who].primary = Some(address.id.clone());
        self.people[who].addresses.push(address);
        self.changed(who);
    }

    /// The first one steps aside, each of the others takes the place of the one before, and the
    /// first one the place of the last.
    pub(crate) fn swap_addresses(&mut self, who: usize) -> Change {
        let count = self.people.len();
        let around = count.min(self.random.random_range(2..=3));
        let ring: Vec<usize> = (0..around).map(|n| (who + n) % count).collect();
        let emails = ring.iter().map(|who| self.email_of(*who));
        let emails: Option<Vec<String>> = emails.collect();
        let Some(emails) = emails.filter(|emails| emails.len() > 1) else {
            return self.move_address(who);
        };
        self.move_to(who, None, None);
        for (who, email) in ring.iter().skip(1).chain([&who]).zip(emails) {
            self.tick();
            self.move_to(*who, Some(email), None);
        }
        Change::AddressesSwapped
    }

    pub(crate) fn take_over_address(&mut self, who: usize) -> Change {
        let count = self.people.len();
        let (Some(email), true) = (self.email_of(who), count > 1) else {
            return self.move_address(who);
        };
        let heir = (who + self.random.random_range(1..count)) % count;
        if self.chance(0.3) {
            self.remove_addresses(who);
        } else {
            self.move_to(who, None, None);
        }
        self.tick();
        self.move_to(heir, Some(email), None);
        Change::AddressTakenOver
    }

    pub(crate) fn email_of(&self, who: usize) -> Option<String> {
        self.people[who]
            .address()
            .map(|address| address.email.clone())
    }

    pub(crate) fn lose_primary(&mut self, who: usize) -> Change {
        self.people[who].primary = Some(self.id("idn_"));
        self.changed(who);
        Change::PrimaryDangling
    }

    pub(crate) fn remove_addresses(&mut self, who: usize) -> Change {
        self.give_up_addresses(who, None);
        self.people[who].primary = None;
        if self.people[who].phone.is_none() {
            self.give_phone(who);
        }
        self.changed(who);
        Change::AddressRemoved
    }
}
