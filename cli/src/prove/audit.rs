//! What is in the tables, compared with what must be.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use clerk_sync_entity::{credits, processed_events, user_versions, users};
use clerk_sync_simulator::{Addressless, History, Row};
use sea_orm::{
    ConnectionTrait as _, EntityTrait as _, FromQueryResult as _, QueryResult, sea_query::Query,
};

use super::{
    report::Finding,
    site::{CREDITS, Site},
};
use crate::scratch::Leftovers;

/// Everything that is held, once all processes have stopped.
struct Held {
    users: BTreeMap<String, users::Model>,
    /// User keys with the amounts that were granted.
    credits: HashMap<String, Vec<i32>>,
    /// Outcomes by event id.
    ledger: HashMap<String, String>,
    versions: BTreeMap<String, user_versions::Row>,
}

/// Compares; every finding is told, good or bad.
pub(crate) async fn audit(
    site: &Site,
    history: &History,
    addressless: Addressless,
    leftovers: &Leftovers,
) -> anyhow::Result<Vec<Finding>> {
    let held = Held::read(site).await?;
    let expected = history.table(addressless);
    Ok(vec![
        every_event_is_in_the_ledger(history, &held),
        every_row_is_right(&expected, &held),
        nobody_else_is_there(&expected, &held),
        deleted_users_stay_gone(history, &held),
        the_newest_versions_are_held(history, addressless, &held),
        each_event_is_applied_once(history, addressless, &held),
        credits_are_granted_once(&held),
        dead_letters_are_those_without_an_address(history, addressless, &held, leftovers),
        nothing_is_left_in_the_queues(leftovers),
    ])
}

impl Held {
    async fn read(site: &Site) -> anyhow::Result<Self> {
        let backend = site.backend();
        let users = users::Entity::find().all(&site.db).await?;
        let mut granted: HashMap<String, Vec<i32>> = HashMap::new();
        for entry in credits::Entity::find().all(&site.db).await? {
            granted.entry(entry.user_id).or_default().push(entry.amount);
        }
        let mut ledger = Query::select();
        ledger
            .columns([
                processed_events::Column::EventId,
                processed_events::Column::Outcome,
            ])
            .from(processed_events::table(backend));
        let entry = |row: QueryResult| Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?));
        let ledger = site.db.query_all(&ledger).await?;
        let ledger: Result<_, sea_orm::DbErr> = ledger.into_iter().map(entry).collect();
        let mut versions = Query::select();
        versions
            .columns([
                user_versions::Column::ClerkId,
                user_versions::Column::UpdatedAtMs,
                user_versions::Column::OccurredAtMs,
                user_versions::Column::EventId,
                user_versions::Column::DeletedAt,
            ])
            .from(user_versions::table(backend));
        let versions = site.db.query_all(&versions).await?;
        let versions: Result<Vec<_>, _> = versions
            .iter()
            .map(|row| user_versions::Row::from_query_result(row, ""))
            .collect();
        Ok(Self {
            users: users
                .into_iter()
                .map(|user| (user.clerk_id.clone(), user))
                .collect(),
            credits: granted,
            ledger: ledger?,
            versions: versions?
                .into_iter()
                .map(|row| (row.clerk_id.clone(), row))
                .collect(),
        })
    }

    fn outcome(&self, event_id: &str) -> Option<&str> {
        self.ledger.get(event_id).map(String::as_str)
    }

    fn dead_lettered(&self) -> BTreeSet<&str> {
        let dead = self
            .ledger
            .iter()
            .filter(|(_, outcome)| *outcome == "dead_lettered");
        dead.map(|(id, _)| id.as_str()).collect()
    }
}

fn every_event_is_in_the_ledger(history: &History, held: &Held) -> Finding {
    let mut finding = Finding::new("every event answered 204 is in the ledger");
    let sent: BTreeSet<&str> = history
        .events
        .iter()
        .map(|event| event.id.as_str())
        .collect();
    for id in &sent {
        match held.outcome(id) {
            None => finding.wrong(format!("{id} is lost")),
            Some("retried") => finding.wrong(format!("{id} still waits to be tried again")),
            Some(_) => {}
        }
    }
    let strangers = held.ledger.keys().filter(|id| !sent.contains(id.as_str()));
    for id in strangers {
        finding.wrong(format!("{id} was never sent"));
    }
    finding.right(format!("{} events", sent.len()))
}

fn every_row_is_right(expected: &[Row], held: &Held) -> Finding {
    let mut finding = Finding::new("every row is the simulation's");
    for row in expected {
        let clerk_id = &row.clerk_id;
        let Some(user) = held.users.get(clerk_id) else {
            finding.wrong(format!("{clerk_id} is missing"));
            continue;
        };
        let columns = [
            ("email", row.email.admits(&user.email)),
            ("name", row.name == user.name),
            ("imageUrl", row.image_url == user.image_url),
            ("createdAt", row.created_at == millis(user.created_at)),
            ("updatedAt", row.updated_at == millis(user.updated_at)),
        ];
        for (column, right) in columns {
            if !right {
                finding.wrong(format!("{clerk_id} has another {column}"));
            }
        }
    }
    finding.right(format!("{} rows, every column", expected.len()))
}

fn millis(time: chrono::NaiveDateTime) -> i64 {
    time.and_utc().timestamp_millis()
}

