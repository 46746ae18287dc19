//! `doctor --probe`: an event of a made-up user, signed as Clerk signs, followed to its row and away
//! again.
//!
//! Guaranteed: whatever happens, also when it is interrupted or gives up, no row is left and none
//! comes later. What stays is the tombstone that makes sure of it, and the ledger's two rows.

use std::time::{Duration, Instant};

use clerk_sync_pipeline::{lifecycle::Shutdown, secret::ServerUrl};
use clerk_sync_projection::{Projection, Unavailable, inspect::Traces};
use svix::webhooks::Webhook;
use tokio::time::sleep;

use super::{
    network::in_millis,
    report::{Group, Line},
    settings::Settings,
    webhook::{self, Answer, NoAnswer, Poster},
};
use made_up::{Event, MadeUp};
use stuck::Stuck;

mod clean;
mod made_up;
mod parked;
mod stuck;

/// Time between two looks at the database.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A probe, under way.
struct Probe<'a> {
    settings: &'a Settings,
    poster: Poster,
    webhook: Webhook,
    /// Where the row must appear, if that can be looked at.
    projection: Option<Projection>,
    user: MadeUp,
    /// Longest wait for each step.
    within: Duration,
    /// Whether the first event may be in the queue, or applied.
    may_be_under_way: bool,
    /// Whether the database has been seen to know it.
    is_known_here: bool,
}

/// Sends the probe; ends early, and cleans up, when that is asked for.
pub(super) async fn run(
    settings: &Settings,
    url: &ServerUrl,
    database: Option<Projection>,
    within: Duration,
    shutdown: &Shutdown,
) -> Group {
    let mut lines = Vec::new();
    match Probe::new(settings, url, database, within) {
        Ok(mut probe) => {
            let told = tokio::select! {
                told = probe.tell(&mut lines) => told,
                () = shutdown.requested() => Err(Stuck::Interrupted),
            };
            if let Err(stuck) = told {
                // First of all: to find out why can take its time, and somebody may lose patience.
                let buried = probe.bury().await;
                lines.push(probe.explain(&stuck).await);
                if let Some(buried) = buried {
                    lines.push(probe.clean(&stuck, buried).await);
                }
            } else {
                lines.push(probe.tidy().await);
            }
        }
        Err(line) => lines.push(line),
    }
    Group::new("probe", lines)
}

impl<'a> Probe<'a> {
    fn new(
        settings: &'a Settings,
        url: &ServerUrl,
        projection: Option<Projection>,
        within: Duration,
    ) -> Result<Self, Line> {
        let no = |text: String, cure: &str| Line::problem("accepted", text, cure);
        let secrets = settings.secrets().ok().flatten().ok_or_else(|| {
            no(
                "there is no signing secret to sign with".to_owned(),
                "set CLERK_WEBHOOK_SIGNING_SECRET to that of the process at this URL",
            )
        })?;
        let mut all = secrets.text.expose().split(',').map(str::trim);
        let first = all.find(|secret| !secret.is_empty()).unwrap_or_default();
        let webhook = Webhook::new(first).map_err(|_| {
            no(
                format!("{} cannot sign", secrets.place),
                "it is malformed, see the settings above",
            )
        })?;
        let poster = Poster::new(url).map_err(|error| {
            no(
                format!("{error:#}"),
                "are the system's CA certificates installed?",
            )
        })?;
        Ok(Self {
            settings,
            poster,
            webhook,
            projection,
            user: MadeUp::new(),
            within,
            may_be_under_way: false,
            is_known_here: false,
        })
    }

    /// The whole story, a line for each step.
    async fn tell(&mut self, lines: &mut Vec<Line>) -> Result<(), Stuck> {
        // From here on it may be queued, whatever is answered: an answer can be lost.
        self.may_be_under_way = true;
        let created = self.user.created();
        let answer = self.post(&created).await?;
        let text = format!(
            "user.created was answered 204 in {}",
            in_millis(answer.took)
        );
        lines.push(Line::ok("accepted", text).took(answer.took));
        if self.projection.is_none() {
            let text = "not followed any further, since the database cannot be looked at";
            lines.push(Line::skipped("applied", text));
            return self.post(&self.user.deleted()).await.map(drop);
        }
        let took = self.follow(&created, |traces| {
            traces.has_row && traces.outcome(&created.id) == Some("created")
        });
        let took = took.await?;
        let text = format!("the row was there {} after that", in_millis(took));
        lines.push(Line::ok("applied", text).took(took));

        let deleted = self.user.deleted();
        self.post(&deleted).await?;
        let took = self.follow(&deleted, |traces| {
            !traces.has_row && traces.outcome(&deleted.id) == Some("deleted")
        });
        let took = took.await?;
        let text = format!(
            "it was gone {} after user.deleted was taken",
            in_millis(took)
        );
        lines.push(Line::ok("removed", text).took(took));
        Ok(())
    }

    async fn post(&mut self, event: &Event) -> Result<Answer, Stuck> {
        let answer = self
            .poster
            .signed(&self.webhook, &event.id, &event.body)
            .await;
        let (stuck, is_refused) = match answer {
            Ok(answer) if answer.status == 204 => return Ok(answer),
            // Of a refusal nothing is queued. A 503 may come too late to take the event back.
            Ok(answer) => {
                let is_refused = (300..500).contains(&answer.status);
                (Stuck::NotAccepted(event.kind, answer), is_refused)
            }
            Err(NoAnswer { cause, unsent }) => (Stuck::NoAnswer(event.kind, cause), unsent),
        };
        if is_refused && event.kind == made_up::CREATED {
            self.may_be_under_way = false;
        }
        Err(stuck)
    }

    /// Looks at the database until it is as hoped for; how long that took.
    async fn follow(
        &mut self,
        event: &Event,
        is_there: impl Fn(&Traces) -> bool,
    ) -> Result<Duration, Stuck> {
        let projection = self.projection.as_ref().expect("it was asked for before");
        let started = Instant::now();
        let ids = [event.id.as_str()];
        loop {
            let traces = projection.traces(&self.user.id, &ids).await;
            let traces = traces.map_err(|Unavailable(cause)| Stuck::DatabaseLost(cause))?;
            let outcome = traces.outcome(&event.id);
            self.is_known_here |= outcome.is_some();
            if is_there(&traces) {
                return Ok(started.elapsed());
            }
            if outcome == Some("dead_lettered") || started.elapsed() > self.within {
                return Err(Stuck::NotApplied {
                    kind: event.kind,
                    outcome: outcome.map(str::to_owned),
                    waited: started.elapsed(),
                });
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}
