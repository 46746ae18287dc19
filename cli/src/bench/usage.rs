//! What processes cost, as the operating system counts it: CPU time and resident memory.
//!
//! Read from `/proc`. Where there is none, nothing is known, and nothing is said.

use std::{collections::HashMap, fs, time::Duration};

use serde::Serialize;

/// A line of `/proc/PID/stat`.
struct Stat {
    name: String,
    parent: u32,
    /// Of itself.
    own: Duration,
    /// Of children that have ended, too.
    with_children: Duration,
}

/// CPU time of processes without those that they have started.
pub(super) fn cpu(pids: &[u32]) -> Option<Duration> {
    pids.iter().map(|pid| Some(stat(*pid)?.own)).sum()
}

/// CPU time of a process and of all that it has started, ended ones included.
pub(super) fn cpu_of_tree(root: u32) -> Option<Duration> {
    let all = all();
    let mut total = all.get(&root)?.with_children;
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for (pid, stat) in all.iter().filter(|(_, stat)| stat.parent == parent) {
            total += stat.with_children;
            parents.push(*pid);
        }
    }
    Some(total)
}

/// Highest resident memory of a process in its life, in bytes.
pub(super) fn peak_memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// CPU time that the whole machine was busy.
pub(super) fn cpu_of_machine() -> Option<Duration> {
    busy(&fs::read_to_string("/proc/stat").ok()?)
}

/// All but idle, waiting for disks, and what guests use, which is counted twice; from the first line
/// of `/proc/stat`.
fn busy(stat: &str) -> Option<Duration> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Option<Vec<u64>> = line.split_whitespace().map(|n| n.parse().ok()).collect();
    let [user, nice, system, _idle, _waiting, irq, softirq, steal] = fields?[..8] else {
        return None;
    };
    Some(time(user + nice + system + irq + softirq + steal))
}

/// Processes of that name, without those whose parent has it too.
pub(super) fn roots_named(name: &str) -> Vec<u32> {
    let all = all();
    let is_named = |pid: &u32| all.get(pid).is_some_and(|stat| stat.name == name);
    let roots = all
        .iter()
        .filter(|(pid, stat)| is_named(pid) && !is_named(&stat.parent));
    roots.map(|(pid, _)| *pid).collect()
}

/// The name of a process.
pub(super) fn name(pid: u32) -> Option<String> {
    Some(stat(pid)?.name)
}

/// The process that listens on a TCP port of this machine, if we may know.
pub(super) fn listener(port: u16) -> Option<u32> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let holds = |pid: &u32| {
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            return false;
        };
        files.flatten().any(|file| {
            fs::read_link(file.path()).is_ok_and(|target| {
                inodes
                    .iter()
                    .any(|inode| target.as_os_str() == inode.as_str())
            })
        })
    };
    // The oldest: others have it from that one.
    pids().filter(holds).min()
}

/// Inodes of the sockets that listen on a port, in the form of `/proc/net/tcp`.
fn listening(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let wanted = format!(":{port:04X}");
    let listens = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let found = fields.get(1)?.ends_with(&wanted) && *fields.get(3)? == LISTEN;
        found.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
    };
    table.lines().skip(1).filter_map(listens).collect()
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn all() -> HashMap<u32, Stat> {
    pids().filter_map(|pid| Some((pid, stat(pid)?))).collect()
}

fn stat(pid: u32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(line: &str) -> Option<Stat> {
    // The name stands in parentheses, and may hold some itself.
    let (start, rest) = line.rsplit_once(')')?;
    let name = start.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    // Fields 14 to 17 of proc(5); these begin with the third.
    let own = ticks(11)? + ticks(12)?;
    let children = ticks(13)? + ticks(14)?;
    Some(Stat {
        name,
        parent: fields.get(1)?.parse().ok()?,
        own: time(own),
        with_children: time(own + children),
    })
}

fn time(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second().max(1))
}

/// The machine that everything ran on.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    pub(super) cores: usize,
    pub(super) cpu: Option<String>,
    pub(super) system: &'static str,
}

impl Machine {
    pub(super) fn here() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find(|line| line.starts_with("model name"));
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: model
                .and_then(|line| line.split_once(':'))
                .map(|(_, name)| name.trim().to_owned()),
            system: std::env::consts::OS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_name() {
        let line = "42 (a (b) c) S 7 42 42 0 -1 4194560 1 2 3 4 150 50 20 30 20 0 5 0 1 2 3";
        let stat = parse(line).unwrap();
        assert_eq!((stat.name.as_str(), stat.parent), ("a (b) c", 7));
        let tick = 1000 / rustix::param::clock_ticks_per_second();
        assert_eq!(stat.own, Duration::from_millis(200 * tick));
        assert_eq!(stat.with_children, Duration::from_millis(250 * tick));
    }

    #[test]
    fn a_machine_is_busy_unless_it_waits() {
        let tick = 1000 / rustix::param::clock_ticks_per_second();
        let stat = "cpu  1 2 4 1000 1000 8 16 32 500 500\ncpu0 1 2 3 4\n";
        assert_eq!(busy(stat), Some(Duration::from_millis(63 * tick)));
        assert_eq!(busy("intr 1"), None);
    }

    #[test]
    fn who_listens_is_found_by_the_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             \x20  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0\n\
             \x20  1: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 777 1 0\n\
             \x20  2: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 888 1 0\n";
        assert_eq!(listening(table, 8080), ["12345"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_found_and_has_used_something() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let here = std::process::id();
        assert_eq!(listener(socket.local_addr().unwrap().port()), Some(here));
        assert!(peak_memory(here).unwrap() > 1 << 20);
        // In this order, since it goes on using some.
        let own = cpu(&[here]).unwrap();
        assert!(cpu_of_tree(here).unwrap() >= own);
    }
}
