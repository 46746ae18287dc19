//! The whole pipeline: the real binaries, on real RabbitMQ and PostgreSQL, and embedded.
//!
//! `scripts/test` builds the binaries and starts the servers. Each test has its own database, its
//! own queue prefix and its own ports, so they run side by side.

mod harness;

mod door;
mod faults;
mod operator;
mod story;
