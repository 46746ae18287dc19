//! One instance, and one way in which its events are delivered: plain data, which shrinks.

use std::fmt;

use clerk_sync_pipeline::Event;
use clerk_sync_simulator::{self as simulator, History, Plan};
use proptest::{
    bool::weighted,
    collection::vec,
    option,
    prelude::{BoxedStrategy, Just, Strategy, any},
    prop_oneof,
};

use crate::clerk::event;

/// How many events of an instance are delivered: its first ones. Enough for four users to get into
/// each other's way, and few enough for thousands of cases.
const EVENTS: usize = 24;

/// What is tried. Shrinks from top to bottom.
#[derive(Clone)]
pub(super) struct Case {
    plan: Plan,
    /// Whether event `n` is sent at all. All are, until a failure shrinks.
    sent: Vec<bool>,
    /// Further deliveries: of which event, and where in the line.
    copies: Vec<(usize, u8)>,
    /// When somebody asks the Backend API, as how many events have happened by then; and where in
    /// the line the answer is applied.
    asks: Vec<(usize, u8)>,
    /// What somebody does to rows in the end: to whose, and what.
    pub(super) damage: Vec<(u8, Damage)>,
    /// What befalls the first applications of a batch. Those after them go well.
    crashes: Vec<Option<Crash>>,
    /// How many deliveries each batch takes; after the last size, the first.
    sizes: Vec<usize>,
    /// Whether, in the end, the ledger is pruned and everything comes again.
    pub(super) pruned: bool,
    /// Where in the line event `n` comes. Those with one place come in their own order.
    places: Vec<u8>,
}

/// What the application, or a person, does to a row behind the sync's back.
#[derive(Clone, Copy, Debug)]
pub(super) enum Damage {
    Removes,
    Renames,
    Readdresses,
    TakesItsImage,
}

impl Damage {
    fn any() -> impl Strategy<Value = Self> {
        prop_oneof![
            Just(Self::Removes),
            Just(Self::Renames),
            Just(Self::Readdresses),
            Just(Self::TakesItsImage),
        ]
    }
}

/// How the application of a batch is interrupted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Crash {
    /// The worker dies between two statements, when so many are answered. What it was told is lost.
    AfterStatements(usize),
    /// The worker dies after so many polls, with something under way to the database, which may be
    /// the commit. What it was told is lost.
    AfterPolls(usize),
    /// After so many polls, the server terminates all sessions that are in a transaction. Workers
    /// live, and try again.
    OfSessions(usize),
}

impl Crash {
    /// A batch takes 4 to 9 statements, and an event that is applied alone as many again; so some
    /// workers die after all of them, before they could answer.
    pub(super) fn of_a_worker() -> impl Strategy<Value = Self> {
        prop_oneof![
            (1..=12_usize).prop_map(Self::AfterStatements),
            (0..=12_usize).prop_map(Self::AfterPolls),
        ]
    }

    pub(super) fn any() -> impl Strategy<Value = Self> {
        let of_sessions = (0..=12_usize).prop_map(Self::OfSessions);
        prop_oneof![2 => Self::of_a_worker(), 1 => of_sessions]
    }
}

/// What was sent, as the simulator has it and as a worker gets it, both in the order in which it
/// happened; and how it is delivered.
pub(super) struct Story {
    pub(super) history: History,
    pub(super) events: Vec<Event>,
    /// What the workers are given, in this order.
    pub(super) line: Vec<Work>,
}

/// What a worker applies in one go.
#[derive(Clone, Debug)]
pub(super) enum Work {
    /// Deliveries, as indices of the events.
    Events(Vec<usize>),
    /// The instance as it was when so many events had happened.
    Snapshots(usize),
}

impl Story {
    /// Whether somebody asks the Backend API.
    pub(super) fn is_asked_for(&self) -> bool {
        let asks = |work: &Work| matches!(work, Work::Snapshots(_));
        self.line.iter().any(asks)
    }

    /// The id under which an event is delivered. The simulator's ids ascend, which would forgive a
    /// receiver that goes by them alone. These ascend only where nothing else tells two changes
    /// apart: they begin with the moment, its digits backwards.
    pub(super) fn id(event: &simulator::Event) -> String {
        let digits = event.occurred_at().to_string();
        let backwards: String = digits.chars().rev().collect();
        format!("{backwards}_{}", event.id)
    }
}

