//! What a database error means: the weather, a lost race, or this event's own fault.

use clerk_sync_pipeline::queue::{Failure, Reason};
use sea_orm::{DbErr, RuntimeErr};

/// The database cannot be used now, whatever is asked of it. Not the fault of any event: the same
/// batch is tried again, no attempt is counted.
#[derive(Debug, thiserror::Error)]
#[error("the database is unavailable: {0}")]
pub struct Unavailable(pub String);

/// What is said when the pool had no connection to give: it could not be made, or all are busy.
const NO_CONNECTION: &str = "no connection to the database";

impl Unavailable {
    /// The pool had no connection to give, for the reason that was found.
    pub(crate) fn no_connection(why: &str) -> Self {
        Self(format!("{NO_CONNECTION}: {why}"))
    }

    /// Whether the pool had no connection to give, and did not say why.
    pub(crate) fn is_unexplained(&self) -> bool {
        self.0 == NO_CONNECTION
    }
}

/// Whether an error of the database is the weather: it may go away by itself, whatever was asked.
#[must_use]
pub fn is_unavailable(error: &DbErr) -> bool {
    matches!(
        TransactionError::of(error, Step::Other),
        TransactionError::Unavailable(_)
    )
}

/// Why a transaction failed.
#[derive(Debug)]
pub(crate) enum TransactionError {
    /// The weather.
    Unavailable(Unavailable),
    /// Lost against another transaction: again, at once.
    Contention(Contention),
    /// The data of some event in it. Which one is known when it was alone.
    Refused(Refusal),
    /// The events of these users claim addresses of rows that the sync does not manage.
    EmailTaken(Vec<String>),
}

/// A race that was lost.
#[derive(Debug)]
pub(crate) enum Contention {
    /// Ended by the server in favour of others: a deadlock, a serialization failure, a
    /// cancellation; a SQLite file that somebody else writes to.
    Aborted(String),
    /// A lock that somebody holds was not given in time.
    LockTimeout(String),
    /// An address was claimed by somebody else between two statements; or, when it lasts, by a
    /// row that we cannot see through.
    Email,
}

/// A refusal, and whether time may cure it.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) failure: Failure,
    pub(crate) curable: bool,
}

/// Which kind of statement failed: a foreign key refuses a delete for another reason than an
/// insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Delete,
    Other,
}

/// SQLSTATE of a missing right.
pub(crate) const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// What to do about it.
const GRANT: &str = "run deploy/postgres/roles.sql for the worker's role";

/// The object that a right is missing on, when it is PostgreSQL's own check that says so: then
/// the text holds a kind and a name. Others, a trigger for one, may raise the same code with any
/// text.
fn refused_right(answer: &dyn sqlx::error::DatabaseError) -> String {
    match answer.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
        Some(answer) if answer.routine() == Some("aclcheck_error") => {
            format!(", {}", answer.message())
        }
        _ => String::new(),
    }
}

impl From<DbErr> for TransactionError {
    fn from(error: DbErr) -> Self {
        Self::of(&error, Step::Other)
    }
}

impl TransactionError {
    pub(crate) fn of(error: &DbErr, step: Step) -> Self {
        match error {
            DbErr::Conn(RuntimeErr::SqlxError(source)) => {
                let code = source.as_database_error().and_then(|answer| answer.code());
                match code.as_deref() {
                    Some(INSUFFICIENT_PRIVILEGE) => {
                        Self::Unavailable(Unavailable(format!("{error}: {GRANT}")))
                    }
                    _ => Self::unavailable(error),
                }
            }
            DbErr::ConnectionAcquire(_) => Self::Unavailable(Unavailable(NO_CONNECTION.to_owned())),
            DbErr::Conn(_) => Self::unavailable(error),
            DbErr::Exec(RuntimeErr::SqlxError(source))
            | DbErr::Query(RuntimeErr::SqlxError(source)) => match source.as_database_error() {
                Some(answer) => Self::answered(answer, step),
                // No answer: the connection died under the statement. Whether a commit happened
                // is not known then; the ledger will tell.
                None => Self::unavailable(error),
            },
            _ => Self::Refused(Refusal {
                failure: Failure::new(Reason::DatabaseError, "an answer nobody expected"),
                curable: true,
            }),
        }
    }

    fn unavailable(error: &DbErr) -> Self {
        Self::Unavailable(Unavailable(error.to_string()))
    }

    /// Sorts by SQLSTATE, or by SQLite's extended result code. The database's own text is never
    /// repeated: it can hold values.
    fn answered(answer: &dyn sqlx::error::DatabaseError, step: Step) -> Self {
        let code = answer.code().unwrap_or_default();
        let constraint = answer.constraint();
        let place = constraint
            .map(|name| format!(", constraint {name}"))
            .unwrap_or_default();
        let refused = refused_right(answer);
        let what = format!("database error {code}{place}{refused}");
        if answer
            .try_downcast_ref::<sqlx::sqlite::SqliteError>()
            .is_some()
        {
            Self::sqlite(&code, answer.message(), what, step)
        } else {
            Self::postgres(&code, constraint, what, step)
        }
    }

