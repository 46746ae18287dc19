//! The ingester over real sockets. Only the queue is a stand-in: what is tested is what enters at
//! the port, what leaves to the queue, and what is answered.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod allocations;
mod config;
mod drain;
mod encodings;
mod limits;
mod rig;
mod signature;
mod status;
