//! Numbers, times and lengths of time, as a person reads them.

use std::time::Duration;

use clerk_sync_pipeline::wording::number;

use crate::reader::Time;

/// `12,345`.
pub(crate) fn count(count: u64) -> String {
    number(count)
}

/// A share: `99.98 %`; never rounded up to the whole.
pub(crate) fn percent(share: f64) -> String {
    let percent = (share * 10_000.0).floor() / 100.0;
    if share >= 1.0 {
        "100 %".to_owned()
    } else if !(1.0..99.9).contains(&percent) {
        format!("{percent:.2} %")
    } else {
        format!("{percent:.1} %")
    }
}

/// A rate per second.
pub(crate) fn rate(rate: f64) -> String {
    if rate >= 100.0 {
        format!("{rate:.0}")
    } else if rate >= 10.0 || rate == 0.0 {
        format!("{rate:.1}")
    } else {
        format!("{rate:.2}")
    }
}

/// Seconds, in the unit that fits: `8 ms`, `1.2 s`, `5 min`, `3 h`, `2 d`.
pub(crate) fn span(seconds: f64) -> String {
    match seconds {
        ..0.000_95 => "under 1 ms".to_owned(),
        ..0.009_5 => format!("{:.1} ms", seconds * 1000.0),
        ..0.999_5 => format!("{:.0} ms", seconds * 1000.0),
        ..9.95 => format!("{seconds:.1} s"),
        ..99.5 => format!("{seconds:.0} s"),
        ..5_970.0 => format!("{:.0} min", seconds / 60.0),
        ..172_800.0 => format!("{:.0} h", seconds / 3600.0),
        _ => format!("{:.0} d", seconds / 86_400.0),
    }
}

/// The time between two moments; a clock that ran ahead makes it no time.
pub(crate) fn between(from: Time, to: Time) -> String {
    let between: Duration = (to - from).to_std().unwrap_or_default();
    span(between.as_secs_f64())
}

/// `18:02:11`, with the day where it is another one.
pub(crate) fn moment(at: Time, now: Time) -> String {
    if at.date_naive() == now.date_naive() {
        at.format("%H:%M:%S").to_string()
    } else {
        at.format("%-d %b %Y, %H:%M:%S").to_string()
    }
}

/// `28 Nov 2026, 18:02:11.123 UTC`.
pub(crate) fn exact(at: Time) -> String {
    at.format("%-d %b %Y, %H:%M:%S%.3f UTC").to_string()
}

/// As machines read it.
pub(crate) fn iso(at: Time) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_the_unit_that_fits() {
        let spans = [
            0.000_1, 0.002_5, 0.031, 0.9994, 1.25, 42.0, 300.0, 10_800.0, 400_000.0,
        ];
        let spans = spans.map(span);
        let expected = [
            "under 1 ms",
            "2.5 ms",
            "31 ms",
            "999 ms",
            "1.2 s",
            "42 s",
            "5 min",
            "3 h",
            "5 d",
        ];
        assert_eq!(spans, expected);
    }

    #[test]
    fn nearly_all_is_not_all() {
        let shares = [1.0, 0.999_99, 0.999_2, 0.985_55, 0.5, 0.004, 0.0].map(percent);
        let expected = [
            "100 %", "99.99 %", "99.92 %", "98.5 %", "50.0 %", "0.40 %", "0.00 %",
        ];
        assert_eq!(shares, expected);
    }
}
