//! The one promise as a property: whatever happened in a Clerk instance, in whatever order, batches
//! and copies its events arrive, whatever the Backend API answered at any moment of it and whenever
//! that is applied, and wherever a worker dies meanwhile, the tables end as the simulator says.
//!
//! A case is plain data, so one that fails shrinks: to fewer events, nearer to their own order,
//! with fewer copies and crashes. Its seed is then kept in `model.proptest-regressions`, beside
//! this file, and tried first from then on. `PROPTEST_CASES` and `PROPTEST_RNG_SEED` are obeyed.

mod asked;
mod case;
mod tables;
mod workers;

use std::{cell::Cell, env, sync::Arc};

use clerk_sync_projection::SnapshotOutcome;
use clerk_sync_simulator::Addressless;
use proptest::{
    prop_assert, prop_assert_eq,
    strategy::Strategy as _,
    test_runner::{Config, FileFailurePersistence, TestCaseError, TestRunner},
};

use self::{
    case::{Case, Crash},
    tables::Tables,
    workers::Receiver,
};
use crate::database::Db;

/// How often several workers must get a case right for it to count, once they got one wrong.
const TRIES: usize = 10;

#[test]
fn any_delivery_ends_in_the_instances_users_on_sqlite() {
    holds(Server::Sqlite, Addressless::Placeholder, 5_000);
}

#[test]
fn any_delivery_ends_in_the_users_with_an_address_on_sqlite() {
    holds(Server::Sqlite, Addressless::DeadLetter, 5_000);
}

#[test]
fn any_delivery_to_four_workers_ends_in_the_instances_users_on_postgres() {
    holds(Server::Postgres, Addressless::Placeholder, 250);
}

#[test]
fn any_delivery_to_four_workers_ends_in_the_users_with_an_address_on_postgres() {
    holds(Server::Postgres, Addressless::DeadLetter, 250);
}

#[derive(Clone, Copy)]
enum Server {
    /// In memory, with one worker, which dies now and then.
    Sqlite,
    /// With four workers, which die now and then, and whose sessions are terminated.
    Postgres,
}

fn holds(server: Server, addressless: Addressless, cases: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (db, workers, crash) = match server {
        Server::Sqlite => {
            let db = runtime.block_on(Db::in_memory());
            (db, 1, Crash::of_a_worker().boxed())
        }
        Server::Postgres => {
            let db = runtime.block_on(Db::postgres());
            (db, 4, Crash::any().boxed())
        }
    };
    let receiver = Arc::new(Receiver::new(db, addressless, workers));
    // A race is lost now and then only, so what might be a smaller case of it is tried again.
    let shrinking = Cell::new(false);
    let held = TestRunner::new(config(cases)).run(&Case::any(crash), |case| {
        let tries = if shrinking.get() && workers > 1 {
            TRIES
        } else {
            1
        };
        let held = (0..tries).try_for_each(|_| runtime.block_on(holds_for(&receiver, &case)));
        shrinking.set(shrinking.get() || held.is_err());
        held
    });
    if let Err(broken) = held {
        panic!("{broken}");
    }
}

fn config(cases: u32) -> Config {
    let environment = Config::default();
    let regressions = FileFailurePersistence::WithSource("proptest-regressions");
    Config {
        cases: match env::var_os("PROPTEST_CASES") {
            Some(_) => environment.cases,
            None => cases,
        },
        failure_persistence: Some(Box::new(regressions)),
        source_file: Some(file!()),
        // A failure is told after two minutes, however small it could still become.
        max_shrink_iters: u32::MAX - 1,
        max_shrink_time: 120_000,
        ..environment
    }
}

async fn holds_for(receiver: &Arc<Receiver>, case: &Case) -> Result<(), TestCaseError> {
    let Receiver {
        db, addressless, ..
    } = &**receiver;
    db.wipe().await;
    let story = case.story();
    let told = receiver.receive(case, &story).await?;
    tables::check_verdicts(&story, *addressless, &told)?;
    tables::check_ledger(&story, *addressless, &db.ledger().await)?;
    let tables = Tables::of(db).await;
    tables.check(&story, *addressless)?;

    // What somebody does to rows is mended by what Clerk answers.
    let rows = tables.mendable(&story);
    for (whose, damage) in case.damage.iter().filter(|_| !rows.is_empty()) {
        db.execute(&damage.sql(&rows[usize::from(*whose) % rows.len()]))
            .await;
    }
    if !case.damage.is_empty() {
        let outcomes = receiver.mend(&story).await?;
        let failed = |outcome: &_| matches!(outcome, SnapshotOutcome::Failed(_));
        prop_assert!(!outcomes.iter().any(failed), "{outcomes:?}");
        Tables::of(db).await.check(&story, *addressless)?;
    }
    let tables = Tables::of(db).await;

    // None of it rests on the ledger.
    if case.pruned {
        let told = receiver.receive_again_without_a_ledger(&story).await?;
        tables::check_verdicts(&story, *addressless, &told)?;
        tables::check_nothing_is_new(&told)?;
        prop_assert_eq!(&Tables::of(db).await, &tables, "changed by what was old");
    }
    Ok(())
}

fn fails(error: impl std::fmt::Display) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}
