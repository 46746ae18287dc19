//! What each request costs in the ingester, piece by piece, on one of Clerk's bodies (2.5 KB):
//! `cargo bench -p clerk-sync-ingest`. Beside each time are the allocations; their number is
//! guarded by `tests/it/allocations.rs`.

use std::hint::black_box;

use bytes::Bytes;
use clerk_sync_ingest::{
    fuzzing::event_type,
    verify::{Unverified, Verifier},
};
use clerk_sync_pipeline::{Millis, secret::Secret};
use divan::{AllocProfiler, Bencher, counter::BytesCount};
use http::HeaderMap;
use svix::webhooks::Webhook;

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const BODY: &[u8] = include_bytes!("../../tests/fixtures/clerk/user_created_email_password.json");
const SIGNED_AT: i64 = 1_780_567_218;

fn main() {
    divan::main();
}

fn signed() -> HeaderMap {
    let signer = Webhook::new(SECRET).expect("a secret");
    let signature = signer.sign("msg_1", SIGNED_AT, BODY).expect("a signature");
    let mut headers = HeaderMap::new();
    let mut insert = |name, value: &str| headers.insert(name, value.parse().expect("a value"));
    insert("svix-id", "msg_1");
    insert("svix-timestamp", &SIGNED_AT.to_string());
    insert("svix-signature", &signature);
    headers
}

/// The three headers and the signature over the body.
#[divan::bench]
fn verify(bencher: Bencher<'_, '_>) {
    let verifier = Verifier::new(&[Secret::new(SECRET)]).expect("a secret");
    let headers = signed();
    let body = Bytes::from_static(BODY);
    let now = Millis(SIGNED_AT * 1000);
    bencher.counter(BytesCount::of_slice(BODY)).bench(|| {
        let unverified = Unverified::read(black_box(&headers), now).expect("well-formed");
        unverified.verify(&verifier, body.clone())
    });
}

/// The oracle of `verify`: the same question to Svix's own library.
#[divan::bench]
fn verify_by_svix(bencher: Bencher<'_, '_>) {
    let svix = Webhook::new(SECRET).expect("a secret");
    let headers = signed();
    bencher
        .counter(BytesCount::of_slice(BODY))
        .bench(|| svix.verify_ignoring_timestamp(black_box(BODY), &headers));
}

/// The `type` of a body, without building a tree.
#[divan::bench]
fn envelope(bencher: Bencher<'_, '_>) {
    bencher
        .counter(BytesCount::of_slice(BODY))
        .bench(|| event_type(black_box(BODY)));
}
