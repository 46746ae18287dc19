//! Clocks: how far two are apart at least.

use chrono::{DateTime, TimeDelta, Utc};

use super::report::Line;

/// As far as clocks may be apart: what session tokens are allowed by default.
const SMALL_S: i64 = 5;
/// From here on every webhook is refused: `svix-timestamp` is out of tolerance.
const FATAL_S: i64 = 300;

/// Moments between which a clock was read.
pub(super) type Span = (DateTime<Utc>, DateTime<Utc>);

/// How far ours is ahead of theirs at least; negative when it is behind. Nothing as long as the two
/// may be the same.
fn ahead(ours: Span, theirs: Span) -> TimeDelta {
    if ours.0 > theirs.1 {
        ours.0 - theirs.1
    } else if ours.1 < theirs.0 {
        ours.1 - theirs.0
    } else {
        TimeDelta::zero()
    }
}

fn apart(ours: Span, theirs: Span, whose: &str) -> (i64, String) {
    let ahead = ahead(ours, theirs).num_seconds();
    let text = match ahead {
        0 => format!("this machine's clock and {whose} agree"),
        1.. => format!("this machine's clock is {ahead} s ahead of {whose}"),
        _ => format!("this machine's clock is {} s behind {whose}", -ahead),
    };
    (ahead.abs(), text)
}

/// Against Clerk's, by which it signs.
pub(super) fn against_clerk(ours: Span, theirs: Span) -> Line {
    let (seconds, text) = apart(ours, theirs, "Clerk's");
    if seconds <= SMALL_S {
        Line::ok("clock", text)
    } else if seconds <= FATAL_S {
        Line::warning(
            "clock",
            text,
            "let NTP set the clock: session tokens are refused when it is more than \
             CLERK_CLOCK_SKEW (5s) off, webhooks from 300 s on",
        )
    } else {
        Line::problem(
            "clock",
            text,
            "let NTP set the clock: every webhook is refused with 401 \
             (timestamp_out_of_tolerance) while it is more than 300 s off",
        )
    }
}

/// Against the database's, which stamps what the application writes.
pub(super) fn against_database(ours: Span, theirs: DateTime<Utc>) -> Line {
    let (seconds, text) = apart(ours, (theirs, theirs), "the database's");
    match seconds {
        ..=SMALL_S => Line::ok("clock", text),
        _ => Line::warning(
            "clock",
            text,
            "let NTP set both clocks: times in the ledger and in the logs do not compare, and \
             whichever is wrong may be wrong for Clerk too",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Status;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(1_000_000 + seconds)
    }

    #[test]
    fn what_may_be_the_same_moment_is_no_difference() {
        // Clerk says the second, not when in it.
        let clerk = (at(0), at(1));
        for ours in [(at(-3), at(0)), (at(0), at(1)), (at(1), at(9))] {
            assert_eq!(ahead(ours, clerk), TimeDelta::zero());
        }
        assert_eq!(ahead((at(11), at(12)), clerk).num_seconds(), 10);
        assert_eq!(ahead((at(-12), at(-10)), clerk).num_seconds(), -10);
    }

    #[test]
    fn a_clock_is_a_warning_from_5_s_and_a_problem_from_300_s_on() {
        let judged = |seconds| against_clerk((at(seconds), at(seconds)), (at(0), at(0)));
        for (seconds, status) in [
            (5, Status::Ok),
            (-5, Status::Ok),
            (6, Status::Warning),
            (-300, Status::Warning),
            (301, Status::Problem),
            (-301, Status::Problem),
        ] {
            assert_eq!(judged(seconds).status, status, "{seconds}");
        }
        assert!(judged(-301).text.contains("301 s behind Clerk's"));
        let database = against_database((at(400), at(401)), at(0));
        assert_eq!(database.status, Status::Warning);
    }
}
