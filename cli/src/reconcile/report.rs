//! What a reconciliation has found, counted and listed.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, UNIX_EPOCH},
};

use clerk_sync_pipeline::{
    Millis,
    telemetry::{DriftKind, Label as _},
};
use clerk_sync_projection::SnapshotOutcome;
use serde::Serialize;

use super::confirm::Drifted;

/// Users that are listed; all are counted.
const MOST_LISTED: usize = 10_000;

/// A user who has drifted.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    pub(super) clerk_id: String,
    #[serde(serialize_with = "as_label")]
    pub(super) kind: DriftKind,
    pub(super) fixed: bool,
    /// Nothing, or what there is to say beside.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) detail: String,
}

fn as_label<S: serde::Serializer>(kind: &DriftKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.as_str())
}

/// How many of each kind.
type Counts = [u64; DriftKind::ALL.len()];

/// All of it.
pub(super) struct Report {
    pub(super) instance: String,
    pub(super) started_at: Millis,
    /// From when on changes were looked at, if not at all users.
    pub(super) since: Option<Millis>,
    /// Users that Clerk has named.
    pub(super) users: u64,
    /// Rows that were looked through for ghosts.
    pub(super) rows: u64,
    found: Counts,
    fixed: Counts,
    listed: Vec<Found>,
    /// Where in the list a user is.
    places: HashMap<String, usize>,
    /// Rows that the sync has never written, of nobody at Clerk.
    pub(super) strangers: u64,
    /// Users without an address, who need no row.
    pub(super) without_address: u64,
    /// Users whose values no database takes.
    pub(super) unwritable: u64,
    /// How many ghosts may be deleted, when there are more.
    pub(super) most_deletes: Option<u64>,
    pub(super) took: Duration,
}

impl Report {
    pub(super) fn new(instance: &str, since: Option<Millis>) -> Self {
        Self {
            instance: instance.to_owned(),
            started_at: Millis::now(),
            since,
            users: 0,
            rows: 0,
            found: Counts::default(),
            fixed: Counts::default(),
            listed: Vec::new(),
            places: HashMap::new(),
            strangers: 0,
            without_address: 0,
            unwritable: 0,
            most_deletes: None,
            took: Duration::ZERO,
        }
    }

    pub(super) fn add(&mut self, drifted: &Drifted) {
        self.found[drifted.kind.index()] += 1;
        if self.listed.len() < MOST_LISTED {
            let clerk_id = drifted.clerk_id.clone();
            self.places.insert(clerk_id.clone(), self.listed.len());
            self.listed.push(Found {
                clerk_id,
                kind: drifted.kind,
                fixed: false,
                detail: drifted.detail.to_owned(),
            });
        }
    }

    /// What became of a user who was to be mended.
    pub(super) fn mended(&mut self, kind: DriftKind, clerk_id: &str, outcome: &SnapshotOutcome) {
        let trouble = trouble(outcome);
        if trouble.is_none() {
            self.fixed[kind.index()] += 1;
        }
        if let Some(place) = self.places.get(clerk_id) {
            let found = &mut self.listed[*place];
            found.fixed = trouble.is_none();
            if found.detail.is_empty() {
                found.detail = trouble.unwrap_or_default();
            }
        }
    }

    pub(super) fn found(&self, kind: DriftKind) -> u64 {
        self.found[kind.index()]
    }

    pub(super) fn fixed(&self, kind: DriftKind) -> u64 {
        self.fixed[kind.index()]
    }

    /// What is still so.
    pub(super) fn left(&self, kind: DriftKind) -> u64 {
        self.found(kind) - self.fixed(kind)
    }

    pub(super) fn left_in_all(&self) -> u64 {
        DriftKind::ALL.iter().map(|kind| self.left(*kind)).sum()
    }

    /// Those of a kind that are still so, as far as they are listed.
    pub(super) fn listed(&self, kind: DriftKind) -> impl Iterator<Item = &Found> {
        let left = move |one: &&Found| one.kind == kind && !one.fixed;
        self.listed.iter().filter(left)
    }

    /// For machines.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Json<'a> {
            instance_id: &'a str,
            started_at: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            since: Option<String>,
            took_ms: u128,
            users: u64,
            rows: u64,
            drift: BTreeMap<&'static str, u64>,
            fixed: BTreeMap<&'static str, u64>,
            left: u64,
            strangers: u64,
            without_address: u64,
            unwritable: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            max_deletes_exceeded: Option<u64>,
            listed: &'a [Found],
        }
        let by_kind = |counts: &Counts| {
            let kinds = DriftKind::ALL.iter().map(|kind| kind.as_str());
            kinds.zip(counts.iter().copied()).collect()
        };
        serde_json::to_string_pretty(&Json {
            instance_id: &self.instance,
            started_at: rfc3339(self.started_at),
            since: self.since.map(rfc3339),
            took_ms: self.took.as_millis(),
            users: self.users,
            rows: self.rows,
            drift: by_kind(&self.found),
            fixed: by_kind(&self.fixed),
            left: self.left_in_all(),
            strangers: self.strangers,
            without_address: self.without_address,
            unwritable: self.unwritable,
            max_deletes_exceeded: self.most_deletes,
            listed: &self.listed,
        })
    }
}

/// Why a user was not mended, if it was not.
fn trouble(outcome: &SnapshotOutcome) -> Option<String> {
    match outcome {
        SnapshotOutcome::Created
        | SnapshotOutcome::Updated
        | SnapshotOutcome::Deleted
        | SnapshotOutcome::Current => None,
        SnapshotOutcome::Stale => Some("not fixed: something newer is known".to_owned()),
        SnapshotOutcome::MissingEmail => Some("not fixed: the user has no address".to_owned()),
        SnapshotOutcome::Failed(failure) => Some(format!("not fixed: {}", failure.detail)),
    }
}

/// `2026-11-24T17:00:00Z`
pub(super) fn rfc3339(at: Millis) -> String {
    let millis = u64::try_from(at.0).unwrap_or_default();
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(millis)).to_string()
}
