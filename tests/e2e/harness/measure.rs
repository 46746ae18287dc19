//! A process of ours seen from outside, through /proc (so these are on Linux only).

use std::{fs, time::Duration};

use super::process::Process;

/// `_SC_CLK_TCK`, which Linux has fixed for programs.
const TICKS_PER_SECOND: u64 = 100;

impl Process {
    fn read_proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.id())).expect("it runs")
    }

    /// A line of `/proc/<id>/status`: `VmRSS` is what it has in memory, `VmHWM` the most it had.
    pub(crate) fn memory(&self, line: &str) -> u64 {
        let status = self.read_proc("status");
        let value = status.lines().find_map(|text| text.strip_prefix(line));
        let kib = value.and_then(|value| value.split_ascii_whitespace().nth(1));
        kib.unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Begins `VmHWM` anew.
    pub(crate) fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.id()), "5").unwrap();
    }

    /// Open file descriptors.
    pub(crate) fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.id()))
            .expect("it runs")
            .count()
    }

    /// Time on processors, in user and system mode, of all its threads.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = self.read_proc("stat");
        // The name, which may hold anything, stands in parentheses; utime and stime are the 12th
        // and 13th fields after it.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split(' ').collect();
        let ticks: u64 = [fields[12], fields[13]]
            .iter()
            .map(|ticks| ticks.parse::<u64>().unwrap())
            .sum();
        Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
    }
}
