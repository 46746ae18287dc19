//! The whole pipeline: the real binaries, on real RabbitMQ and PostgreSQL, and embedded.
//!
//! `scripts/test` builds the binaries and starts the servers. Each test has its own database, its
//! own queue prefix and its own ports, so they run side by side.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test's helpers fail the test"
)]

#[expect(
    dead_code,
    reason = "shared with tests/weather, which needs other parts"
)]
mod harness;

mod api;
mod backfill;
mod bench;
mod cluster;
mod connecting;
mod console;
mod dead_letters;
mod doctor;
mod door;
mod faults;
#[cfg(target_os = "linux")]
mod hostile;
mod logs;
mod operator;
mod reconcile;
mod rights;
mod story;
mod traces;
mod watch;
