//! The ingester: receives Clerk's webhooks and queues them.
//!
//! Enters: HTTP/1.1 and HTTP/2 requests signed by Svix. Leaves: the exact bytes of each verified
//! one, published, and an answer. Guaranteed: 204 only after the queue confirmed the event; nothing
//! unverified is queued; every answer within 10 s of the request's head; a shutdown answers what has
//! arrived. This crate never parses a body beyond its `type`, stores nothing, and knows no
//! database.

mod activity;
pub mod config;
mod connection;
mod crowd;
mod drain;
mod envelope;
mod files;
mod handler;
mod key;
mod places;
pub mod process;
mod refusal;
mod server;
mod socket;
mod trace_context;
pub mod verify;
mod webhook;

pub use config::{IngestArgs, PortLimits};
pub use handler::{Both, Handler, Neighbour};
pub use server::{run, run_beside, serve};

/// What only the fuzz targets (tests/properties), the benches and the guard of allocations need.
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::envelope::event_type;
}
