//! Clerk, the outside system.
//!
//! Enters: a key of an instance. Leaves: its users, to the byte as Clerk sent them ([`backend`]), and
//! who is signed in ([`token`]).
//! Guaranteed: no more requests of this process than its share of the instance's limit; an answer or an
//! error within the caller's patience; no key in any text. Never here: a database, a queue, or what
//! a user means.

pub mod backend;
mod cleartext;
pub mod token;
