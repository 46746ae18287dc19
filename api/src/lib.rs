//! The API: who is signed in, and is their row here?
//!
//! Enters: requests of an application, with a session token of Clerk's. Leaves: the user's row with
//! its credits; where it is not there yet, it is fetched from Clerk and applied first. Guaranteed:
//! nobody is believed whose token Clerk's own SDK would refuse; many calls for one user make one
//! fetch; what is older than the row changes nothing, and a deleted user stays deleted. Never here:
//! a write of its own (the projection writes), webhooks, a queue.

mod account;
pub mod config;
mod credential;
mod desk;
pub mod fetch;
mod origin;
pub mod process;
mod refusal;
mod service;

pub use config::ApiArgs;
pub use origin::Origin;
pub use service::Api;
