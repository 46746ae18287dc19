//! The promises of [`Parked`], each a function over any queue, and [`keeps_every_promise_to_operators`],
//! which makes tests of them all.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use clerk_sync_pipeline::{
    Event, Millis,
    queue::{
        BatchLimits, Consume as _, DELIVERY_LIMIT, Failure, Publish as _, Reason, Rung, Settlement,
        parked::{self, Fate, Letter, Parked, Place},
    },
    telemetry::Label as _,
};

use crate::contract::{
    Queue, batch, event, nothing_comes, one, publish, settle, settle_all_done, sized_event, within,
};

/// A queue whose parked letters an operator can reach, also while it is in use.
pub(crate) trait Parking: Queue {
    type Operator: Parked;

    async fn operator(&self) -> Self::Operator;
}

macro_rules! keeps_every_promise_to_operators {
    ($queue:ty) => {
        $crate::parked::keeps_every_promise_to_operators! {
            $queue:
            an_empty_place_is_walked_in_no_time
            a_walk_sees_each_letter_once_with_its_cause_and_leaves_it
            what_was_given_up_by_the_queue_says_so
            a_replayed_letter_comes_again_as_it_first_came
            a_replayed_letter_climbs_the_whole_ladder_again
            a_consumer_that_waits_notices_what_is_replayed
            what_was_marked_is_discarded_and_nothing_else
            what_was_marked_and_not_discarded_stays
            a_replay_beside_a_mark_is_not_discarded
            a_body_is_given_byte_for_byte
            two_operators_replay_each_letter_once
            a_walk_beside_a_busy_worker_ends_and_loses_nothing
        }
    };
    ($queue:ty: $($promise:ident)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $promise() {
            $crate::parked::$promise::<$queue>().await;
        })+
    };
}
pub(crate) use keeps_every_promise_to_operators;

pub(crate) fn poison(reason: Reason) -> Settlement {
    Settlement::DeadLetter(Failure::new(reason, format!("why: {}", reason.as_str())))
}

/// Publishes events and has each dead-lettered.
pub(crate) async fn park(queue: &mut impl Queue, events: &[Event], reason: Reason) {
    let publisher = queue.publisher().await;
    for some in events.chunks(200) {
        let publishes = some.iter().map(|event| publisher.publish(event.clone()));
        for published in within("publish", futures_util::future::join_all(publishes)).await {
            published.unwrap();
        }
    }
    let mut consumer = queue.consumer().await;
    let mut left = events.len();
    while left > 0 {
        let dead = batch(&mut consumer, left.min(100)).await;
        left -= dead.len();
        let dead = dead.into_iter().map(|delivery| (delivery, poison(reason)));
        let settled = consumer.settle(dead.collect());
        within("settle", settled).await.unwrap();
    }
}

pub(crate) fn numbered(count: usize) -> Vec<Event> {
    (0..count).map(|n| event(&format!("msg_{n}"))).collect()
}

/// Walks, and keeps everything.
async fn look(operator: &mut impl Parked) -> Vec<Letter> {
    let mut seen = Vec::new();
    let walk = operator.walk(Place::Dead, |letter| {
        seen.push(letter.clone());
        Fate::Keep
    });
    assert_eq!(within("a walk", walk).await.unwrap(), 0);
    seen
}

async fn replay_all(operator: &mut impl Parked) -> u64 {
    let walk = operator.walk(Place::Dead, |_| Fate::Replay);
    within("a walk", walk).await.unwrap()
}

fn ids(letters: &[Letter]) -> BTreeSet<&str> {
    letters.iter().map(|letter| letter.id.as_str()).collect()
}

pub(crate) async fn an_empty_place_is_walked_in_no_time<Q: Parking>() {
    let queue = Q::new().await;
    let mut operator = queue.operator().await;
    for place in [Place::Dead, Place::Unrouted] {
        assert_eq!(operator.count(place).await.unwrap(), 0);
        let walk = operator.walk(place, |letter| panic!("there is {letter:?}"));
        assert_eq!(within("a walk", walk).await.unwrap(), 0);
        assert_eq!(
            operator.body(place, &event("msg_1").id).await.unwrap(),
            None
        );
    }
    assert_eq!(operator.discard_marked().await.unwrap(), 0);
    operator.close().await;
    queue.remove().await;
}

