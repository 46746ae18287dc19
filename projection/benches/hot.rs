//! What each event costs in the worker before a database is asked, on one of Clerk's bodies
//! (2.5 KB): `cargo bench -p clerk-sync-projection`. Beside each time are the allocations; their
//! number is guarded by `tests/it/allocations.rs`.

use std::hint::black_box;

use bytes::Bytes;
use clerk_sync_pipeline::{Event, EventId, EventType, Millis};
use clerk_sync_projection::{
    benching,
    change::{Change, Read, Rules, read},
};
use divan::{AllocProfiler, Bencher, counter::BytesCount};

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

const BODY: &[u8] = include_bytes!("../../tests/fixtures/clerk/user_created_email_password.json");
/// As many events as a worker has in one transaction when the queue is full.
const BATCH: usize = 128;

fn main() {
    divan::main();
}

fn event() -> Event {
    Event {
        id: EventId::parse("msg_1").expect("an id"),
        event_type: EventType::parse("user.created").expect("a type"),
        received_at: Millis(0),
        attempted_at: 0,
        traceparent: None,
        body: Bytes::from_static(BODY),
    }
}

/// A body to what it asks for.
#[divan::bench]
fn payload(bencher: Bencher<'_, '_>) {
    let (event, rules) = (event(), Rules::default());
    bencher
        .counter(BytesCount::of_slice(BODY))
        .bench(|| read(black_box(&event), &rules));
}

/// A batch to one winner for each user: all of different users, or all of the same.
#[divan::bench(args = [1, BATCH])]
fn reduce(bencher: Bencher<'_, '_>, users: usize) {
    let maren = read(&event(), &Rules::default()).expect("a user");
    let of_user = |number: usize| {
        let Change::Upsert(snapshot, version) = &maren.change else {
            unreachable!("an upsert")
        };
        let mut snapshot = snapshot.clone();
        snapshot.clerk_id = format!("user_{}", number % users);
        Read {
            occurred_at: maren.occurred_at,
            change: Change::Upsert(snapshot, version.clone()),
        }
    };
    let batch: Vec<Read> = (0..BATCH).map(of_user).collect();
    bencher
        .counter(BATCH)
        .bench(|| benching::reduce(black_box(&batch)));
}
