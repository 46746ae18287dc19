//! A Clerk instance that never was: everything that happens in it, the events it sends, and the
//! rows that `users` must hold once they all have arrived.
//!
//! Enters: a [`Plan`]. Leaves: a [`History`], the same to the byte whenever its seed is the same.
//! Guaranteed: an address has one owner at any moment; within one user, and among the users that
//! ever had one address, events come in the order of their versions. Never here: any of our other
//! crates. Payloads, the mapping to rows and the rules are written from the documents a second
//! time, so that what is judged by this is not judged by itself.
//!
//! ```
//! use clerk_sync_simulator::{Addressless, Plan};
//!
//! let history = Plan { seed: 17, users: 5, rounds: 4 }.live();
//! for event in &history.events {
//!     // Deliver `event.body` as `event.id`, in any order and any number of times …
//!     assert!(event.id.starts_with("msg_"));
//! }
//! // … and the table must be this one.
//! let rows = history.table(Addressless::Placeholder);
//! assert!(rows.iter().all(|row| !history.deleted().contains(row.clerk_id.as_str())));
//! ```

mod changes;
mod expected;
mod history;
mod instance;
mod moves;
mod payload;
mod person;

pub use changes::Change;
pub use expected::{Addressless, DeadLetters, Email, Row};
pub use history::{Event, History};

/// What kind of instance to live through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where all randomness comes from.
    pub seed: u64,
    /// How many users are signed up at once, at most. Whoever is deleted makes room.
    pub users: usize,
    /// How often things go around: in each round there is about one change per user, after a first
    /// round of sign-ups.
    pub rounds: usize,
}

impl Plan {
    /// Lives through the plan: the same plan, the same history, to the byte.
    #[must_use]
    pub fn live(&self) -> History {
        changes::live(*self)
    }
}