pub(crate) async fn a_walk_sees_each_letter_once_with_its_cause_and_leaves_it<Q: Parking>() {
    const LETTERS: usize = 450;
    let mut queue = Q::new().await;
    let before = Millis::now();
    park(&mut queue, &numbered(LETTERS), Reason::MissingEmail).await;
    let after = Millis::now();
    // What is found by one is found by the next, and by the same again.
    for _ in 0..2 {
        let mut operator = queue.operator().await;
        for _ in 0..2 {
            assert_eq!(operator.count(Place::Dead).await.unwrap(), LETTERS as u64);
            let seen = look(&mut operator).await;
            assert_eq!((seen.len(), ids(&seen).len()), (LETTERS, LETTERS));
            for letter in &seen {
                let original = event(letter.id.as_str());
                assert_eq!(letter.event_type, original.event_type);
                assert_eq!(letter.code, "missing_email");
                assert_eq!(letter.detail.as_deref(), Some("why: missing_email"));
                assert_eq!(letter.attempts, 1);
                let failed = letter.first_failed_at.unwrap();
                assert!(before <= failed && failed <= after, "{failed:?}");
                assert_eq!(letter.received_at, Some(original.received_at));
                assert_eq!(letter.bytes, original.body.len() as u64);
                for (name, value) in [
                    ("svix-timestamp", original.attempted_at.to_string()),
                    ("x-received-at", original.received_at.0.to_string()),
                    ("traceparent", original.traceparent.clone().unwrap()),
                ] {
                    let header = (name.to_owned(), value);
                    assert!(letter.headers.contains(&header), "{:?}", letter.headers);
                }
            }
        }
        operator.close().await;
    }
    assert_eq!(queue.dead_letters().await.len(), LETTERS);
    queue.remove().await;
}

