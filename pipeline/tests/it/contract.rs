//! The promises of [`Publish`] and [`Consume`], each a function over any queue, and
//! [`keeps_every_promise`], which makes tests of them all.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clerk_sync_pipeline::{
    Event, EventId, EventType, Millis,
    queue::{
        BatchLimits, Consume, DELIVERY_LIMIT, Delivery, Failure, MAX_UNCONFIRMED, Publish,
        PublishError, Reason, RetryLadder, Rung, Settlement,
    },
    telemetry::Label as _,
};
use futures_util::{FutureExt as _, future::join_all};
use tokio::time::timeout;

/// A queue of its own for one test.
pub(crate) trait Queue: Sized {
    type Publisher: Publish;
    type Consumer: Consume;
    /// Holds back every confirm until it is dropped.
    type Stall;

    /// A new and empty queue, with the rungs of [`ladder`].
    async fn new() -> Self;
    async fn publisher(&mut self) -> Self::Publisher;
    async fn consumers(&mut self, lanes: usize) -> Vec<Self::Consumer>;
    /// The same queue as the next process finds it. Nothing is closed before; the test has dropped
    /// its publishers and consumers.
    async fn reopened(self) -> Self;
    async fn dead_letters(&mut self) -> Vec<DeadLetter>;
    async fn stall(&mut self) -> Self::Stall;
    /// Takes away all that it made.
    async fn remove(self);

    async fn consumer(&mut self) -> Self::Consumer {
        self.consumers(1).await.pop().unwrap()
    }
}

/// What the dead letters tell of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    pub(crate) event: Event,
    pub(crate) attempt: u32,
    pub(crate) first_failed_at: Option<Millis>,
    pub(crate) reason: Option<String>,
    pub(crate) detail: Option<String>,
}

macro_rules! keeps_every_promise {
    ($queue:ty) => {
        $crate::contract::keeps_every_promise! {
            $queue:
            a_published_event_comes_back_byte_for_byte
            a_confirmed_event_outlives_its_process
            a_publish_that_is_given_up_is_queued_all_the_same
            too_many_unconfirmed_publishes_are_refused_at_once
            a_full_batch_comes_at_once
            a_partial_batch_comes_after_the_linger
            dropping_next_batch_loses_nothing
            two_lanes_share_without_overlap
            what_was_handed_back_comes_again_and_is_counted
            what_a_dropped_consumer_held_comes_again_and_is_counted
            what_was_handed_back_cannot_be_settled
            a_settled_delivery_never_comes_again
            the_rest_of_a_batch_is_settled_later
            one_call_settles_a_mixture
            a_settle_that_is_given_up_strands_nothing
            a_retry_waits_out_its_rung
            an_event_climbs_the_whole_ladder_unchanged
            a_postponed_event_comes_again_with_no_attempt_counted
            a_retry_starts_a_new_count_of_redeliveries
            the_first_failure_is_remembered_over_two_hops
            a_dead_letter_is_kept_with_its_reason_and_never_handed_out
            what_is_never_answered_ends_in_the_dead_letters
        }
    };
    ($queue:ty: $($promise:ident)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $promise() {
            $crate::contract::$promise::<$queue>().await;
        })+
    };
}
pub(crate) use keeps_every_promise;

const FIRST_DELAY: Duration = Duration::from_millis(200);
const SECOND_DELAY: Duration = Duration::from_millis(400);
/// Both queues count whole milliseconds.
const TICK: Duration = Duration::from_millis(1);

/// The longest wait for anything that must come.
const DEADLINE: Duration = Duration::from_secs(30);
/// How much later than its delay a retry may come: this machine does other things too.
const GENEROUS: Duration = Duration::from_secs(15);
/// How long nothing has to come before we believe that nothing will: longer than both delays.
const SILENCE: Duration = Duration::from_millis(700);

const SOON: Duration = Duration::from_millis(5);
pub(crate) const NEVER: Duration = Duration::from_secs(3600);

/// The ladder of every queue here.
pub(crate) fn ladder() -> RetryLadder {
    "200ms,400ms".parse().unwrap()
}