impl Case {
    pub(super) fn any(crash: BoxedStrategy<Crash>) -> impl Strategy<Value = Self> {
        // With another seed or another number of users the history is another one, so these do not
        // shrink. With fewer rounds it ends earlier.
        let plan = (any::<u64>(), 1..=4_usize);
        (
            (plan.no_shrink(), 0..=5_usize),
            vec(weighted(1.0), EVENTS),
            vec((0..EVENTS, any::<u8>()), 0..10),
            (
                vec((0..=EVENTS, any::<u8>()), 0..6),
                vec((any::<u8>(), Damage::any()), 0..4),
            ),
            vec(option::weighted(0.3, crash), 8),
            vec(prop_oneof![1..=3_usize, 4..=EVENTS], 1..4),
            weighted(0.25),
            vec(any::<u8>(), EVENTS),
        )
            .prop_map(
                |(
                    ((seed, users), rounds),
                    sent,
                    copies,
                    (asks, damage),
                    crashes,
                    sizes,
                    pruned,
                    places,
                )| Self {
                    plan: Plan {
                        seed,
                        users,
                        rounds,
                    },
                    sent,
                    copies,
                    asks,
                    damage,
                    crashes,
                    sizes,
                    pruned,
                    places,
                },
            )
    }

    pub(super) fn story(&self) -> Story {
        let sent = |index: usize| self.sent.get(index).copied().unwrap_or_default();
        let history = self.plan.live();
        let line = self.line(history.events.len().min(EVENTS));
        let history = history.only(sent);
        let delivered =
            |sent: &simulator::Event| event(&Story::id(sent), sent.event_type, sent.body.clone());
        Story {
            events: history.events.iter().map(delivered).collect(),
            history,
            line,
        }
    }

    /// The deliveries in batches, and between them what was asked for.
    fn line(&self, count: usize) -> Vec<Work> {
        let mut line: Vec<Work> = self.batches(count).into_iter().map(Work::Events).collect();
        for (moment, place) in &self.asks {
            let moment = self.sent[..*moment.min(&count)]
                .iter()
                .filter(|sent| **sent);
            let place = usize::from(*place) * (line.len() + 1) / 256;
            line.insert(place, Work::Snapshots(moment.count()));
        }
        line
    }

    /// The deliveries in batches, cut before those are left out that are not sent, so that all
    /// others stay where they were.
    fn batches(&self, count: usize) -> Vec<Vec<usize>> {
        let mut line: Vec<(u8, usize)> = self.places.iter().copied().zip(0..count).collect();
        let copies = self.copies.iter().filter(|_| count > 0);
        line.extend(copies.map(|(index, place)| (*place, index % count)));
        line.sort_by_key(|(place, _)| *place);
        let place_among_sent = |index: usize| {
            let before = self.sent[..index].iter().filter(|sent| **sent).count();
            self.sent[index].then_some(before)
        };
        let mut line = line.into_iter().map(|(_, index)| index).peekable();
        let mut sizes = self.sizes.iter().cycle();
        let mut batches = Vec::new();
        while line.peek().is_some() {
            let size = *sizes.next().expect("there is one size at least");
            let batch: Vec<usize> = line
                .by_ref()
                .take(size)
                .filter_map(place_among_sent)
                .collect();
            if !batch.is_empty() {
                batches.push(batch);
            }
        }
        batches
    }

    /// What befalls the first applications of a batch.
    pub(super) fn crashes(&self) -> Vec<Option<Crash>> {
        self.crashes.clone()
    }
}

impl fmt::Debug for Case {
    /// The seed, what was sent, and how it was delivered.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let story = self.story();
        writeln!(f, "{:?} with {:?}", self.plan, story.history)?;
        write!(f, "applied in this order: {:?}", story.line)?;
        for (n, crash) in self.crashes.iter().enumerate() {
            if let Some(crash) = crash {
                write!(f, "\napplication {n} crashes {crash:?}")?;
            }
        }
        for (whose, damage) in &self.damage {
            write!(f, "\nthen somebody {damage:?} {whose}")?;
        }
        if self.pruned {
            write!(f, "\nand everything again, with the ledger pruned")?;
        }
        Ok(())
    }
}
