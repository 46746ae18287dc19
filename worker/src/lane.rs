//! One lane: a consumer, and at most one batch in hand.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use clerk_sync_pipeline::{
    Event, Millis,
    admin::ReadinessPart,
    lifecycle::Shutdown,
    queue::{
        BatchLimits, Consume, Delivery, Failure, RetryLadder, Rung, SUSPECT_REDELIVERIES,
        Settlement,
    },
    retry::Backoff,
    telemetry::{EventKind, Label as _, LaneState, LogSampler, Metrics, Outcome, whole_millis},
    trace,
};
use clerk_sync_projection::{Projection, Unavailable, Verdict};
use rand::seq::SliceRandom as _;
use tokio::time::sleep;
use tracing::Level;

use crate::unless_stopping;

/// How long a batch is tried in place while the database is away, before it is handed back and
/// consumption pauses.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a process that is stopping lets its last batch be applied. What is not committed by
/// then is rolled back and comes again. With the time to settle and to hand back it is well within
/// the grace period.
const LAST_APPLY: Duration = Duration::from_secs(10);

/// How long a process that is stopping waits for its last batch to be settled.
const LAST_SETTLE: Duration = Duration::from_secs(5);

pub(crate) struct Lane<C> {
    pub(crate) consumer: C,
    pub(crate) limits: BatchLimits,
    pub(crate) applier: Applier,
}

/// Everything of a lane but its consumer: what all lanes have alike.
#[derive(Clone)]
pub(crate) struct Applier {
    pub(crate) projection: Projection,
    pub(crate) ladder: RetryLadder,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) logged: Arc<Logged>,
    pub(crate) readiness: ReadinessPart,
    pub(crate) shutdown: Shutdown,
}

/// Which lines about single events are written; one for all lanes.
#[derive(Default)]
pub(crate) struct Logged {
    processed: LogSampler,
    dead_lettered: LogSampler,
}

/// The batch could not be applied, and was handed back; one of its events.
struct HandedBack(Event);

impl<C: Consume> Lane<C> {
    pub(crate) async fn run(mut self) {
        let shutdown = self.applier.shutdown.clone();
        let mut gauge = self.applier.metrics.lane();
        while let Some(batch) =
            unless_stopping(&shutdown, self.consumer.next_batch(self.limits)).await
        {
            gauge.set(LaneState::Busy);
            if let Err(HandedBack(event)) = self.process(batch).await {
                gauge.set(LaneState::Paused);
                self.applier.wait_for_the_database(&event).await;
            }
            gauge.set(LaneState::Idle);
        }
        self.consumer.hand_back().await;
    }

    /// Everything but the suspects at once; then each suspect alone, so that the one that kills
    /// its worker takes no neighbour along. In a random order: after some deaths every innocent
    /// has come before it and is done.
    async fn process(&mut self, batch: Vec<Delivery>) -> Result<(), HandedBack> {
        let started = Instant::now();
        self.applier
            .metrics
            .batch_events
            .observe(count(batch.len()));
        let (mut suspects, others): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .partition(|delivery| delivery.redeliveries >= SUSPECT_REDELIVERIES);
        suspects.shuffle(&mut rand::rng());
        if !others.is_empty() {
            self.apply_and_settle(others).await?;
        }
        for suspect in suspects {
            if self.applier.shutdown.is_requested() {
                // The rest is handed back at the end: each could take all the time that is left.
                break;
            }
            self.apply_and_settle(vec![suspect]).await?;
        }
        self.applier
            .metrics
            .batch_duration
            .observe(started.elapsed().as_secs_f64());
        Ok(())
    }

    async fn apply_and_settle(&mut self, deliveries: Vec<Delivery>) -> Result<(), HandedBack> {
        let event = deliveries[0].event.clone();
        // A process that is stopping does not wait for ever for what may never end.
        let settlements = tokio::select! {
            settlements = self.applier.settlements(&deliveries) => settlements,
            () = self.applier.stopping_for(LAST_APPLY) => None,
        };
        let Some(settlements) = settlements else {
            self.consumer.hand_back().await;
            return Err(HandedBack(event));
        };
        // Settled only now: every row is committed, or its event is on its way to a rung.
        let settled = deliveries.into_iter().zip(settlements).collect();
        tokio::select! {
            // An error means that they will come again, and be found applied.
            _ = self.consumer.settle(settled) => Ok(()),
            // A way that is blocked must not keep a process that is stopping.
            () = self.applier.stopping_for(LAST_SETTLE) => {
                self.consumer.hand_back().await;
                Err(HandedBack(event))
            }
        }
    }
}