fn nobody_else_is_there(expected: &[Row], held: &Held) -> Finding {
    let mut finding = Finding::new("nobody else is in the table");
    let wanted: BTreeSet<&str> = expected.iter().map(|row| row.clerk_id.as_str()).collect();
    for clerk_id in held.users.keys().filter(|id| !wanted.contains(id.as_str())) {
        finding.wrong(format!("{clerk_id} should not be there"));
    }
    finding.right("no ghosts".to_owned())
}

fn deleted_users_stay_gone(history: &History, held: &Held) -> Finding {
    let mut finding = Finding::new("deleted users stay gone");
    let deleted = history.deleted();
    for clerk_id in &deleted {
        if held.users.contains_key(*clerk_id) {
            finding.wrong(format!("{clerk_id} is back"));
        }
        let version = held.versions.get(*clerk_id);
        if version.is_none_or(|version| version.deleted_at.is_none()) {
            finding.wrong(format!("{clerk_id} has no tombstone"));
        }
    }
    for (clerk_id, version) in &held.versions {
        if version.deleted_at.is_some() && !deleted.contains(clerk_id.as_str()) {
            finding.wrong(format!("{clerk_id} has a tombstone and was never deleted"));
        }
    }
    finding.right(format!(
        "{} deleted, each with its tombstone",
        deleted.len()
    ))
}

fn the_newest_versions_are_held(
    history: &History,
    addressless: Addressless,
    held: &Held,
) -> Finding {
    let mut finding = Finding::new("the newest version of each user is held");
    let last_words = history.last_words(addressless);
    for (clerk_id, last) in &last_words {
        let version = held.versions.get(*clerk_id);
        let newest = version.is_some_and(|version| {
            version.event_id == last.id
                && Some(version.updated_at_ms) == last.updated_at()
                && version.occurred_at_ms == last.occurred_at()
        });
        if !newest {
            finding.wrong(format!("{clerk_id} is held at another version"));
        }
    }
    finding.right(format!("{} users", last_words.len()))
}

/// A delivery that came again must not have changed what the ledger says of the first: the newest
/// event of each user was applied, one of each user's made the row, and each delete was the delete.
fn each_event_is_applied_once(history: &History, addressless: Addressless, held: &Held) -> Finding {
    let mut finding = Finding::new("each event was applied once");
    for (clerk_id, last) in history.last_words(addressless) {
        match held.outcome(&last.id) {
            Some("created" | "updated") => {}
            other => finding.wrong(format!(
                "the newest event of {clerk_id}, {}, is {other:?} in the ledger",
                last.id
            )),
        }
    }
    let mut created: HashMap<&str, usize> = HashMap::new();
    for event in &history.events {
        let outcome = held.outcome(&event.id);
        if event.event_type == "user.deleted" && outcome != Some("deleted") {
            finding.wrong(format!(
                "the delete {} is {outcome:?} in the ledger",
                event.id
            ));
        }
        if let (Some(clerk_id), Some("created")) = (&event.clerk_id, outcome) {
            *created.entry(clerk_id).or_default() += 1;
        }
    }
    for clerk_id in held.users.keys() {
        let times = created.get(clerk_id.as_str()).copied().unwrap_or_default();
        if times != 1 {
            finding.wrong(format!("{clerk_id} was created {times} times"));
        }
    }
    finding.right(format!("{} outcomes add up", held.ledger.len()))
}

fn credits_are_granted_once(held: &Held) -> Finding {
    let mut finding = Finding::new("new users were granted their credits once");
    for (clerk_id, user) in &held.users {
        let granted = held.credits.get(&user.id).map_or(&[][..], Vec::as_slice);
        if granted != [CREDITS] {
            finding.wrong(format!("{clerk_id} was granted {granted:?}"));
        }
    }
    finding.right(format!("{CREDITS} each"))
}

fn dead_letters_are_those_without_an_address(
    history: &History,
    addressless: Addressless,
    held: &Held,
    leftovers: &Leftovers,
) -> Finding {
    let mut finding = Finding::new("dead letters are those that must be");
    let dead = held.dead_lettered();
    let letters = match addressless {
        Addressless::Placeholder => clerk_sync_simulator::DeadLetters::default(),
        Addressless::DeadLetter => history.dead_letters(),
    };
    for id in letters.must.difference(&dead) {
        finding.wrong(format!("{id} has no address and is no dead letter"));
    }
    for id in &dead {
        if !letters.must.contains(id) && !letters.may.contains(id) {
            finding.wrong(format!("{id} should not be a dead letter"));
        }
    }
    // A delivery that came again can lie there twice, or be found applied after the first was put
    // there; it can never be missing.
    if leftovers.dead < dead.len() as u64 {
        finding.wrong(format!(
            "{} dead letters in the ledger, only {} in the queue",
            dead.len(),
            leftovers.dead
        ));
    }
    if letters.must.is_empty() && letters.may.is_empty() && leftovers.dead > 0 {
        finding.wrong(format!("{} in the queue", leftovers.dead));
    }
    finding.right(match dead.len() {
        0 => "none".to_owned(),
        count => format!("{count} without an address"),
    })
}

fn nothing_is_left_in_the_queues(leftovers: &Leftovers) -> Finding {
    let mut finding = Finding::new("nothing is left in the queues");
    if leftovers.unapplied > 0 {
        finding.wrong(format!("{} events are not applied", leftovers.unapplied));
    }
    if leftovers.unrouted > 0 {
        finding.wrong(format!("{} events found no queue", leftovers.unrouted));
    }
    finding.right("empty".to_owned())
}
