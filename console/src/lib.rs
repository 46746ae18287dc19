//! The console: a web page for whoever operates clerk-sync.
//!
//! Enters: requests of a browser whose person knows the token. Leaves: pages that tell whether all
//! is well, what became of an event or a user, and which events need a hand. Guaranteed: nothing is
//! shown or done without a session; nothing is changed but by a POST of the console's own pages;
//! bodies are shown only when asked for, and that is logged; nothing comes from another server.
//! Never here: a write to a domain table (the projection writes), a decision about an event.

mod access;
mod advice;
mod answer;
mod asker;
mod assets;
mod attempts;
mod board;
mod card;
pub mod config;
mod deed;
mod delta;
mod errand;
mod event;
mod events;
mod exposition;
mod form;
mod frame;
mod health;
mod indent;
mod inventory;
mod jobs;
mod ledger;
mod letters;
mod login;
mod overview;
mod plans;
pub mod process;
mod reader;
mod refusal;
mod route;
mod sampler;
mod service;
mod shelf;
mod source;
mod stream;
mod tail;
mod users;
mod wording;

pub use access::Token;
pub use config::{CONNECTIONS, Clerk, ConsoleArgs, ConsoleParts, Numbers, Queue, Watch};
pub use service::Console;