    fn postgres(code: &str, constraint: Option<&str>, what: String, step: Step) -> Self {
        match code {
            "40001" | "40P01" | "57014" => Self::Contention(Contention::Aborted(what)),
            "55P03" => Self::Contention(Contention::LockTimeout(what)),
            "23505" if constraint == Some("users_email_key") => Self::Contention(Contention::Email),
            "23505" => Self::curable(Reason::UniqueViolation, what),
            "23503" => Self::foreign_key(what, step),
            "23502" => Self::poison(Reason::NotNullViolation, what),
            "23514" => Self::poison(Reason::CheckViolation, what),
            // Missing tables, columns, grants: every event would fail, so none is at fault.
            INSUFFICIENT_PRIVILEGE => Self::Unavailable(Unavailable(format!("{what}: {GRANT}"))),
            // Tables of a schema that the role may not use are as good as not there.
            "42P01" => Self::Unavailable(Unavailable(format!(
                "{what}, a table is missing or in a schema that is closed to the role: run \
                 `clerk-sync migrate up`; if it has nothing to do, {GRANT}"
            ))),
            "42703" | "42883" | "3D000" | "3F000" => {
                Self::Unavailable(Unavailable(format!("{what}: run `clerk-sync migrate up`?")))
            }
            // Names of prepared statements that other clients of a pooler have taken or freed.
            "26000" | "42P05" => Self::Unavailable(Unavailable(format!(
                "{what}: behind PgBouncer? set DATABASE_PREPARED_STATEMENTS=false"
            ))),
            // A plan that a migration has outdated.
            "0A000" => Self::Unavailable(Unavailable(what)),
            _ => match code.get(..2) {
                Some("22" | "54") => Self::poison(Reason::DataRefused, what),
                Some("08" | "25" | "26" | "28" | "42" | "53" | "57" | "58" | "XX") => {
                    Self::Unavailable(Unavailable(what))
                }
                _ => Self::curable(Reason::DatabaseError, what),
            },
        }
    }

    /// <https://sqlite.org/rescode.html>: the low byte is the primary code.
    fn sqlite(code: &str, message: &str, what: String, step: Step) -> Self {
        const UNIQUE: u32 = 2067;
        const FOREIGN_KEY: u32 = 787;
        const TRIGGER: u32 = 1811;
        const NOT_NULL: u32 = 1299;
        const CHECK: u32 = 275;
        let code: u32 = code.parse().unwrap_or_default();
        match (code, code & 0xff) {
            (UNIQUE, _) if message.ends_with("users.email") => Self::Contention(Contention::Email),
            (UNIQUE, _) => Self::curable(Reason::UniqueViolation, what),
            (FOREIGN_KEY | TRIGGER, _) => Self::foreign_key(what, step),
            (NOT_NULL, _) => Self::poison(Reason::NotNullViolation, what),
            (CHECK, _) => Self::poison(Reason::CheckViolation, what),
            // A generic error: a missing table, mostly.
            (_, 1) => {
                Self::Unavailable(Unavailable(format!("{what}: run `clerk-sync migrate up`?")))
            }
            // BUSY and LOCKED: somebody else writes for longer than the busy timeout.
            (_, 5 | 6) => Self::Contention(Contention::Aborted(what)),
            // A constraint of another kind.
            (_, 19) => Self::curable(Reason::DatabaseError, what),
            // TOOBIG, MISMATCH.
            (_, 18 | 20) => Self::poison(Reason::DataRefused, what),
            // PERM, READONLY, IOERR, CORRUPT, FULL, CANTOPEN, NOTADB and the rest.
            _ => Self::Unavailable(Unavailable(what)),
        }
    }

    fn foreign_key(what: String, step: Step) -> Self {
        let reason = match step {
            Step::Delete => Reason::DeleteRestricted,
            Step::Other => Reason::ForeignKeyViolation,
        };
        Self::curable(reason, what)
    }

    fn curable(reason: Reason, what: String) -> Self {
        Self::Refused(Refusal {
            failure: Failure::new(reason, what),
            curable: true,
        })
    }

    fn poison(reason: Reason, what: String) -> Self {
        Self::Refused(Refusal {
            failure: Failure::new(reason, what),
            curable: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn postgres(code: &str) -> TransactionError {
        TransactionError::postgres(code, None, String::new(), Step::Other)
    }

    #[test]
    fn sqlstates_are_sorted_as_the_design_tables_them() {
        for weather in [
            "08006", "42P10", "42804", "0A000", "26000", "25P03", "57P01", "57P03", "53300",
            "53100", "25006", "58030", "42P01", "42703", "42501", "28P01",
        ] {
            assert!(
                matches!(postgres(weather), TransactionError::Unavailable(_)),
                "{weather}"
            );
        }
        for race in ["40001", "40P01", "55P03", "57014"] {
            assert!(
                matches!(postgres(race), TransactionError::Contention(_)),
                "{race}"
            );
        }
        for poison in ["22021", "22P05", "23502", "23514", "54000"] {
            assert!(
                matches!(
                    postgres(poison),
                    TransactionError::Refused(Refusal { curable: false, .. })
                ),
                "{poison}"
            );
        }
        for curable in ["23503", "23505", "P0001"] {
            assert!(
                matches!(
                    postgres(curable),
                    TransactionError::Refused(Refusal { curable: true, .. })
                ),
                "{curable}"
            );
        }
    }

    #[test]
    fn a_foreign_key_that_refuses_a_delete_has_its_own_reason() {
        let refused = TransactionError::postgres("23503", None, String::new(), Step::Delete);
        let TransactionError::Refused(refusal) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(refusal.failure.reason, Reason::DeleteRestricted);
    }
}
