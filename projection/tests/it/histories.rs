//! Random histories of a Clerk instance, delivered at random: the table equals the instance.
//!
//! `SEED=17` replays one history; `HISTORIES=5000` tries more of them than the tests do.

use std::{collections::BTreeMap, env, str::FromStr};

use clerk_sync_pipeline::Event;
use clerk_sync_projection::{MissingEmail, ProjectionConfig, change::Rules};
use rand::{
    Rng as _, SeedableRng as _,
    rngs::StdRng,
    seq::{IndexedRandom as _, IteratorRandom as _},
};

use crate::{
    clerk::{START, User, user},
    database::{Db, Held, Row},
    story::deliveries,
    workers::{each_is_applied_once, work},
};

#[tokio::test]
async fn any_history_delivered_in_any_way_ends_in_the_instances_users() {
    replay(&Db::in_memory().await, 200, 1).await;
}

#[tokio::test]
async fn any_history_delivered_to_four_workers_ends_in_the_instances_users() {
    replay(&Db::postgres().await, 40, 4).await;
}

async fn replay(db: &Db, histories: u64, workers: usize) {
    let histories = setting("HISTORIES").unwrap_or(histories);
    let seeds = match setting("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..histories,
    };
    let projection = db.configured(ProjectionConfig {
        rules: Rules {
            missing_email: MissingEmail::Placeholder,
            ..Rules::default()
        },
        initial_credits: 7,
    });
    for seed in seeds {
        db.wipe().await;
        let mut random = StdRng::seed_from_u64(seed);
        let steps = random.random_range(2..40);
        let mut clerk = Clerk::new(random.random_range(1..8));
        for _ in 0..steps {
            clerk.step(&mut random);
        }
        let largest = [1, 4, 30, 300][random.random_range(0..4)];
        let batches = deliveries(&clerk.events, &mut random, largest);
        let told = work(&projection, batches, workers).await;
        each_is_applied_once(&told);
        assert_eq!(db.rows().await, clerk.rows(), "SEED={seed}");
        assert_eq!(db.versions().await, clerk.versions, "SEED={seed}");
        assert_eq!(db.credits().await.len(), clerk.users.len(), "SEED={seed}");
    }
}

fn setting<T: FromStr>(name: &str) -> Option<T> {
    env::var(name).ok()?.parse().ok()
}

/// A Clerk instance: who is there now, and every event it ever sent.
struct Clerk {
    users: BTreeMap<String, User>,
    /// What the newest version of each user is, and who is deleted.
    versions: BTreeMap<String, Held>,
    /// Addresses that nobody has; some were somebody's.
    free: Vec<String>,
    events: Vec<Event>,
    most_users: usize,
    signed_up: usize,
    now: i64,
    sent: i64,
}

impl Clerk {
    fn new(most_users: usize) -> Self {
        Self {
            users: BTreeMap::new(),
            versions: BTreeMap::new(),
            // Few, so that they come around.
            free: (0..=most_users).map(|n| format!("{n}@a.example")).collect(),
            events: Vec::new(),
            most_users,
            signed_up: 0,
            now: START,
            sent: START,
        }
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.users.values().map(User::row).collect();
        rows.sort_by(|a, b| a.clerk_id.cmp(&b.clerk_id));
        rows
    }

    fn step(&mut self, random: &mut StdRng) {
        let someone = self.users.keys().choose(random).cloned();
        match (random.random_range(0..20), someone) {
            (0..6, _) | (_, None) => self.sign_up(random),
            (6..8, Some(id)) => self.edit(random, &id),
            (8..11, Some(id)) => self.move_to_a_free_address(random, &id),
            (11..15, Some(_)) => self.rotate(random),
            (15..16, Some(id)) => self.lose_the_address(random, &id),
            (16..18, Some(id)) => self.sign_in(random, &id),
            (_, Some(id)) => self.delete(random, &id),
        }
    }