pub(crate) async fn what_was_given_up_by_the_queue_says_so<Q: Parking>() {
    let mut queue = Q::new().await;
    publish(&queue.publisher().await, &["msg_1"]).await;
    let mut consumer = queue.consumer().await;
    // It has failed before for another reason, which must not be told.
    let first = one(&mut consumer).await;
    let retry = Settlement::Retry(Rung(0), Failure::new(Reason::EmailTaken, "before"));
    settle(&mut consumer, first, retry).await;
    for _ in 0..=DELIVERY_LIMIT {
        one(&mut consumer).await;
        within("hand back", consumer.hand_back()).await;
    }
    let mut operator = queue.operator().await;
    within("a letter", async {
        while operator.count(Place::Dead).await.unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let letter = look(&mut operator).await.remove(0);
    assert_eq!(letter.code, parked::DELIVERY_LIMIT);
    assert!(letter.detail.unwrap().contains("without an answer"));
    assert_eq!(letter.attempts, 1);
    // Again, and as often as ever.
    assert_eq!(replay_all(&mut operator).await, 1);
    let again = one(&mut consumer).await;
    assert!(again.event == event("msg_1"));
    assert_eq!((again.attempt, again.redeliveries), (0, 0));
    operator.close().await;
    drop(consumer);
    queue.remove().await;
}

pub(crate) async fn a_replayed_letter_comes_again_as_it_first_came<Q: Parking>() {
    let mut queue = Q::new().await;
    let every_byte: Vec<u8> = (0..=255).collect();
    let events = [
        event("msg_plain"),
        Event {
            body: Bytes::from(every_byte.repeat(350 * 4)),
            traceparent: None,
            ..event("msg_of_350_KiB")
        },
        Event {
            body: Bytes::new(),
            attempted_at: -1,
            received_at: Millis(1),
            ..event("msg_empty")
        },
    ];
    park(&mut queue, &events, Reason::MissingEmail).await;
    let mut operator = queue.operator().await;
    assert_eq!(replay_all(&mut operator).await, 3);
    assert_eq!(look(&mut operator).await, [], "it has left its place");
    operator.close().await;
    let mut consumer = queue.consumer().await;
    let came = batch(&mut consumer, 3).await;
    let mut found = BTreeMap::new();
    for delivery in &came {
        assert_eq!((delivery.attempt, delivery.redeliveries), (0, 0));
        assert_eq!(delivery.first_failed_at, None);
        found.insert(delivery.event.id.clone(), delivery.event.clone());
    }
    for event in events {
        assert!(found[&event.id] == event, "{event:?}");
    }
    settle_all_done(&mut consumer, came).await;
    nothing_comes(&mut consumer).await;
    drop(consumer);
    queue.remove().await;
}

pub(crate) async fn a_replayed_letter_climbs_the_whole_ladder_again<Q: Parking>() {
    let mut queue = Q::new().await;
    park(&mut queue, &[event("msg_1")], Reason::EmailTaken).await;
    let mut operator = queue.operator().await;
    replay_all(&mut operator).await;
    let before = Millis::now();
    let mut consumer = queue.consumer().await;
    for attempt in 0..3 {
        let delivery = one(&mut consumer).await;
        assert_eq!(delivery.attempt, attempt);
        let failure = Failure::new(Reason::EmailTaken, "still");
        let how = match crate::contract::ladder().rung(delivery.attempt) {
            Some(rung) => Settlement::Retry(rung, failure),
            None => Settlement::DeadLetter(failure),
        };
        settle(&mut consumer, delivery, how).await;
    }
    let letter = look(&mut operator).await.remove(0);
    assert_eq!(letter.attempts, 3);
    assert!(
        letter.first_failed_at.unwrap() >= before,
        "its story is new"
    );
    operator.close().await;
    drop(consumer);
    queue.remove().await;
}

pub(crate) async fn a_consumer_that_waits_notices_what_is_replayed<Q: Parking>() {
    let mut queue = Q::new().await;
    park(&mut queue, &[event("msg_1")], Reason::MissingEmail).await;
    let mut consumer = queue.consumer().await;
    let mut operator = queue.operator().await;
    let waits = tokio::spawn(async move {
        let delivery = one(&mut consumer).await;
        (consumer, delivery)
    });
    // Until it waits.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waits.is_finished());
    replay_all(&mut operator).await;
    let (consumer, delivery) = within("it comes", waits).await.unwrap();
    assert!(delivery.event == event("msg_1"));
    operator.close().await;
    drop(consumer);
    queue.remove().await;
}

pub(crate) async fn what_was_marked_is_discarded_and_nothing_else<Q: Parking>() {
    // So many that a broker holds acknowledgements back.
    const LETTERS: usize = 1500;
    let mut queue = Q::new().await;
    park(&mut queue, &numbered(LETTERS), Reason::MissingEmail).await;
    let even = |letter: &Letter| letter.id.as_str().ends_with(['0', '2', '4', '6', '8']);
    let mut operator = queue.operator().await;
    let walk = operator.walk(Place::Dead, |letter| {
        if even(letter) { Fate::Mark } else { Fate::Keep }
    });
    assert_eq!(within("a walk", walk).await.unwrap(), 0);
    // Came after the walk, so it was not meant.
    park(&mut queue, &[event("msg_late_0")], Reason::MissingEmail).await;
    let discarded = within("discard", operator.discard_marked()).await.unwrap();
    assert_eq!(discarded, LETTERS as u64 / 2);
    assert_eq!(operator.discard_marked().await.unwrap(), 0, "once");
    let left = look(&mut operator).await;
    assert_eq!(left.len(), LETTERS / 2 + 1);
    assert!(
        left.iter()
            .all(|letter| !even(letter) || letter.id.as_str() == "msg_late_0")
    );
    operator.close().await;
    queue.remove().await;
}

pub(crate) async fn what_was_marked_and_not_discarded_stays<Q: Parking>() {
    let mut queue = Q::new().await;
    park(&mut queue, &numbered(40), Reason::MissingEmail).await;
    let mut operator = queue.operator().await;
    for _ in 0..2 {
        let walk = operator.walk(Place::Dead, |_| Fate::Mark);
        assert_eq!(within("a walk", walk).await.unwrap(), 0);
        assert_eq!(look(&mut operator).await.len(), 40);
        assert_eq!(operator.discard_marked().await.unwrap(), 0, "the last walk");
    }
    let walk = operator.walk(Place::Dead, |_| Fate::Mark);
    within("a walk", walk).await.unwrap();
    // It changes its mind; or dies.
    drop(operator);
    let mut operator = queue.operator().await;
    within("they are back", async {
        while operator.count(Place::Dead).await.unwrap() < 40 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    operator.close().await;
    queue.remove().await;
}

pub(crate) async fn a_replay_beside_a_mark_is_not_discarded<Q: Parking>() {
    let mut queue = Q::new().await;
    park(&mut queue, &numbered(30), Reason::MissingEmail).await;
    let mut operator = queue.operator().await;
    let walk = operator.walk(Place::Dead, |letter| match letter.id.as_str() {
        "msg_1" | "msg_11" => Fate::Replay,
        "msg_2" => Fate::Keep,
        _ => Fate::Mark,
    });
    assert_eq!(within("a walk", walk).await.unwrap(), 2);
    assert_eq!(operator.discard_marked().await.unwrap(), 27);
    let left = look(&mut operator).await;
    assert_eq!(ids(&left), BTreeSet::from(["msg_2"]));
    let mut consumer = queue.consumer().await;
    let came = batch(&mut consumer, 2).await;
    let came: BTreeSet<_> = crate::contract::ids(&came).into_iter().collect();
    assert_eq!(came, BTreeSet::from(["msg_1", "msg_11"]));
    operator.close().await;
    drop(consumer);
    queue.remove().await;
}

pub(crate) async fn a_body_is_given_byte_for_byte<Q: Parking>() {
    let mut queue = Q::new().await;
    let mut events = numbered(60);
    events.push(sized_event("msg_large", 350 << 10));
    park(&mut queue, &events, Reason::MissingEmail).await;
    let mut operator = queue.operator().await;
    for event in [&events[60], &events[7]] {
        let body = within("body", operator.body(Place::Dead, &event.id)).await;
        assert!(body.unwrap().as_ref() == Some(&event.body), "{event:?}");
    }
    let nobody = operator.body(Place::Dead, &event("msg_nobody").id).await;
    assert_eq!(nobody.unwrap(), None);
    assert_eq!(look(&mut operator).await.len(), 61, "all are still there");
    operator.close().await;
    queue.remove().await;
}

pub(crate) async fn two_operators_replay_each_letter_once<Q: Parking>() {
    const LETTERS: usize = 600;
    let mut queue = Q::new().await;
    park(&mut queue, &numbered(LETTERS), Reason::MissingEmail).await;
    let mut operators = Vec::new();
    for _ in 0..2 {
        let mut operator = queue.operator().await;
        operators.push(tokio::spawn(async move {
            let done = replay_all(&mut operator).await;
            operator.close().await;
            done
        }));
    }
    let mut replayed = Vec::new();
    for operator in operators {
        replayed.push(operator.await.unwrap());
    }
    assert_eq!(replayed.iter().sum::<u64>(), LETTERS as u64, "{replayed:?}");
    let mut consumer = queue.consumer().await;
    let mut came = Vec::new();
    while came.len() < LETTERS {
        let batch = batch(&mut consumer, 100).await;
        came.extend(crate::contract::ids(&batch).into_iter().map(str::to_owned));
        settle_all_done(&mut consumer, batch).await;
    }
    let distinct: BTreeSet<_> = came.iter().collect();
    assert_eq!(distinct.len(), LETTERS, "one came twice");
    nothing_comes(&mut consumer).await;
    drop(consumer);
    queue.remove().await;
}

/// Whatever is replayed is dead again at once: a walk without a bound would never end.
pub(crate) async fn a_walk_beside_a_busy_worker_ends_and_loses_nothing<Q: Parking>() {
    const LETTERS: usize = 300;
    let mut queue = Q::new().await;
    park(&mut queue, &numbered(LETTERS), Reason::MissingEmail).await;
    let mut consumer = queue.consumer().await;
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let worker = tokio::spawn(async move {
        let limits = BatchLimits {
            events: 50,
            linger: Duration::ZERO,
        };
        loop {
            let batch = tokio::select! {
                batch = consumer.next_batch(limits) => batch,
                _ = &mut stopped => return consumer,
            };
            let dead = batch
                .into_iter()
                .map(|delivery| (delivery, poison(Reason::MissingEmail)));
            consumer.settle(dead.collect()).await.unwrap();
        }
    });
    let mut operator = queue.operator().await;
    for _ in 0..5 {
        let done = replay_all(&mut operator).await;
        assert!(done <= LETTERS as u64, "{done} of {LETTERS}");
    }
    within("all are dead again", async {
        while operator.count(Place::Dead).await.unwrap() < LETTERS as u64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let seen = look(&mut operator).await;
    assert_eq!((seen.len(), ids(&seen).len()), (LETTERS, LETTERS));
    stop.send(()).unwrap();
    drop(worker.await.unwrap());
    operator.close().await;
    queue.remove().await;
}
