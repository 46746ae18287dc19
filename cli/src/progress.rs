//! How far a walk is: a bar in a terminal, a line now and then elsewhere.

use std::{
    fmt,
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};

/// Time between lines, where there is no terminal.
const EVERY: Duration = Duration::from_secs(10);

/// A bar or lines on standard error, or nothing.
pub(crate) struct Progress {
    bar: ProgressBar,
    total: u64,
    /// Where it began, which is not 0 when something goes on that was interrupted.
    first: u64,
    started: Instant,
    /// When the last line was written; `None` where there is a terminal, or nothing to be said.
    said: Option<Instant>,
}

impl Progress {
    pub(crate) fn new(total: u64, first: u64) -> Self {
        let bar = ProgressBar::new(total).with_position(first);
        // 80 columns, for a million users.
        let style = "{bar:24} {human_pos}/{human_len} {rate:>9} {eta:>4} left";
        let style = ProgressStyle::with_template(style).expect("a constant template");
        bar.set_style(
            style.with_key("rate", |state: &ProgressState, to: &mut dyn fmt::Write| {
                let _ = write!(to, "{:.0}/s", state.per_sec());
            }),
        );
        bar.reset_eta();
        let terminal = std::io::stderr().is_terminal();
        Self {
            bar,
            total,
            first,
            started: Instant::now(),
            said: (!terminal).then(Instant::now),
        }
    }

    /// For who reads logs.
    pub(crate) fn silent() -> Self {
        Self {
            bar: ProgressBar::hidden(),
            total: 0,
            first: 0,
            started: Instant::now(),
            said: None,
        }
    }

    pub(crate) fn set(&mut self, done: u64) {
        // Users sign up meanwhile.
        if done > self.total {
            self.total = done;
            self.bar.set_length(done);
        }
        self.bar.set_position(done);
        if self.said.is_some_and(|said| said.elapsed() >= EVERY) {
            self.said = Some(Instant::now());
            self.say(done);
        }
    }

    /// Since it was made.
    pub(crate) fn took(&self) -> Duration {
        self.started.elapsed()
    }

    /// How many a second, of those that were not done before.
    #[expect(clippy::cast_precision_loss, reason = "a number of users")]
    pub(crate) fn rate(&self, done: u64) -> f64 {
        done.saturating_sub(self.first) as f64 / self.took().as_secs_f64()
    }

    fn say(&self, done: u64) {
        let rate = self.rate(done);
        #[expect(clippy::cast_precision_loss, reason = "a number of users")]
        let left = self.total.saturating_sub(done) as f64 / rate.max(f64::MIN_POSITIVE);
        let (done, total) = (HumanCount(done), HumanCount(self.total));
        let _ = writeln!(
            std::io::stderr(),
            "{done} of {total} users, {rate:.0}/s, {left:.0} s left"
        );
    }

    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// `3.7 s`, `12m 5s`.
pub(crate) fn in_words(time: Duration) -> String {
    if time < Duration::from_secs(60) {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
    }
}
