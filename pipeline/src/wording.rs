//! Times, sizes and foreign text, as a person reads them.

use std::time::{Duration, UNIX_EPOCH};

use crate::event::Millis;

/// The last millisecond that RFC 3339 can write: the end of the year 9999.
const LAST: i64 = 253_402_300_799_999;

/// `2026-08-20T12:00:00.123Z`; `None` for what others have written that is no time of ours.
#[must_use]
pub fn rfc3339(at: Millis) -> Option<String> {
    let millis = u64::try_from(at.0).ok().filter(|_| at.0 <= LAST)?;
    let time = UNIX_EPOCH + Duration::from_millis(millis);
    Some(humantime::format_rfc3339_millis(time).to_string())
}

/// How long ago, in its greatest unit and at most 4 characters: `42s`, `7m`, `3h`, `12d`, `3y`;
/// `?` when nobody knows.
#[must_use]
pub fn age(at: Option<Millis>, now: Millis) -> String {
    let Some(at) = at.filter(|at| rfc3339(*at).is_some()) else {
        return "?".to_owned();
    };
    let seconds = now.0.saturating_sub(at.0).max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        86_400..86_400_000 => format!("{}d", seconds / 86_400),
        _ => format!("{}y", seconds / (365 * 86_400)),
    }
}

/// `1 letter`, `12,345 letters`.
#[must_use]
pub fn letters(count: u64) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} letter{plural}", number(count))
}

/// `12,345`.
#[must_use]
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A text that others may have written, on one line and without a terminal's commands.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                '?'
            } else {
                character
            }
        })
        .collect()
}

/// Cut to `width` characters, the last of them an ellipsis.
#[must_use]
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// A parser for a time as a person writes it: `30s`, `1h 30m`, `7days`.
///
/// # Errors
/// Not a time, with what to write instead.
pub fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| {
        format!("{error}; write numbers with their units, such as 30s, 12h or 7days")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_unit() {
        let now = Millis(1_800_000_000_000);
        let ago = |seconds: i64| age(Some(Millis(now.0 - seconds * 1000)), now);
        let ages = [
            0, 59, 60, 3599, 3600, 86_399, 86_400, 86_399_999, 86_400_000,
        ]
        .map(ago);
        let expected = ["0s", "59s", "1m", "59m", "1h", "23h", "1d", "999d", "2y"];
        assert_eq!(ages, expected);
        assert_eq!(ago(-5), "0s", "a clock ahead of ours");
        assert_eq!(age(None, now), "?");
    }

    #[test]
    fn what_is_no_time_is_not_written_as_one() {
        assert_eq!(rfc3339(Millis(0)).unwrap(), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(Millis(LAST)).unwrap(), "9999-12-31T23:59:59.999Z");
        for odd in [-1, LAST + 1, i64::MIN, i64::MAX] {
            assert_eq!(rfc3339(Millis(odd)), None);
            assert_eq!(age(Some(Millis(odd)), Millis(0)), "?");
        }
    }

    #[test]
    fn numbers_are_grouped() {
        let grouped = [0, 999, 1000, 1_234_567].map(number);
        assert_eq!(grouped, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_terminals_commands_are_not_passed_on() {
        assert_eq!(plain("a\u{1b}[31m\nb\u{e9}"), "a?[31m?b\u{e9}");
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("abcd", 4), "abcd");
    }
}