pub(crate) fn event(id: &str) -> Event {
    Event {
        id: EventId::parse(id).unwrap(),
        event_type: EventType::parse("user.updated").unwrap(),
        received_at: Millis(1_767_225_600_123),
        attempted_at: 1_767_225_600,
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        body: Bytes::from(format!("{{\"type\":\"user.updated\",\"id\":\"{id}\"}}")),
    }
}

/// An event whose body is so long, and different from any other's.
pub(crate) fn sized_event(id: &str, bytes: usize) -> Event {
    let body: Vec<u8> = id.bytes().cycle().take(bytes).collect();
    Event {
        body: body.into(),
        ..event(id)
    }
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

pub(crate) async fn publish(publisher: &impl Publish, ids: &[&str]) {
    let publishes = ids.iter().map(|id| publisher.publish(event(id)));
    for published in within("publish", join_all(publishes)).await {
        published.unwrap();
    }
}

/// A batch of exactly so many.
pub(crate) async fn batch(consumer: &mut impl Consume, events: usize) -> Vec<Delivery> {
    let linger = NEVER;
    let batch = within(
        "a batch",
        consumer.next_batch(BatchLimits { events, linger }),
    )
    .await;
    assert_eq!(batch.len(), events);
    batch
}

pub(crate) async fn one(consumer: &mut impl Consume) -> Delivery {
    batch(consumer, 1).await.pop().unwrap()
}

pub(crate) async fn nothing_comes(consumer: &mut impl Consume) {
    let limits = BatchLimits {
        events: 100,
        linger: SOON,
    };
    let batch = timeout(SILENCE, consumer.next_batch(limits)).await;
    assert!(batch.is_err(), "there came {:?}", batch.unwrap());
}

pub(crate) async fn settle(consumer: &mut impl Consume, delivery: Delivery, how: Settlement) {
    let settled = consumer.settle(vec![(delivery, how)]);
    within("settle", settled).await.unwrap();
}

pub(crate) async fn settle_all_done(consumer: &mut impl Consume, batch: Vec<Delivery>) {
    let done = batch
        .into_iter()
        .map(|delivery| (delivery, Settlement::Done));
    let settled = consumer.settle(done.collect());
    within("settle", settled).await.unwrap();
}

pub(crate) fn ids(batch: &[Delivery]) -> Vec<&str> {
    batch
        .iter()
        .map(|delivery| delivery.event.id.as_str())
        .collect()
}

fn email_taken() -> Failure {
    Failure::new(
        Reason::EmailTaken,
        "a row without a version holds the address",
    )
}

/// The dead letters, once there are so many.
async fn dead_letters(queue: &mut impl Queue, count: usize) -> Vec<DeadLetter> {
    let look = async {
        loop {
            let dead = queue.dead_letters().await;
            if dead.len() >= count {
                return dead;
            }
            tokio::time::sleep(SOON).await;
        }
    };
    let dead = within("dead letters", look).await;
    assert_eq!(dead.len(), count);
    dead
}

pub(crate) async fn a_published_event_comes_back_byte_for_byte<Q: Queue>() {
    let mut queue = Q::new().await;
    let every_byte: Vec<u8> = (0..=255).collect();
    let published = [
        event("msg_plain"),
        Event {
            body: Bytes::new(),
            traceparent: None,
            ..event("msg_empty")
        },
        Event {
            body: Bytes::from(every_byte.repeat(350 * 4)),
            ..event("msg_of_350_KiB")
        },
        Event {
            body: Bytes::from_static(b"\xff\xfe\x00 no UTF-8"),
            event_type: EventType::unparsable(),
            ..event("msg_binary")
        },
        Event {
            event_type: EventType::parse(&"t".repeat(255)).unwrap(),
            received_at: Millis(1),
            attempted_at: -1,
            ..event(&"~".repeat(255))
        },
    ];
    let publisher = queue.publisher().await;
    for event in &published {
        within("publish", publisher.publish(event.clone()))
            .await
            .unwrap();
    }
    let mut consumer = queue.consumer().await;
    let mut came = BTreeMap::new();
    for delivery in batch(&mut consumer, published.len()).await {
        assert_eq!((delivery.attempt, delivery.redeliveries), (0, 0));
        assert_eq!(delivery.first_failed_at, None);
        came.insert(delivery.event.id.clone(), delivery.event);
    }
    for event in published {
        // Not with assert_eq: an event's Debug hides the body.
        let back = &came[&event.id];
        assert!(*back == event, "{event:?} came back as {back:?}");
    }
    drop((publisher, consumer));
    queue.remove().await;
}

pub(crate) async fn a_confirmed_event_outlives_its_process<Q: Queue>() {
    let mut queue = Q::new().await;
    let publisher = queue.publisher().await;
    publish(&publisher, &["msg_1"]).await;
    drop(publisher);
    let mut queue = queue.reopened().await;
    let mut consumer = queue.consumer().await;
    let delivery = one(&mut consumer).await;
    assert!(delivery.event == event("msg_1"));
    assert_eq!(delivery.redeliveries, 0);
    drop(consumer);
    queue.remove().await;
}

pub(crate) async fn a_publish_that_is_given_up_is_queued_all_the_same<Q: Queue>() {
    let mut queue = Q::new().await;
    let publisher = queue.publisher().await;
    let given_up = publisher.publish(event("msg_1")).now_or_never();
    assert!(given_up.is_none(), "nothing is durable that soon");
    let mut consumer = queue.consumer().await;
    let delivery = one(&mut consumer).await;
    assert_eq!(delivery.event.id.as_str(), "msg_1");
    drop((publisher, consumer));
    queue.remove().await;
}

pub(crate) async fn too_many_unconfirmed_publishes_are_refused_at_once<Q: Queue>() {
    let mut queue = Q::new().await;
    let publisher = queue.publisher().await;
    let stall = queue.stall().await;
    let mut publishes: Vec<_> = (0..MAX_UNCONFIRMED)
        .map(|n| {
            let (publisher, event) = (publisher.clone(), event(&format!("msg_{n}")));
            Box::pin(async move { publisher.publish(event).await })
        })
        .collect();
    for publish in &mut publishes {
        assert!(publish.now_or_never().is_none(), "it waits for its confirm");
    }
    // Those who gave up have taken their places all the same.
    publishes.truncate(MAX_UNCONFIRMED / 2);
    let one_more = publisher.publish(event("msg_refused")).now_or_never();
    assert!(
        matches!(one_more, Some(Err(PublishError::Overloaded))),
        "{one_more:?}"
    );
    drop(stall);
    for published in within("confirms", join_all(publishes)).await {
        published.unwrap();
    }
    within("room", async {
        while publisher.publish(event("msg_accepted")).await.is_err() {
            tokio::time::sleep(SOON).await;
        }
    })
    .await;
    let mut consumer = queue.consumer().await;
    let mut came = BTreeSet::new();
    while came.len() <= MAX_UNCONFIRMED {
        // Smaller batches than the broker's prefetch.
        let limits = BatchLimits {
            events: 100,
            linger: SOON,
        };
        let batch = within("a batch", consumer.next_batch(limits)).await;
        came.extend(ids(&batch).into_iter().map(str::to_owned));
        settle_all_done(&mut consumer, batch).await;
    }
    assert!(came.contains("msg_accepted") && !came.contains("msg_refused"));
    drop((publisher, consumer));
    queue.remove().await;
}

pub(crate) async fn a_full_batch_comes_at_once<Q: Queue>() {
    let mut queue = Q::new().await;
    let publisher = queue.publisher().await;
    let mut consumer = queue.consumer().await;
    publish(&publisher, &["msg_1", "msg_2", "msg_3", "msg_4", "msg_5"]).await;
    // With a linger that never ends; so does `batch`.
    let first = batch(&mut consumer, 3).await;
    settle_all_done(&mut consumer, first).await;
    let second = batch(&mut consumer, 2).await;
    settle_all_done(&mut consumer, second).await;
    // Waiting when they come.
    let (waited, ()) = tokio::join!(
        batch(&mut consumer, 2),
        publish(&publisher, &["msg_6", "msg_7"])
    );
    settle_all_done(&mut consumer, waited).await;
    drop((publisher, consumer));
    queue.remove().await;
}

pub(crate) async fn a_partial_batch_comes_after_the_linger<Q: Queue>() {
    let mut queue = Q::new().await;
    let publisher = queue.publisher().await;
    let mut consumer = queue.consumer().await;
    let linger = Duration::from_secs(1);
    let limits = BatchLimits {
        events: 100,
        linger,
    };
    let started = Instant::now();
    let (batch, ()) = tokio::join!(consumer.next_batch(limits), async {
        publish(&publisher, &["msg_1"]).await;
        publish(&publisher, &["msg_2"]).await;
    });
    assert!(started.elapsed() >= linger, "more might have come");
    assert_eq!(ids(&batch), ["msg_1", "msg_2"]);
    drop((publisher, consumer));
    queue.remove().await;
}

pub(crate) async fn dropping_next_batch_loses_nothing<Q: Queue>() {
    const EVENTS: usize = 300;
    let mut queue = Q::new().await;
    let publisher = queue.publisher().await;
    let mut consumer = queue.consumer().await;
    publish(&publisher, &["msg_first"]).await;
    // It has connected: until then a consumer that is always dropped may begin anew each time.
    let first = batch(&mut consumer, 1).await;
    settle_all_done(&mut consumer, first).await;
    let publishes = tokio::spawn(async move {
        for n in 0..EVENTS {
            publish(&publisher, &[&format!("msg_{n}")]).await;
        }
    });
    let limits = BatchLimits {
        events: 7,
        linger: Duration::from_millis(3),
    };
    let mut came = Vec::new();
    let started = Instant::now();
    // From dropped at the first await to not dropped at all.
    for patience in (0..9).map(Duration::from_millis).cycle() {
        if came.len() == EVENTS {
            break;
        }
        assert!(started.elapsed() < DEADLINE, "{} came", came.len());
        let Ok(batch) = timeout(patience, consumer.next_batch(limits)).await else {
            continue;
        };
        assert!(batch.iter().all(|delivery| delivery.redeliveries == 0));
        came.extend(ids(&batch).into_iter().map(str::to_owned));
        settle_all_done(&mut consumer, batch).await;
    }
    let distinct: BTreeSet<_> = came.iter().collect();
    assert_eq!(distinct.len(), came.len(), "one came twice");
    publishes.await.unwrap();
    nothing_comes(&mut consumer).await;
    drop(consumer);
    queue.remove().await;
}

pub(crate) async fn two_lanes_share_without_overlap<Q: Queue>() {
    const EVENTS: usize = 2000;
    let mut queue = Q::new().await;
    let publisher = queue.publisher().await;
    let (came, mut collected) = tokio::sync::mpsc::channel(EVENTS);
    let mut lanes = Vec::new();
    for mut consumer in queue.consumers(2).await {
        let came = came.clone();
        lanes.push(tokio::spawn(async move {
            let limits = BatchLimits {
                events: 64,
                linger: SOON,
            };
            loop {
                let batch = consumer.next_batch(limits).await;
                let ids: Vec<_> = ids(&batch).into_iter().map(str::to_owned).collect();
                settle_all_done(&mut consumer, batch).await;
                came.send(ids).await.unwrap();
            }
        }));
    }
    let published: Vec<_> = (0..EVENTS).map(|n| format!("msg_{n}")).collect();
    for some in published.chunks(250) {
        publish(
            &publisher,
            &some.iter().map(String::as_str).collect::<Vec<_>>(),
        )
        .await;
    }
    let mut all = Vec::new();
    while all.len() < EVENTS {
        all.extend(within("every event", collected.recv()).await.unwrap());
    }
    let distinct: BTreeSet<_> = all.iter().collect();
    assert_eq!((distinct.len(), all.len()), (EVENTS, EVENTS));
    let more = timeout(SILENCE, collected.recv()).await;
    assert!(more.is_err(), "{more:?} came once more");
    for lane in lanes {
        lane.abort();
        // Its consumer must be gone before the queue is.
        let _ = lane.await;
    }
    drop(publisher);
    queue.remove().await;
}

pub(crate) async fn what_was_handed_back_comes_again_and_is_counted<Q: Queue>() {
    let mut queue = Q::new().await;
    publish(&queue.publisher().await, &["msg_1", "msg_2"]).await;
    let mut consumer = queue.consumer().await;
    for redeliveries in 0..4 {
        let batch = batch(&mut consumer, 2).await;
        let counted: Vec<_> = batch.iter().map(|delivery| delivery.redeliveries).collect();
        assert_eq!(counted, [redeliveries; 2]);
        within("hand back", consumer.hand_back()).await;
    }
    drop(consumer);
    queue.remove().await;
}

pub(crate) async fn what_a_dropped_consumer_held_comes_again_and_is_counted<Q: Queue>() {
    let mut queue = Q::new().await;
    publish(&queue.publisher().await, &["msg_1", "msg_2"]).await;
    let mut first = queue.consumer().await;
    assert_eq!(batch(&mut first, 2).await.len(), 2);
    let mut second = queue.consumer().await;
    nothing_comes(&mut second).await;
    drop(first);
    for delivery in batch(&mut second, 2).await {
        assert_eq!(delivery.redeliveries, 1);
    }
    drop(second);
    queue.remove().await;
}

pub(crate) async fn what_was_handed_back_cannot_be_settled<Q: Queue>() {
    let mut queue = Q::new().await;
    publish(&queue.publisher().await, &["msg_1"]).await;
    let mut consumer = queue.consumer().await;
    let stale = one(&mut consumer).await;
    within("hand back", consumer.hand_back()).await;
    let again = one(&mut consumer).await;
    let settled = consumer.settle(vec![(stale, Settlement::Done)]);
    within("settle", settled).await.unwrap_err();
    // Had it been settled, the one in hand would be gone.
    drop(again);
    within("hand back", consumer.hand_back()).await;
    assert_eq!(one(&mut consumer).await.event.id.as_str(), "msg_1");
    drop(consumer);
    queue.remove().await;
}

pub(crate) async fn a_settled_delivery_never_comes_again<Q: Queue>() {
    let mut queue = Q::new().await;
    publish(&queue.publisher().await, &["msg_1", "msg_2", "msg_3"]).await;
    let mut consumer = queue.consumer().await;
    let mut held = batch(&mut consumer, 3).await;
    held.retain(|delivery| delivery.event.id.as_str() != "msg_2");
    settle_all_done(&mut consumer, held).await;
    within("hand back", consumer.hand_back()).await;
    let again = one(&mut consumer).await;
    assert_eq!(again.event.id.as_str(), "msg_2");
    settle(&mut consumer, again, Settlement::Done).await;
    nothing_comes(&mut consumer).await;
    drop(consumer);
    let mut queue = queue.reopened().await;
    let mut consumer = queue.consumer().await;
    nothing_comes(&mut consumer).await;
    assert_eq!(queue.dead_letters().await, []);
    drop(consumer);
    queue.remove().await;
}

pub(crate) async fn the_rest_of_a_batch_is_settled_later<Q: Queue>() {
    let mut queue = Q::new().await;
    publish(
        &queue.publisher().await,
        &["msg_1", "msg_2", "msg_3", "msg_4"],
    )
    .await;
    let mut consumer = queue.consumer().await;
    let mut first = batch(&mut consumer, 4).await;
    let rest = first.split_off(2);
    settle_all_done(&mut consumer, rest).await;
    settle_all_done(&mut consumer, first).await;
    within("hand back", consumer.hand_back()).await;
    nothing_comes(&mut consumer).await;
    drop(consumer);
    queue.remove().await;
}

pub(crate) async fn one_call_settles_a_mixture<Q: Queue>() {
    let mut queue = Q::new().await;
    publish(
        &queue.publisher().await,
        &["msg_done", "msg_retry", "msg_dead"],
    )
    .await;
    let mut consumer = queue.consumer().await;
    let settled = batch(&mut consumer, 3).await.into_iter().map(|delivery| {
        let settlement = match delivery.event.id.as_str() {
            "msg_done" => Settlement::Done,
            "msg_retry" => Settlement::Retry(Rung(0), email_taken()),
            _ => Settlement::DeadLetter(Failure::new(Reason::Malformed, "no `data`")),
        };
        (delivery, settlement)
    });
    let settled = consumer.settle(settled.collect());
    within("settle", settled).await.unwrap();
    let again = one(&mut consumer).await;
    assert_eq!(again.event.id.as_str(), "msg_retry");
    settle(&mut consumer, again, Settlement::Done).await;
    within("hand back", consumer.hand_back()).await;
    nothing_comes(&mut consumer).await;
    let dead = dead_letters(&mut queue, 1).await;
    assert_eq!(dead[0].event.id.as_str(), "msg_dead");
    assert_eq!(dead[0].reason.as_deref(), Some(Reason::Malformed.as_str()));
    drop(consumer);
    queue.remove().await;
}

pub(crate) async fn a_settle_that_is_given_up_strands_nothing<Q: Queue>() {
    let mut queue = Q::new().await;
    publish(&queue.publisher().await, &["msg_1"]).await;
    let mut consumer = queue.consumer().await;
    let delivery = one(&mut consumer).await;
    let retry = Settlement::Retry(Rung(0), email_taken());
    let given_up = consumer.settle(vec![(delivery, retry)]).now_or_never();
    assert!(given_up.is_none(), "nothing is durable that soon");
    within("hand back", consumer.hand_back()).await;
    // As a retry, or once more as it was.
    assert_eq!(one(&mut consumer).await.event.id.as_str(), "msg_1");
    drop(consumer);
    queue.remove().await;
}

pub(crate) async fn a_retry_waits_out_its_rung<Q: Queue>() {
    let mut queue = Q::new().await;
    publish(&queue.publisher().await, &["msg_1"]).await;
    let mut consumer = queue.consumer().await;
    let mut delivery = one(&mut consumer).await;
    for (rung, delay) in [(Rung(1), SECOND_DELAY), (Rung(0), FIRST_DELAY)] {
        let failed = Instant::now();
        settle(
            &mut consumer,
            delivery,
            Settlement::Retry(rung, email_taken()),
        )
        .await;
        delivery = one(&mut consumer).await;
        let waited = failed.elapsed();
        assert!(
            waited + TICK >= delay,
            "{waited:?} on the rung of {delay:?}"
        );
    }
    assert!(
        delivery.event == event("msg_1"),
        "all of it is carried along"
    );
    drop(consumer);
    queue.remove().await;
}

pub(crate) async fn an_event_climbs_the_whole_ladder_unchanged<Q: Queue>() {
    let mut queue = Q::new().await;
    let climber = Event {
        body: Bytes::from((0..=255).collect::<Vec<u8>>()),
        ..event("msg_climber")
    };
    let publisher = queue.publisher().await;
    within("publish", publisher.publish(climber.clone()))
        .await
        .unwrap();
    let mut consumer = queue.consumer().await;
    let mut delivery = one(&mut consumer).await;
    let mut first_failed_at = None;
    for (hop, rung) in (0..).zip(ladder().rungs()) {
        assert_eq!(delivery.attempt, hop);
        assert_eq!(ladder().rung(delivery.attempt), Some(rung));
        let delay = ladder().delay(rung);
        let failed = Instant::now();
        let retry = Settlement::Retry(rung, email_taken());
        settle(&mut consumer, delivery, retry).await;
        delivery = one(&mut consumer).await;
        let waited = failed.elapsed();
        assert!(
            waited + TICK >= delay && waited <= delay + GENEROUS,
            "{waited:?} on the rung of {delay:?}"
        );
        assert!(delivery.event == climber, "{:?}", delivery.event);
        let first = *first_failed_at.get_or_insert(delivery.first_failed_at.unwrap());
        assert_eq!(delivery.first_failed_at, Some(first));
    }
    assert_eq!(ladder().rung(delivery.attempt), None, "time to give up");
    let last = Failure::new(Reason::DatabaseError, "another word at the end");
    settle(
        &mut consumer,
        delivery,
        Settlement::DeadLetter(last.clone()),
    )
    .await;
    let dead = dead_letters(&mut queue, 1).await.remove(0);
    assert!(dead.event == climber, "{:?}", dead.event);
    assert_eq!(dead.attempt, 3);
    assert_eq!(dead.first_failed_at, first_failed_at);
    assert_eq!(dead.reason.as_deref(), Some(last.reason.as_str()));
    assert_eq!(dead.detail, Some(last.detail));
    nothing_comes(&mut consumer).await;
    drop((publisher, consumer));
    queue.remove().await;
}

pub(crate) async fn a_postponed_event_comes_again_with_no_attempt_counted<Q: Queue>() {
    let mut queue = Q::new().await;
    publish(&queue.publisher().await, &["msg_1"]).await;
    let mut consumer = queue.consumer().await;
    for _ in 0..3 {
        let delivery = one(&mut consumer).await;
        assert_eq!((delivery.attempt, delivery.redeliveries), (0, 0));
        let locked = Failure::new(Reason::RowLocked, "somebody holds the row");
        settle(
            &mut consumer,
            delivery,
            Settlement::Postpone(Rung(0), locked),
        )
        .await;
    }
    let delivery = one(&mut consumer).await;
    settle(&mut consumer, delivery, Settlement::Done).await;
    drop(consumer);
    queue.remove().await;
}

pub(crate) async fn a_retry_starts_a_new_count_of_redeliveries<Q: Queue>() {
    let mut queue = Q::new().await;
    publish(&queue.publisher().await, &["msg_1"]).await;
    let mut consumer = queue.consumer().await;
    one(&mut consumer).await;
    within("hand back", consumer.hand_back()).await;
    let again = one(&mut consumer).await;
    assert_eq!((again.redeliveries, again.attempt), (1, 0));
    settle(
        &mut consumer,
        again,
        Settlement::Retry(Rung(0), email_taken()),
    )
    .await;
    let again = one(&mut consumer).await;
    assert_eq!((again.redeliveries, again.attempt), (0, 1));
    drop(consumer);
    queue.remove().await;
}

pub(crate) async fn the_first_failure_is_remembered_over_two_hops<Q: Queue>() {
    let mut queue = Q::new().await;
    publish(&queue.publisher().await, &["msg_1"]).await;
    let mut consumer = queue.consumer().await;
    let first = one(&mut consumer).await;
    let before = Millis::now();
    settle(
        &mut consumer,
        first,
        Settlement::Retry(Rung(0), email_taken()),
    )
    .await;
    let after = Millis::now();
    let second = one(&mut consumer).await;
    let first_failed_at = second.first_failed_at.unwrap();
    assert!(before <= first_failed_at && first_failed_at <= after);
    assert_eq!(second.attempt, 1);
    settle(
        &mut consumer,
        second,
        Settlement::Retry(Rung(1), email_taken()),
    )
    .await;
    let third = one(&mut consumer).await;
    assert_eq!(third.attempt, 2);
    assert_eq!(third.first_failed_at, Some(first_failed_at));
    settle(&mut consumer, third, Settlement::DeadLetter(email_taken())).await;
    let dead = dead_letters(&mut queue, 1).await;
    assert_eq!(dead[0].attempt, 3);
    assert_eq!(dead[0].first_failed_at, Some(first_failed_at));
    drop(consumer);
    queue.remove().await;
}

pub(crate) async fn a_dead_letter_is_kept_with_its_reason_and_never_handed_out<Q: Queue>() {
    let mut queue = Q::new().await;
    publish(&queue.publisher().await, &["msg_1"]).await;
    let mut consumer = queue.consumer().await;
    let delivery = one(&mut consumer).await;
    let failure = Failure::new(Reason::MissingEmail, "no address; \u{e9}\u{4e16}");
    let before = Millis::now();
    settle(
        &mut consumer,
        delivery,
        Settlement::DeadLetter(failure.clone()),
    )
    .await;
    nothing_comes(&mut consumer).await;
    drop(consumer);
    let mut queue = queue.reopened().await;
    let mut consumer = queue.consumer().await;
    nothing_comes(&mut consumer).await;
    let dead = dead_letters(&mut queue, 1).await.remove(0);
    assert!(dead.event == event("msg_1"), "all of it is kept");
    assert_eq!(dead.attempt, 1);
    assert!(dead.first_failed_at.unwrap() >= before);
    assert_eq!(dead.reason.as_deref(), Some(failure.reason.as_str()));
    assert_eq!(dead.detail, Some(failure.detail));
    drop(consumer);
    queue.remove().await;
}

pub(crate) async fn what_is_never_answered_ends_in_the_dead_letters<Q: Queue>() {
    let mut queue = Q::new().await;
    publish(&queue.publisher().await, &["msg_1"]).await;
    let mut consumer = queue.consumer().await;
    for redeliveries in 0..=DELIVERY_LIMIT {
        assert_eq!(one(&mut consumer).await.redeliveries, redeliveries);
        within("hand back", consumer.hand_back()).await;
    }
    let dead = dead_letters(&mut queue, 1).await.remove(0);
    assert!(dead.event == event("msg_1"));
    assert_eq!(dead.attempt, 0, "it has not failed for a reason of its own");
    nothing_comes(&mut consumer).await;
    drop(consumer);
    queue.remove().await;
}
