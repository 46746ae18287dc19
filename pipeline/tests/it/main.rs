//! The queue's promises, kept by both queues: RabbitMQ (`AMQP_URL`, see `scripts/services`) and
//! the embedded SQLite file. What only one of them promises is tested in its own module.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "the helpers panic as the tests that call them would, and a child process reports"
)]

mod amqp;
mod contract;
#[cfg(feature = "embedded")]
mod embedded;
mod parked;
mod proxy;
