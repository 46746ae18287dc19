//! The worker as a program of its own; `clerk-sync worker` is the same.

use std::process::ExitCode;

use clerk_sync_pipeline::config;
use clerk_sync_worker::process;

fn main() -> ExitCode {
    config::run(process::work)
}
