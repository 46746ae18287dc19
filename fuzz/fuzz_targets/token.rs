#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| clerk_sync_properties::token(input));
