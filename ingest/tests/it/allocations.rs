//! How often the ingester allocates for one request between its socket and the queue. Allocations
//! are counted, not timed: the numbers are the same on every machine, and a copy of the body, or a
//! tree built of it, is seen at once.

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use clerk_sync_ingest::{config::signing_secret, fuzzing::event_type, verify::Unverified};
use clerk_sync_pipeline::Millis;

use crate::{
    rig::{SECRET, sign},
    signature::svix,
};

const ID: &str = "msg_1";
const SIGNED_AT: i64 = 1_780_567_218;
const BODY: &[u8] =
    include_bytes!("../../../tests/fixtures/clerk/user_created_email_password.json");

/// What `work` allocates once everything that is made only once has been made.
fn allocated(mut work: impl FnMut()) -> AllocationInfo {
    work();
    measure(work)
}

#[test]
fn a_request_is_verified_with_one_allocation_its_id() {
    let verifier = signing_secret(SECRET).unwrap();
    let signature = sign(SECRET, ID, SIGNED_AT, BODY);
    let headers = svix(ID, &SIGNED_AT.to_string(), &signature);
    let body = Bytes::from_static(BODY);
    let info = allocated(|| {
        let unverified = Unverified::read(&headers, Millis(SIGNED_AT * 1000)).unwrap();
        unverified.verify(&verifier, body.clone()).unwrap();
    });
    assert_eq!(info.count_total, 1);
    assert_eq!(info.bytes_total, ID.len() as u64);
}

#[test]
fn the_type_of_a_body_is_found_with_two_allocations_itself_and_how_deep_it_lies() {
    let info = allocated(|| {
        event_type(BODY);
    });
    assert_eq!(info.count_total, 2);
    assert!(info.bytes_total < 32, "{} bytes", info.bytes_total);
}
