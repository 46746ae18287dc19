//! Questions whether the database would run our statements, none of which is run.
//!
//! PostgreSQL plans each: with that it has found every table and column, and checked the role's
//! right to each. They are the statements that run, about a user that nobody has, so that what is
//! asked for cannot differ from what is needed. SQLite knows no rights, and the plan of a statement
//! that it has seen before is not made anew: there the tables are looked at.

use clerk_sync_entity::{bookmarks, credits, processed_events, user_versions, users};
use sea_orm::{
    DbBackend, StatementBuilder,
    prelude::{DateTime, DateTimeUtc},
    sea_query::{Expr, Query},
};

const NOBODY: &str = "clerk-sync";

/// Whether every statement of a batch would run.
pub(crate) fn of_a_batch(backend: DbBackend, grants_credits: bool) -> String {
    if backend != DbBackend::Postgres {
        return look(backend, grants_credits);
    }
    without_waiting(&batch(backend, grants_credits).join("; "))
}

/// Each statement that is run with a worker's rights, as a question of its own.
pub(crate) fn each(backend: DbBackend, grants_credits: bool, before: DateTimeUtc) -> Vec<String> {
    if backend != DbBackend::Postgres {
        return vec![look(backend, grants_credits), of_bookmarks(backend)];
    }
    let mut plans = batch(backend, grants_credits);
    plans.push(of(&processed_events::prune(backend, before, 1)));
    plans.extend(of_each_bookmark(backend));
    plans.iter().map(|plan| without_waiting(plan)).collect()
}

fn batch(backend: DbBackend, grants_credits: bool) -> Vec<String> {
    let nobody = user_versions::Row::lock_only(NOBODY);
    let mut plans = vec![
        of(&processed_events::claim(backend, [event()])),
        of(&users::holders(backend, &[NOBODY])),
        of(&user_versions::advance(backend, [nobody])),
        of(&users::delete(backend, &[NOBODY])),
        of(&users::release(backend, &[NOBODY])),
        of(&users::upsert(backend, [user()])),
        of(&processed_events::set_outcomes(
            backend,
            &[(NOBODY, NOBODY)],
        )),
    ];
    if grants_credits {
        plans.push(of(&credits::grant([credit()])));
    }
    plans
}

/// Whether the ledger could be pruned; on SQLite whoever may look may.
pub(crate) fn of_pruning(backend: DbBackend, before: DateTimeUtc) -> String {
    match backend {
        DbBackend::Postgres => without_waiting(&of(&processed_events::prune(backend, before, 1))),
        _ => look(backend, false),
    }
}

/// Whether what is remembered of the whole could be read and written.
pub(crate) fn of_bookmarks(backend: DbBackend) -> String {
    if backend != DbBackend::Postgres {
        let mut look = Query::select();
        look.expr(Expr::val(1))
            .from(bookmarks::table(backend))
            .limit(0);
        return backend.build(&look).to_string();
    }
    without_waiting(&of_each_bookmark(backend).join("; "))
}

fn of_each_bookmark(backend: DbBackend) -> [String; 4] {
    let now = DateTimeUtc::UNIX_EPOCH;
    [
        of(&bookmarks::find(backend, NOBODY)),
        of(&bookmarks::put(backend, NOBODY, NOBODY, now)),
        of(&bookmarks::put_first(backend, NOBODY, NOBODY, now)),
        of(&bookmarks::remove(backend, NOBODY)),
    ]
}

/// A statement is planned under the locks that it would run under, and who asks wants to know soon.
/// Statements that are sent together are one transaction, for which the limit holds.
fn without_waiting(plans: &str) -> String {
    format!("SET LOCAL lock_timeout = '1s'; {plans}")
}

fn of(statement: &impl StatementBuilder) -> String {
    format!("EXPLAIN {}", DbBackend::Postgres.build(statement))
}

/// Whether the tables are there, and can be read.
pub(crate) fn look(backend: DbBackend, grants_credits: bool) -> String {
    let mut look = Query::select();
    look.expr(Expr::val(1))
        .from(users::Entity)
        .from(user_versions::table(backend))
        .from(processed_events::table(backend))
        .limit(0);
    if grants_credits {
        look.from(credits::Entity);
    }
    backend.build(&look).to_string()
}

fn event() -> processed_events::Row {
    processed_events::Row {
        event_id: NOBODY.to_owned(),
        event_type: NOBODY.to_owned(),
        subject: None,
        occurred_at: None,
        received_at: DateTimeUtc::UNIX_EPOCH,
        processed_at: DateTimeUtc::UNIX_EPOCH,
        outcome: NOBODY.to_owned(),
    }
}

fn user() -> users::Model {
    users::Model {
        id: NOBODY.to_owned(),
        clerk_id: NOBODY.to_owned(),
        email: NOBODY.to_owned(),
        name: None,
        image_url: None,
        created_at: DateTime::default(),
        updated_at: DateTime::default(),
    }
}

fn credit() -> credits::Model {
    credits::Model {
        id: NOBODY.to_owned(),
        user_id: NOBODY.to_owned(),
        amount: 1,
        created_at: DateTime::default(),
        updated_at: DateTime::default(),
    }
}
