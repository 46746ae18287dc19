//! An application that is given up, at any moment: what it leaves behind must not touch what comes
//! after it on the same connection.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::Poll,
};

use clerk_sync_pipeline::telemetry::Outcome;
use clerk_sync_projection::{Projection, ProjectionConfig, database};

use crate::{
    clerk::user,
    database::{Db, metrics},
};

/// More than it takes to apply an event.
const POLLS: usize = 30;

on_both_databases! {
    what_follows_an_abandoned_application_is_committed,
}

/// Polls a future so often at the most; `None` if it was under way by then.
pub(crate) async fn polled<F: Future>(mut future: Pin<&mut F>, polls: usize) -> Option<F::Output> {
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Pending if left == 0 => Poll::Ready(None),
            poll => poll.map(Some),
        }
    })
    .await
}

/// Not every driver rolls back when its `BEGIN` is abandoned before it was answered. The next
/// statement without a transaction of its own would then be said to be done, and never be.
async fn what_follows_an_abandoned_application_is_committed(db: &Db) {
    let one_connection = database::connect(&db.url, 1).await.unwrap();
    let projection = Projection::new(one_connection, ProjectionConfig::default(), metrics());
    projection.ping().await.unwrap();
    for polls in 0..POLLS {
        let abandoned = user("a").at(0).updated(&format!("abandoned_{polls}"));
        let mut batch = projection.read([&abandoned]);
        polled(pin!(projection.apply(&mut batch)), polls).await;

        let event = user("b").created(&format!("noted_{polls}"));
        let noted = [(&event, Outcome::DeadLettered)];
        projection.record(&noted).await.unwrap();
        let outcome = db.ledger().await.remove(event.id.as_str());
        assert_eq!(
            outcome.as_deref(),
            Some("dead_lettered"),
            "after {polls} polls"
        );
    }
}