    fn sign_up(&mut self, random: &mut StdRng) {
        if self.users.len() == self.most_users {
            return;
        }
        let email = self.take_a_free_address(random);
        // Ids that do not sort in the order of time.
        let name = format!("{}{}", random.random_range('A'..='z'), self.signed_up);
        self.signed_up += 1;
        self.change(random, user(&name).email(&email), User::created);
        if random.random_bool(0.5) {
            // The session that follows carries the very same user.
            self.sign_in(random, &format!("user_{name}"));
        }
    }

    fn edit(&mut self, random: &mut StdRng, id: &str) {
        let edited = self.users[id]
            .clone()
            .named(&format!("Edit {}", self.events.len()));
        self.change(random, edited, User::updated);
    }

    fn move_to_a_free_address(&mut self, random: &mut StdRng, id: &str) {
        let email = self.take_a_free_address(random);
        self.free_the_address_of(id);
        let moved = self.users[id].clone().email(&email);
        self.change(random, moved, User::updated);
    }

    /// Two or more users pass their addresses around, one event each: until the last of them
    /// there is one that two have.
    fn rotate(&mut self, random: &mut StdRng) {
        let ids: Vec<String> = self.users.keys().cloned().collect();
        let count = random.random_range(2..=4).min(ids.len());
        let around: Vec<String> = ids.choose_multiple(random, count).cloned().collect();
        let emails: Vec<Option<String>> = around.iter().map(|id| self.email_of(id)).collect();
        for (n, id) in around.iter().enumerate() {
            let moved = self.users[id].clone();
            let moved = match &emails[(n + 1) % count] {
                Some(email) => moved.email(email),
                None => moved.without_email(),
            };
            self.change(random, moved, User::updated);
        }
    }

    fn lose_the_address(&mut self, random: &mut StdRng, id: &str) {
        self.free_the_address_of(id);
        let lost = self.users[id].clone().without_email();
        self.change(random, lost, User::updated);
    }

    /// Sends the user as it is, with or without a new `updated_at`.
    fn sign_in(&mut self, random: &mut StdRng, id: &str) {
        let user = self.users[id].clone();
        if random.random_bool(0.5) {
            self.change(random, user, User::signed_in);
        } else {
            self.send(random, user, User::signed_in);
        }
    }

    fn delete(&mut self, random: &mut StdRng, id: &str) {
        self.free_the_address_of(id);
        let deleted = self.users[id].clone();
        self.tick(random);
        self.send(random, deleted, User::deleted);
        self.users.remove(id);
        self.versions.insert(id.to_owned(), Held::Tombstone);
    }

    fn change(&mut self, random: &mut StdRng, user: User, event: fn(&User, &str) -> Event) {
        self.tick(random);
        let user = user.changed_at(self.now);
        self.send(random, user, event);
    }

    /// Now and then two changes have the same millisecond.
    fn tick(&mut self, random: &mut StdRng) {
        if random.random_bool(0.8) {
            self.now += random.random_range(1..1_000);
        }
    }

    fn send(&mut self, random: &mut StdRng, user: User, event: fn(&User, &str) -> Event) {
        self.sent = self.now.max(self.sent + 1);
        let user = user.sent_at(self.sent);
        // Ids are random, and so say nothing of the order.
        let id = format!("msg_{:08x}_{}", random.random::<u32>(), self.events.len());
        self.events.push(event(&user, &id));
        self.versions
            .insert(user.id().to_owned(), user.version(&id));
        self.users.insert(user.id().to_owned(), user);
    }

    fn email_of(&self, id: &str) -> Option<String> {
        let email = self.users[id].row().email;
        (!email.ends_with(".invalid")).then_some(email)
    }

    fn free_the_address_of(&mut self, id: &str) {
        self.free.extend(self.email_of(id));
    }

    fn take_a_free_address(&mut self, random: &mut StdRng) -> String {
        let place = random.random_range(0..self.free.len());
        self.free.swap_remove(place)
    }
}
