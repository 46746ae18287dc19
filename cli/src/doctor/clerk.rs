//! Clerk: whether the key is good, and of the instance that the rows came from.

use std::time::SystemTime;

use chrono::{DateTime, TimeDelta, Utc};
use clerk_sync_clerk::backend::{ApiError, ApiUrl, Backend, BackendConfig, Instance, SecretKey};

use super::{
    clock::{self, Span},
    database::Origin,
    network::PATIENCE,
    report::{Group, Line},
};

/// What Clerk answered, and between which moments.
pub(super) struct Answer {
    instance: Result<Instance, ApiError>,
    asked: Span,
}

/// Asks once: a port that refuses is told at once.
pub(super) async fn ask(url: &ApiUrl, key: &SecretKey) -> Answer {
    let mut config = BackendConfig::new(key.clone());
    config.api_url = url.clone();
    config.patience = PATIENCE;
    let before = Utc::now();
    let instance = match Backend::new(config) {
        Ok(backend) => backend.without_repeats().instance().await,
        Err(error) => Err(error),
    };
    Answer {
        instance,
        asked: (before, Utc::now()),
    }
}

/// Why Clerk was not asked.
pub(super) enum NotAsked {
    /// There is no key.
    Unset,
    /// There is one, which is told among the settings.
    Unreadable,
}

/// What is to be said of the key, the instance, and the clock.
pub(super) fn judge(
    answer: Result<Answer, NotAsked>,
    url: &ApiUrl,
    configured: Option<&str>,
    origin: Option<&Origin>,
) -> Group {
    let mut lines = Vec::new();
    let key_is_of = match answer {
        Err(why) => {
            let text = match why {
                NotAsked::Unset => {
                    "CLERK_SECRET_KEY is not set: only backfill, reconcile and the API for \
                     applications need it"
                }
                NotAsked::Unreadable => "CLERK_SECRET_KEY cannot be read, see the settings above",
            };
            lines.push(Line::skipped("key", text));
            lines.push(Line::skipped("clock", "Clerk is not asked without a key"));
            None
        }
        Ok(Answer { instance, asked }) => match instance {
            Ok(instance) => {
                let text = format!("{url} knows it: {} ({})", instance.id, instance.kind);
                lines.push(Line::ok("key", text));
                lines.extend(
                    instance
                        .time
                        .map(|time| clock::against_clerk(asked, second(time))),
                );
                Some(instance.id)
            }
            Err(error) => {
                lines.push(refused(url, &error));
                None
            }
        },
    };
    lines.extend(belongs_together(key_is_of.as_deref(), configured, origin));
    Group::new("clerk", lines)
}

/// A `Date` says the second, not when in it.
fn second(time: SystemTime) -> Span {
    let time = DateTime::<Utc>::from(time);
    (time, time + TimeDelta::seconds(1))
}

fn refused(url: &ApiUrl, error: &ApiError) -> Line {
    let text = error.to_string();
    let (what, cure) = match text.split_once("): ") {
        Some((what, cure)) => (format!("{what})"), cure.to_owned()),
        None => {
            let cure = "can this machine reach it (firewall, proxy, DNS)? CLERK_API_URL is only \
                        for a proxy in front of it";
            (text, cure.to_owned())
        }
    };
    let text = format!("{url}: {what}");
    match error {
        ApiError::RateLimited { .. } => Line::warning("key", text, cure),
        _ => Line::problem("key", text, cure),
    }
}

/// Key, setting and rows must be of one instance.
fn belongs_together(
    key: Option<&str>,
    configured: Option<&str>,
    origin: Option<&Origin>,
) -> Vec<Line> {
    const NAME: &str = "instance";
    let mut lines = Vec::new();
    if let (Some(key), Some(configured)) = (key, configured)
        && key != configured
    {
        lines.push(Line::problem(
            NAME,
            format!("CLERK_SECRET_KEY is of {key}, CLERK_INSTANCE_ID says {configured}"),
            "take both from the same instance: is one of them of another environment?",
        ));
    }
    // The setting rules which events are applied, the key who is asked.
    let (ours, whose) = match (key, configured) {
        (Some(key), _) => (key, "CLERK_SECRET_KEY is of"),
        (None, Some(configured)) => (configured, "CLERK_INSTANCE_ID says"),
        (None, None) => return lines,
    };
    let Some(origin) = origin else {
        let text = format!("{ours}; of which instance the rows are could not be asked");
        lines.push(Line::skipped(NAME, text));
        return lines;
    };
    match (&origin.instance, &origin.first_instance) {
        (Some(rows), _) if rows != ours => lines.push(Line::problem(
            NAME,
            format!("{whose} {ours}, and the rows came from {rows}"),
            "is it of another environment? If the rows are to be of this instance from now on: \
             `clerk-sync reconcile --adopt-instance`",
        )),
        (None, Some(first)) if first != ours => lines.push(Line::warning(
            NAME,
            format!("{whose} {ours}, and the first event came from {first}"),
            "an example of the dashboard does that; if not, a webhook of another environment points \
             here. `clerk-sync reconcile` looks at the rows themselves",
        )),
        (None, None) if lines.is_empty() => {
            lines.push(Line::ok(NAME, format!("{ours}; no rows say otherwise")));
        }
        _ if lines.is_empty() => lines.push(Line::ok(NAME, format!("the rows came from {ours}"))),
        _ => {}
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Status;

    fn statuses(lines: &[Line]) -> Vec<Status> {
        lines.iter().map(|line| line.status).collect()
    }

    fn judged(key: Option<&str>, configured: Option<&str>, rows: [Option<&str>; 2]) -> Vec<Status> {
        let [instance, first_instance] = rows.map(|id| id.map(str::to_owned));
        let origin = Origin {
            instance,
            first_instance,
        };
        statuses(&belongs_together(key, configured, Some(&origin)))
    }

    #[test]
    fn key_setting_and_rows_must_be_of_one_instance() {
        use Status::{Ok, Problem, Warning};
        let (a, b) = (Some("ins_a"), Some("ins_b"));
        assert_eq!(judged(None, None, [a, None]), []);
        assert_eq!(judged(a, None, [None, None]), [Ok]);
        assert_eq!(judged(a, a, [a, a]), [Ok]);
        assert_eq!(judged(a, b, [a, None]), [Problem]);
        assert_eq!(judged(a, b, [b, None]), [Problem, Problem]);
        assert_eq!(judged(b, None, [a, b]), [Problem]);
        assert_eq!(judged(None, b, [a, None]), [Problem]);
        assert_eq!(judged(b, None, [None, a]), [Warning]);
    }

    #[test]
    fn of_rows_that_could_not_be_asked_nothing_is_said() {
        use Status::{Problem, Skipped};
        let (a, b) = (Some("ins_a"), Some("ins_b"));
        let judged = |key, configured| statuses(&belongs_together(key, configured, None));
        assert_eq!(judged(None, None), []);
        assert_eq!(judged(a, None), [Skipped]);
        assert_eq!(judged(a, a), [Skipped]);
        assert_eq!(judged(a, b), [Problem, Skipped]);
    }
}
