//! No figure without it: what was accepted is there, and what is there is right.

use std::collections::{BTreeMap, HashMap};

use anyhow::Context as _;
use clerk_sync_entity::{processed_events, users};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DatabaseConnection, EntityTrait as _, QueryFilter as _,
    QuerySelect as _,
    prelude::DateTime,
    sea_query::{Expr, ExprTrait as _, Query},
};
use serde::Serialize;

use super::{load::Fate, stock::Stock};
use crate::scratch::Leftovers;

/// What became of the events that were accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Audit {
    /// Answered 2xx, or confirmed by the broker.
    pub(super) accepted: u64,
    /// In the queue, or in the ledger with an outcome.
    pub(super) found: u64,
    /// Accepted and not found.
    pub(super) lost: u64,
    /// Found and never sent, or put aside where nothing should be.
    pub(super) unexplained: u64,
    /// Users whose row is not what the newest event said.
    pub(super) wrong_rows: u64,
    /// Still in some queue.
    pub(super) left_over: u64,
}

impl Audit {
    /// Of a queue, by numbers: what was not accepted may be there all the same, its answer lost.
    pub(super) fn of_queue(accepted: u64, not_accepted: u64, leftovers: &Leftovers) -> Self {
        let found = leftovers.unapplied;
        Self {
            accepted,
            found,
            lost: accepted.saturating_sub(found),
            unexplained: found.saturating_sub(accepted + not_accepted)
                + leftovers.unrouted
                + leftovers.dead,
            ..Self::default()
        }
    }

    /// Of the tables, event by event, user by user.
    pub(super) fn of_tables(
        stock: &Stock,
        fates: &[Fate],
        tables: &Tables,
        leftovers: &Leftovers,
    ) -> Self {
        let mut audit = Self {
            left_over: leftovers.unapplied + leftovers.unrouted + leftovers.dead,
            ..Self::default()
        };
        let mut newest: BTreeMap<u64, u64> = BTreeMap::new();
        for (number, fate) in (0..).zip(fates) {
            let outcome = tables.outcomes.get(&number).map(String::as_str);
            let applied = matches!(outcome, Some("created" | "updated" | "stale"));
            audit.accepted += u64::from(*fate == Fate::Accepted);
            audit.found += u64::from(applied);
            audit.lost += u64::from(*fate == Fate::Accepted && !applied);
            let unexplained = outcome.is_some() && (!applied || *fate == Fate::Unsent);
            audit.unexplained += u64::from(unexplained);
            if applied {
                newest.insert(stock.user(number), number);
            }
        }
        let sent = fates.len() as u64;
        let beyond = tables.outcomes.keys().filter(|number| **number >= sent);
        audit.unexplained += beyond.count() as u64;
        let wrong = newest.iter().filter(|(user, number)| {
            let row = tables.rows.get(&super::stock::clerk_id(**user));
            row != Some(*number)
        });
        audit.wrong_rows = wrong.count() as u64;
        audit.wrong_rows += (tables.rows.len() as u64).saturating_sub(newest.len() as u64);
        audit
    }

    /// All is there, and right.
    pub(super) fn is_clean(&self) -> bool {
        self.lost + self.unexplained + self.wrong_rows + self.left_over == 0
    }

    /// # Errors
    /// It is not clean: then no figure of the run is worth anything.
    pub(super) fn must_be_clean(&self, run: &str) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.is_clean(),
            "{run}: {} of {} accepted events LOST, {} events unexplained, {} rows wrong, {} left \
             in the queues; its figures are not shown",
            self.lost,
            self.accepted,
            self.unexplained,
            self.wrong_rows,
            self.left_over
        );
        Ok(())
    }
}

/// What the tables say of a run.
#[derive(Default)]
pub(super) struct Tables {
    /// Outcomes in the ledger, by number of the event.
    pub(super) outcomes: HashMap<u64, String>,
    /// Which event wrote a user's row, by Clerk id; users that the run did not write are left out.
    pub(super) rows: HashMap<String, u64>,
}

