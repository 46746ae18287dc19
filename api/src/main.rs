//! The API as a program of its own; `clerk-sync up` has it too.

use std::process::ExitCode;

use clerk_sync_api::process;
use clerk_sync_pipeline::config;

fn main() -> ExitCode {
    config::run(process::answer)
}
