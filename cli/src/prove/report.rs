//! What a person reads: how far a run is, and what came of it.

use std::{
    collections::HashSet,
    fmt,
    time::{Duration, Instant},
};

use clerk_sync_simulator::History;
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    deliver::{Answers, Deliveries},
    faults::Struck,
    site::Site,
};
use crate::scratch::Leftovers;

/// Wrong things shown of each finding.
const SHOWN: usize = 5;
/// Width of what stands before a number or a detail.
const WIDTH: usize = 46;

/// One thing that was compared.
pub(crate) struct Finding {
    what: &'static str,
    wrong: Vec<String>,
    right: String,
}

impl Finding {
    pub(crate) fn new(what: &'static str) -> Self {
        Self {
            what,
            wrong: Vec::new(),
            right: String::new(),
        }
    }

    pub(crate) fn wrong(&mut self, detail: String) {
        self.wrong.push(detail);
    }

    /// What to say if nothing was wrong.
    pub(crate) fn right(mut self, detail: String) -> Self {
        self.right = detail;
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.what;
        if self.wrong.is_empty() {
            return write!(f, "  ok     {what:<WIDTH$} {}", self.right);
        }
        write!(f, "  WRONG  {what:<WIDTH$} {} times", self.wrong.len())?;
        for wrong in self.wrong.iter().take(SHOWN) {
            write!(f, "\n           {wrong}")?;
        }
        if self.wrong.len() > SHOWN {
            write!(f, "\n           and {} more", self.wrong.len() - SHOWN)?;
        }
        Ok(())
    }
}

/// A run from its beginning to its end.
pub(crate) struct Report {
    started: Instant,
    opening: String,
    pub(crate) struck: Struck,
    pub(crate) answers: Answers,
    pub(crate) leftovers: Leftovers,
    pub(crate) findings: Vec<Finding>,
}

impl Report {
    pub(crate) fn begin(
        seed: u64,
        history: &History,
        deliveries: &Deliveries,
        site: &Site,
    ) -> Self {
        let users: HashSet<&str> = history
            .events
            .iter()
            .filter_map(|event| event.clerk_id.as_deref())
            .collect();
        let opening = format!(
            "clerk-sync prove, seed {seed}\n  \
             {} events of {} users, {} of whom were deleted\n  \
             {} deliveries in random order, {} of them again\n  {}\n",
            history.events.len(),
            users.len(),
            history.deleted().len(),
            deliveries.len(),
            deliveries.again,
            site.description(),
        );
        Self {
            started: Instant::now(),
            opening,
            struck: Struck::new(),
            answers: Answers::new(),
            leftovers: Leftovers::default(),
            findings: Vec::new(),
        }
    }

    pub(crate) fn opening(&self) -> &str {
        &self.opening
    }

    pub(crate) fn is_good(&self) -> bool {
        self.findings.iter().all(|finding| finding.wrong.is_empty())
    }

    /// The last lines: proven or not, and how to see it again.
    pub(crate) fn verdict(&self, repeat: &str) -> String {
        let word = if self.is_good() {
            "Proven"
        } else {
            "NOT proven"
        };
        let took = self.started.elapsed().as_secs_f64();
        format!("{word} in {took:.0} s. Again:\n  {repeat}")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.struck.is_empty() {
            writeln!(f, "What broke meanwhile")?;
            for (fault, times) in &self.struck {
                writeln!(f, "  {:<53} {times:>6}", fault.to_string())?;
            }
        }
        writeln!(f, "How requests were answered")?;
        for (answer, times) in &self.answers {
            let meaning = match answer.as_str() {
                "204" => "204, accepted",
                "none" => "no answer, delivered again",
                refused => &format!("{refused}, delivered again"),
            };
            writeln!(f, "  {meaning:<53} {times:>6}")?;
        }
        write!(f, "What was found")?;
        for finding in &self.findings {
            write!(f, "\n{finding}")?;
        }
        Ok(())
    }
}

/// How far the deliveries are.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new(deliveries: usize) -> Self {
        let bar = ProgressBar::new(deliveries as u64);
        let style = "{bar:24} {pos}/{len} {elapsed} {msg}";
        bar.set_style(ProgressStyle::with_template(style).expect("a constant template"));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    pub(crate) fn delivered(&self) {
        self.0.inc(1);
    }

    /// Says what happens at the moment.
    pub(crate) fn say(&self, what: &str) {
        self.0.set_message(what.to_owned());
    }

    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}