impl Tables {
    pub(super) async fn read(db: &DatabaseConnection, stock: &Stock) -> anyhow::Result<Self> {
        let ids = stock.event_ids();
        let mut ledger = Query::select();
        ledger
            .columns([
                processed_events::Column::EventId,
                processed_events::Column::Outcome,
            ])
            .from(processed_events::table(db.get_database_backend()))
            .and_where(Expr::col(processed_events::Column::EventId).gte(ids.start))
            .and_where(Expr::col(processed_events::Column::EventId).lt(ids.end));
        let mut tables = Self::default();
        for row in db.query_all(&ledger).await? {
            let (id, outcome): (String, String) =
                (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
            let number = stock.number(&id).context("an id of another run")?;
            tables.outcomes.insert(number, outcome);
        }
        let times = stock.times();
        let rows: Vec<(String, DateTime)> = users::Entity::find()
            .select_only()
            .columns([users::Column::ClerkId, users::Column::UpdatedAt])
            .filter(users::Column::UpdatedAt.gte(times.start))
            .filter(users::Column::UpdatedAt.lt(times.end))
            .into_tuple()
            .all(db)
            .await?;
        for (clerk_id, updated_at) in rows {
            let number = stock
                .written_by(updated_at)
                .context("a time of another run")?;
            tables.rows.insert(clerk_id, number);
        }
        Ok(tables)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::stock::{Users, clerk_id},
        *,
    };

    /// Four events, two for each of two users, all accepted and applied.
    fn all_well() -> (Stock, Vec<Fate>, Tables) {
        let stock = Stock::unsigned(0, Users::Known(2)).unwrap();
        let tables = Tables {
            outcomes: (0..4)
                .map(|number| (number, "updated".to_owned()))
                .collect(),
            rows: [2, 3]
                .map(|number| (clerk_id(stock.user(number)), number))
                .into(),
        };
        (stock, vec![Fate::Accepted; 4], tables)
    }

    fn audit(stock: &Stock, fates: &[Fate], tables: &Tables) -> Audit {
        Audit::of_tables(stock, fates, tables, &Leftovers::default())
    }

    #[test]
    fn what_is_all_there_is_clean() {
        let (stock, fates, tables) = all_well();
        let audit = audit(&stock, &fates, &tables);
        assert_eq!((audit.accepted, audit.found, audit.lost), (4, 4, 0));
        assert!(audit.is_clean(), "{audit:?}");
    }

    #[test]
    fn a_lost_event_is_told_and_no_figure_is_shown() {
        let (stock, fates, mut tables) = all_well();
        tables.outcomes.remove(&1);
        let lost = audit(&stock, &fates, &tables);
        assert_eq!(lost.lost, 1);
        let error = lost.must_be_clean("round 1").unwrap_err().to_string();
        assert!(error.contains("1 of 4 accepted events LOST"), "{error}");
    }

    #[test]
    fn an_event_that_was_put_aside_counts_as_lost() {
        let (stock, fates, mut tables) = all_well();
        tables.outcomes.insert(1, "dead_lettered".to_owned());
        assert_eq!(audit(&stock, &fates, &tables).lost, 1);
    }

    #[test]
    fn one_lost_is_not_made_up_for_by_one_that_was_not_accepted() {
        let (stock, mut fates, mut tables) = all_well();
        fates[0] = Fate::Unanswered;
        assert!(audit(&stock, &fates, &tables).is_clean());
        tables.outcomes.remove(&1);
        let audit = audit(&stock, &fates, &tables);
        assert_eq!((audit.accepted, audit.found, audit.lost), (3, 3, 1));
    }

    #[test]
    fn a_row_that_an_older_event_wrote_is_wrong() {
        let (stock, fates, mut tables) = all_well();
        tables.rows.insert(clerk_id(stock.user(3)), 1);
        assert_eq!(audit(&stock, &fates, &tables).wrong_rows, 1);
        tables.rows.remove(&clerk_id(stock.user(3)));
        assert_eq!(audit(&stock, &fates, &tables).wrong_rows, 1);
    }

    #[test]
    fn a_queue_that_holds_fewer_than_were_accepted_has_lost_some() {
        let holding = |unapplied| Leftovers {
            unapplied,
            ..Leftovers::default()
        };
        assert_eq!(Audit::of_queue(10, 0, &holding(9)).lost, 1);
        assert!(Audit::of_queue(10, 0, &holding(10)).is_clean());
        assert!(!Audit::of_queue(10, 0, &holding(11)).is_clean());
        // Refused in the client's eyes, and kept.
        assert!(Audit::of_queue(10, 1, &holding(11)).is_clean());
    }

    #[test]
    fn what_is_left_in_a_queue_is_not_clean() {
        let (stock, fates, tables) = all_well();
        let leftovers = Leftovers {
            dead: 1,
            ..Leftovers::default()
        };
        assert!(!Audit::of_tables(&stock, &fates, &tables, &leftovers).is_clean());
    }
}
