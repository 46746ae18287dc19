//! How often the worker allocates for one event before a database is asked. Allocations are
//! counted, not timed: the numbers are the same on every machine, and a tree built of the body, or
//! a copy of it, is seen at once.

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use clerk_sync_pipeline::{Event, EventId, EventType, Millis};
use clerk_sync_projection::{
    benching,
    change::{Change, Read, Rules, read},
};

const BODY: &[u8] =
    include_bytes!("../../../tests/fixtures/clerk/user_created_email_password.json");

fn event() -> Event {
    Event {
        id: EventId::parse("msg_1").unwrap(),
        event_type: EventType::parse("user.created").unwrap(),
        received_at: Millis(0),
        attempted_at: 0,
        traceparent: None,
        body: Bytes::from_static(BODY),
    }
}

/// What `work` allocates once everything that is made only once has been made.
fn allocated(mut work: impl FnMut()) -> AllocationInfo {
    work();
    measure(work)
}

#[test]
fn a_payload_is_read_with_an_allocation_for_each_value_that_is_looked_at() {
    let (event, rules) = (event(), Rules::default());
    let info = allocated(|| {
        read(&event, &rules).unwrap();
    });
    // Six are kept: the ids of the user and of the event, the address, the name, the picture, and
    // the box around them. The rest is what they are chosen and joined from.
    assert_eq!(info.count_total, 15);
    assert!(
        info.bytes_total < BODY.len() as u64 / 2,
        "{} bytes are as much as a copy",
        info.bytes_total
    );
}

#[test]
fn a_batch_is_reduced_with_the_nodes_of_one_tree() {
    let maren = read(&event(), &Rules::default()).unwrap();
    let Change::Upsert(snapshot, version) = &maren.change else {
        panic!("{maren:?}");
    };
    let of_user = |number: u32| {
        let mut snapshot = snapshot.clone();
        snapshot.clerk_id = format!("user_{number:03}");
        Read {
            occurred_at: maren.occurred_at,
            change: Change::Upsert(snapshot, version.clone()),
        }
    };
    let batch: Vec<Read> = (0..128).map(of_user).collect();
    let mut winners = 0;
    let info = allocated(|| winners = benching::reduce(&batch));
    assert_eq!(winners, 128);
    // A node holds up to 11 of them, and is half full when they come in order.
    assert!(info.count_total <= 25, "{}", info.count_total);
    let same: Vec<Read> = (0..128).map(|_| batch[0].clone()).collect();
    assert_eq!(
        allocated(|| winners = benching::reduce(&same)).count_total,
        1
    );
    assert_eq!(winners, 1);
}
