//! Clerk, the outside system.
//!
//! Enters: a key of an instance. Leaves: its users, to the byte as Clerk sent them ([`backend`]), and
//! who is signed in ([`token`]).
//! Guaranteed: never more requests than the instance's limit allows, whoever asks; an answer or an
//! error within the caller's patience; no key in any text. Never here: a database, a queue, or what
//! a user means.

pub mod backend;
pub mod token;
