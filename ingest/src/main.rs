//! The ingester as a program of its own; `clerk-sync ingest` is the same.

use std::process::ExitCode;

use clerk_sync_ingest::process;
use clerk_sync_pipeline::config;

fn main() -> ExitCode {
    config::run(process::receive)
}
