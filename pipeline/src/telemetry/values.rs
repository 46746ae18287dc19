//! The values of every label.

use super::{Label as _, labels};

labels! {
    /// How a webhook request was answered.
    pub enum WebhookOutcome {
        /// 204: verified and durably queued.
        Accepted => "accepted",
        /// 400: one of the three signature headers is missing or blank.
        MissingHeader => "missing_header",
        /// 400: one of them is repeated or not what it should be.
        MalformedHeader => "malformed_header",
        /// 401: no configured secret made this signature.
        SignatureMismatch => "signature_mismatch",
        /// 401: signed more than 300 s ago, or ahead.
        TimestampOutOfTolerance => "timestamp_out_of_tolerance",
        /// 404: another path.
        NotFound => "not_found",
        /// 405: another method.
        MethodNotAllowed => "method_not_allowed",
        /// 408: the head or the body came too slowly.
        RequestTimeout => "request_timeout",
        /// 413: the body is over the limit.
        BodyTooLarge => "body_too_large",
        /// 400: the body broke off or was badly framed.
        MalformedBody => "malformed_body",
        /// 503: the queue did not confirm.
        QueueUnavailable => "queue_unavailable",
        /// 503: too much in flight.
        Overloaded => "overloaded",
        /// 503: the process is shutting down.
        Draining => "draining",
    }
}

labels! {
    /// The event types that have a series of their own.
    pub enum EventKind {
        /// `user.created`
        UserCreated => "user.created",
        /// `user.updated`
        UserUpdated => "user.updated",
        /// `user.deleted`
        UserDeleted => "user.deleted",
        /// `session.created`
        SessionCreated => "session.created",
        /// `session.ended`
        SessionEnded => "session.ended",
        /// `session.removed`
        SessionRemoved => "session.removed",
        /// `session.revoked`
        SessionRevoked => "session.revoked",
        /// `session.pending`
        SessionPending => "session.pending",
        /// A verified body that is not a JSON event.
        Unparsable => "unparsable",
        /// Any other type.
        Other => "other",
    }
}

impl EventKind {
    /// The series of an event's type.
    #[must_use]
    pub fn of(event_type: &str) -> Self {
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.as_str() == event_type)
            .unwrap_or(Self::Other)
    }
}

labels! {
    /// What became of an event: once in the ledger, and counted for every delivery.
    pub enum Outcome {
        /// A row was inserted.
        Created => "created",
        /// A row was brought up to date.
        Updated => "updated",
        /// A user was removed, or remembered as removed.
        Deleted => "deleted",
        /// Something newer was known already.
        Stale => "stale",
        /// This very event was applied before.
        Duplicate => "duplicate",
        /// A type that is not projected.
        Ignored => "ignored",
        /// Moved to a rung of the retry ladder.
        Retried => "retried",
        /// Moved to the dead letters.
        DeadLettered => "dead_lettered",
    }
}

labels! {
    /// What applications ask of the API.
    pub enum ApiEndpoint {
        /// `GET /api/users/me`
        Me => "me",
        /// `POST /api/users/sync`
        Sync => "sync",
        /// Any other path.
        Other => "other",
    }
}

labels! {
    /// How the API answered.
    pub enum ApiOutcome {
        /// 200: the user's row. 204 to a preflight that is allowed.
        Answered => "answered",
        /// 400, 405, 408 or 413: not a request of this API, or too slow.
        BadRequest => "bad_request",
        /// 401: nobody is signed in.
        Unauthenticated => "unauthenticated",
        /// 403: another site sent the browser.
        ForeignOrigin => "foreign_origin",
        /// 404: another path, or Clerk has no such user.
        NotFound => "not_found",
        /// 409 or 422: the row cannot be written.
        Refused => "refused",
        /// 502 or 503: Clerk does not answer, or not as it should.
        ClerkUnavailable => "clerk_unavailable",
        /// 503: the database does not answer.
        DatabaseUnavailable => "database_unavailable",
        /// 503: too much at a time, or stopping.
        Overloaded => "overloaded",
    }
}

labels! {
    /// What Clerk's Backend API answered when a single user was asked for.
    pub enum ClerkFetch {
        /// The user.
        Found => "found",
        /// There is none.
        Gone => "gone",
        /// No answer in time, or 5xx.
        Unavailable => "unavailable",
        /// The instance's limit is used up.
        RateLimited => "rate_limited",
        /// The key is refused, or the answer is not Clerk's.
        Refused => "refused",
    }
}

labels! {
    /// What the worker asks of the database.
    pub enum DbOperation {
        /// A batch in one transaction.
        ApplyBatch => "apply_batch",
        /// A single event in one transaction.
        ApplyOne => "apply_one",
        /// Writing down that events were retried or dead-lettered.
        Record => "record",
        /// Removing old ledger rows.
        Prune => "prune",
        /// Asking whether the database is there.
        Ping => "ping",
    }
}

labels! {
    /// How the database answered.
    pub enum DbResult {
        /// Done, and committed where there was something to commit.
        Ok => "ok",
        /// Lost against another transaction; tried again.
        Contention => "contention",
        /// Not reachable, read-only, full or not set up.
        Unavailable => "unavailable",
        /// An event's data was refused.
        Refused => "refused",
    }
}

labels! {
    /// How a user's row can differ from what Clerk has.
    pub enum DriftKind {
        /// Clerk has the user, and there is no row.
        Missing => "missing",
        /// The row is older than Clerk's user, or somebody else has changed it.
        Stale => "stale",
        /// There is a row, and Clerk has no such user.
        Ghost => "ghost",
        /// The row is of a user of Clerk's, and the sync has never written it.
        Unmanaged => "unmanaged",
    }
}

labels! {
    /// What a lane of the worker does.
    pub enum LaneState {
        /// Waits for deliveries.
        Idle => "idle",
        /// Has a batch in hand.
        Busy => "busy",
        /// Waits for the database, and consumes nothing meanwhile.
        Paused => "paused",
    }
}

labels! {
    /// What an open connection of the database's pool does.
    pub enum ConnectionState {
        /// Rests.
        Idle => "idle",
        /// Is somebody's.
        InUse => "in_use",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_type_is_counted_as_other() {
        assert_eq!(EventKind::of("user.created"), EventKind::UserCreated);
        assert_eq!(EventKind::of("userPasskey.enrolled"), EventKind::Other);
    }
}
