//! Events to rows. The only place that writes domain tables.
//!
//! Enters: a [`Batch`] of events, in any order, any number of times; or [`Snapshot`]s that no event
//! brought. Leaves: rows of `users` equal to Clerk's, and a [`Verdict`] for each event. Guaranteed, by three rules: versions (only a newer
//! snapshot is applied), tombstones (a deleted user stays deleted), addresses move (to the newer
//! claimant, in the same transaction). Never here: the queue, retries' delays, HTTP.
//!
//! The pure part ([`change`], [`version`], `batch`, `reduce`, `seats`) knows no database; `apply`
//! is one transaction.

mod apply;
mod batch;
pub mod change;
pub mod config;
pub mod database;
mod failure;
mod housekeeping;
pub mod inspect;
mod plan;
mod reduce;
mod seats;
mod snapshot;
mod standing;
mod survey;
mod transaction;
pub mod user;
pub mod version;

pub use apply::{Projection, ProjectionConfig};
pub use batch::{Batch, Verdict};
pub use failure::{Unavailable, is_unavailable};
pub use snapshot::{Snapshot, SnapshotOutcome};
pub use standing::Standing;
pub use survey::Listed;
pub use user::MissingEmail;

/// What only the benches and the guard of allocations need.
#[doc(hidden)]
pub mod benching {
    use crate::{change::Read, reduce::winners};

    /// How many users have a last word among these events.
    pub fn reduce<'a>(events: impl IntoIterator<Item = &'a Read>) -> usize {
        winners(events.into_iter().enumerate()).len()
    }
}