impl Applier {
    /// Resolves so long after the process was asked to stop.
    async fn stopping_for(&self, time: Duration) {
        self.shutdown.requested().await;
        sleep(time).await;
    }

    /// Applies the deliveries; how to settle each, or `None` when patience or the process ended.
    async fn settlements(&self, deliveries: &[Delivery]) -> Option<Vec<Settlement>> {
        let trace = trace::Batch::begin(deliveries.iter().map(|delivery| &delivery.event));
        let verdicts = self.apply(deliveries).await?;
        let applied: Vec<Option<Outcome>> = verdicts
            .iter()
            .map(|(verdict, _)| applied(verdict))
            .collect();
        let settlements: Vec<Settlement> = deliveries
            .iter()
            .zip(verdicts)
            .map(|(delivery, (verdict, _))| self.settlement(delivery, verdict))
            .collect();
        self.record(deliveries, &settlements).await?;
        trace.end(|| processed(deliveries, &applied, &settlements));
        for (delivery, settlement) in deliveries.iter().zip(&settlements) {
            self.report(delivery, settlement);
        }
        Some(settlements)
    }

    /// The verdicts, once everything is committed; `None` when patience or the process ended.
    async fn apply(&self, deliveries: &[Delivery]) -> Option<Vec<(Verdict, Option<Millis>)>> {
        let mut batch = self
            .projection
            .read(deliveries.iter().map(|delivery| &delivery.event));
        let mut weather = Weather::new(self);
        while let Err(unavailable) = self.projection.apply(&mut batch).await {
            weather.pass(&unavailable).await?;
        }
        weather.cleared();
        let verdicts = batch.into_verdicts();
        self.observe(deliveries, &verdicts);
        Some(verdicts)
    }

    /// Counts what was applied; what failed is counted once the ledger has it.
    fn observe(&self, deliveries: &[Delivery], verdicts: &[(Verdict, Option<Millis>)]) {
        let now = Millis::now();
        for (delivery, (verdict, occurred_at)) in deliveries.iter().zip(verdicts) {
            let Verdict::Applied(outcome) = verdict else {
                continue;
            };
            self.count(delivery, *outcome);
            self.tell(delivery, *outcome, None, now);
            let received = now.seconds_since(delivery.event.received_at);
            self.metrics.queue_latency.observe(received);
            if let Some(occurred_at) = occurred_at {
                self.metrics
                    .sync_latency
                    .observe(now.seconds_since(*occurred_at));
            }
        }
    }

    fn settlement(&self, delivery: &Delivery, verdict: Verdict) -> Settlement {
        match verdict {
            Verdict::Applied(_) => Settlement::Done,
            Verdict::DeadLetter(failure) => Settlement::DeadLetter(failure),
            Verdict::Postpone(failure) => Settlement::Postpone(Rung(0), failure),
            Verdict::Retry(failure) => match self.ladder.rung(delivery.attempt) {
                Some(rung) => Settlement::Retry(rung, failure),
                None => Settlement::DeadLetter(failure),
            },
        }
    }

    /// Counts and logs what is put aside, once the ledger has it.
    fn report(&self, delivery: &Delivery, settlement: &Settlement) {
        let now = Millis::now();
        match settlement {
            Settlement::Done => {}
            Settlement::Retry(_, failure) | Settlement::Postpone(_, failure) => {
                self.count(delivery, Outcome::Retried);
                self.tell(delivery, Outcome::Retried, Some(failure), now);
                self.metrics.retries.get(failure.reason).inc();
            }
            Settlement::DeadLetter(failure) => {
                self.count(delivery, Outcome::DeadLettered);
                self.metrics.dead_letters.get(failure.reason).inc();
                let event = &delivery.event;
                self.logged
                    .dead_lettered
                    .of_event(&event.id, now, |held_back| {
                        tracing::warn!(
                            event.id = %event.id,
                            event.r#type = %event.event_type,
                            attempt = delivery.attempt,
                            reason = failure.reason.as_str(),
                            detail = failure.detail,
                            held_back,
                            "an event was dead-lettered"
                        );
                    });
            }
        }
    }

    /// The line of an event that was applied, or put off for a while.
    fn tell(&self, delivery: &Delivery, outcome: Outcome, failure: Option<&Failure>, now: Millis) {
        if !tracing::enabled!(Level::DEBUG) {
            return;
        }
        let event = &delivery.event;
        self.logged.processed.of_event(&event.id, now, |held_back| {
            tracing::debug!(
                event.id = %event.id,
                event.r#type = %event.event_type,
                attempt = delivery.attempt,
                outcome = outcome.as_str(),
                reason = failure.map(|failure| failure.reason.as_str()),
                detail = failure.map(|failure| failure.detail.as_str()),
                queue_latency_ms = now.0.saturating_sub(event.received_at.0).max(0),
                held_back,
                "event processed"
            );
        });
    }

