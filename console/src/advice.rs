//! What outcomes and reasons mean, and what to do: the README's words, where they are needed.

/// What became of an event, in a sentence.
pub(crate) fn outcome(outcome: &str) -> &'static str {
    match outcome {
        "created" => "A row was made for this user.",
        "updated" => "The user's row was brought up to date.",
        "deleted" => "The user was removed, and is remembered as removed.",
        "stale" => "Something newer, or a delete, was known already. Nothing was changed.",
        "ignored" => "Events of this type are not projected. Nothing was changed.",
        "retried" => {
            "It could not be applied, and will be tried again by itself. The reason travels with \
             the message and is in the worker's log."
        }
        "dead_lettered" => "It could not be applied, and waits for a person.",
        _ => "This version does not know this outcome.",
    }
}

/// A short name of a reason, for a heading.
pub(crate) fn name(code: &str) -> &str {
    match code {
        "malformed" => "Not an event that can be read",
        "missing_email" => "A user without an address",
        "wrong_instance" => "From another Clerk instance",
        "invalid_text" => "A text that cannot be stored",
        "text_too_long" => "A text that is too long",
        "invalid_timestamp" => "A time out of range",
        "data_refused" => "Values that the database refuses",
        "not_null_violation" => "A column of yours needs a value",
        "check_violation" => "A check of yours refuses the row",
        "email_taken" => "The address belongs to a row of yours",
        "unique_violation" => "A unique index of yours refuses the row",
        "foreign_key_violation" => "A foreign key of yours refuses the row",
        "delete_restricted" => "A foreign key of yours refuses the delete",
        "row_locked" => "Somebody holds the row",
        "database_error" => "An error that this version does not know",
        "delivery_limit" => "Handed out too often without an answer",
        "unrouted" => "Found no queue",
        _ => code,
    }
}

/// What to do before a replay helps.
pub(crate) fn cure(code: &str) -> &'static str {
    match code {
        "missing_email" => {
            "Give the user an address in Clerk, or set MISSING_EMAIL=placeholder; then replay."
        }
        "email_taken" => {
            "A row that the sync has never written has this address: correct or remove that row, \
             then replay."
        }
        "delete_restricted" => "Remove what refers to the user, then replay.",
        "unique_violation"
        | "foreign_key_violation"
        | "not_null_violation"
        | "check_violation"
        | "data_refused" => {
            "The detail names the database's code, and the constraint where there is one: change \
             the constraint or the row, then replay."
        }
        "wrong_instance" => {
            "Another instance's webhook points here: correct its endpoint, then discard these."
        }
        "malformed" | "invalid_text" | "text_too_long" | "invalid_timestamp" => {
            "The event itself cannot be applied; a replay would end here again. Look at one, then \
             discard."
        }
        "delivery_limit" => {
            "It may be what kills your workers: look at it before you replay it, and replay one \
             alone."
        }
        "unrouted" => "Run `clerk-sync setup`, so that the queues are bound; then replay.",
        _ => "The detail has the database's code. When its cause is gone, replay.",
    }
}
