//! The contract between the processes of clerk-sync.
//!
//! Enters: verified webhooks from `ingest`. Leaves: deliveries for `worker`. Guaranteed: an event
//! whose publish was confirmed is handed out until it is settled, byte for byte as it came.
//! This crate never looks into a body, and knows no database.

pub mod admin;
pub mod complaint;
pub mod config;
pub mod event;
pub mod lifecycle;
pub mod problem;
pub mod queue;
pub mod retry;
pub mod secret;
pub mod telemetry;
pub mod trace;
pub mod wording;

pub use event::{Event, EventId, EventType, Millis};