    fn count(&self, delivery: &Delivery, outcome: Outcome) {
        let kind = EventKind::of(delivery.event.event_type.as_str());
        self.metrics.events.get(kind, outcome).inc();
    }

    /// Notes in the ledger what was put aside; `None` when patience or the process ended.
    async fn record(&self, deliveries: &[Delivery], settlements: &[Settlement]) -> Option<()> {
        let put_aside: Vec<(&Event, Outcome)> = deliveries
            .iter()
            .zip(settlements)
            .filter_map(|(delivery, settlement)| match settlement {
                Settlement::Done => None,
                Settlement::Retry(..) | Settlement::Postpone(..) => {
                    Some((&delivery.event, Outcome::Retried))
                }
                Settlement::DeadLetter(_) => Some((&delivery.event, Outcome::DeadLettered)),
            })
            .collect();
        if put_aside.is_empty() {
            return Some(());
        }
        let mut weather = Weather::new(self);
        while let Err(unavailable) = self.projection.record(&put_aside).await {
            weather.pass(&unavailable).await?;
        }
        weather.cleared();
        Some(())
    }

    /// Nothing is consumed while the database is away: each hand-out counts against the events.
    ///
    /// `event` is rehearsed: a database that answers questions may still take no writes.
    async fn wait_for_the_database(&self, event: &Event) {
        let mut backoff = Backoff::reconnect();
        loop {
            if unless_stopping(&self.shutdown, sleep(backoff.next_delay()))
                .await
                .is_none()
            {
                return;
            }
            match unless_stopping(&self.shutdown, self.projection.would_take(event)).await {
                None => return,
                Some(Ok(())) => {
                    self.readiness.ready();
                    tracing::info!("the database is back, consuming again");
                    return;
                }
                Some(Err(error)) => tracing::debug!(%error, "still no database"),
            }
        }
    }
}

/// Bad weather while one batch is tried.
struct Weather<'a> {
    applier: &'a Applier,
    backoff: Backoff,
    since: Option<Instant>,
}

impl<'a> Weather<'a> {
    fn new(applier: &'a Applier) -> Self {
        Self {
            applier,
            backoff: Backoff::weather(),
            since: None,
        }
    }

    /// Waits before the next try. `None`: patience is over, or the process is stopping.
    async fn pass(&mut self, unavailable: &Unavailable) -> Option<()> {
        let since = *self.since.get_or_insert_with(|| {
            tracing::warn!(
                error = unavailable.0,
                "the database is unavailable, trying again"
            );
            Instant::now()
        });
        self.applier.readiness.not_ready(unavailable.0.clone());
        if since.elapsed() >= PATIENCE {
            tracing::warn!(
                error = unavailable.0,
                "the database stays away, consumption pauses"
            );
            return None;
        }
        unless_stopping(&self.applier.shutdown, sleep(self.backoff.next_delay())).await
    }

    fn cleared(&self) {
        if let Some(since) = self.since {
            self.applier.readiness.ready();
            tracing::info!(
                duration_ms = whole_millis(since.elapsed()),
                "the database is available again"
            );
        }
    }
}

fn count(deliveries: usize) -> f64 {
    f64::from(u32::try_from(deliveries).unwrap_or(u32::MAX))
}

/// What an event became, if it was applied.
fn applied(verdict: &Verdict) -> Option<Outcome> {
    match verdict {
        Verdict::Applied(outcome) => Some(*outcome),
        Verdict::Retry(_) | Verdict::Postpone(_) | Verdict::DeadLetter(_) => None,
    }
}

/// What became of each event, for its trace.
fn processed<'a>(
    deliveries: &'a [Delivery],
    applied: &'a [Option<Outcome>],
    settlements: &'a [Settlement],
) -> impl Iterator<Item = trace::Processed<'a>> {
    deliveries.iter().zip(applied).zip(settlements).filter_map(
        |((delivery, applied), settlement)| {
            let (outcome, reason) = match settlement {
                Settlement::Done => ((*applied)?, None),
                Settlement::Retry(_, failure) | Settlement::Postpone(_, failure) => {
                    (Outcome::Retried, Some(failure.reason))
                }
                Settlement::DeadLetter(failure) => (Outcome::DeadLettered, Some(failure.reason)),
            };
            Some(trace::Processed {
                event: &delivery.event,
                attempt: delivery.attempt,
                outcome,
                reason,
            })
        },
    )
}
