//! What events cost, and whom: the processes under test, the broker, the database.

use std::{
    thread,
    time::{Duration, Instant},
};

use clerk_sync_pipeline::secret::ServerUrl;

use super::usage;

/// Whose CPU time is read.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    /// The processes under test.
    pub(super) own: Vec<u32>,
    pub(super) broker: Option<u32>,
    pub(super) database: Option<u32>,
}

/// CPU times at a moment; nothing where nothing is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) at: Instant,
    own: Option<Duration>,
    broker: Option<Duration>,
    database: Option<Duration>,
    /// This process, the load generator.
    generator: Option<Duration>,
    machine: Option<Duration>,
}

/// CPU times between two moments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    pub(super) elapsed: Duration,
    pub(super) own: Option<Duration>,
    pub(super) broker: Option<Duration>,
    pub(super) database: Option<Duration>,
    /// Of the load generator, unless it is itself what is measured.
    pub(super) generator: Option<Duration>,
    /// What share of the machine everybody else had.
    pub(super) elsewhere: Option<f64>,
}

impl Meter {
    pub(super) fn read(&self) -> Reading {
        let this = std::process::id();
        Reading {
            generator: (!self.own.contains(&this))
                .then(|| usage::cpu(&[this]))
                .flatten(),
            machine: usage::cpu_of_machine(),
            at: Instant::now(),
            own: usage::cpu(&self.own),
            broker: self.broker.and_then(usage::cpu_of_tree),
            database: self.database.and_then(usage::cpu_of_tree),
        }
    }

    /// Highest resident memory so far of the processes under test, together.
    pub(super) fn peak_memory(&self) -> Option<u64> {
        self.own.iter().map(|pid| usage::peak_memory(*pid)).sum()
    }
}

impl Reading {
    /// What was spent from here on, until now.
    pub(super) fn until(&self, later: &Self) -> Spent {
        let between = |from: Option<Duration>, to: Option<Duration>| to?.checked_sub(from?);
        let mut spent = Spent {
            elapsed: later.at - self.at,
            own: between(self.own, later.own),
            broker: between(self.broker, later.broker),
            database: between(self.database, later.database),
            generator: between(self.generator, later.generator),
            elsewhere: None,
        };
        spent.elsewhere = between(self.machine, later.machine).map(|busy| spent.elsewhere(busy));
        spent
    }
}

impl Spent {
    /// The share of the machine that went to none of ours. Servers of which nothing is known count
    /// as others.
    fn elsewhere(&self, busy: Duration) -> f64 {
        let ours = [self.own, self.broker, self.database, self.generator];
        let ours: Duration = ours.into_iter().flatten().sum();
        let cores = thread::available_parallelism().map_or(1, usize::from);
        #[expect(clippy::cast_precision_loss, reason = "a number of cores")]
        let whole = self.elapsed.as_secs_f64() * cores as f64;
        busy.saturating_sub(ours).as_secs_f64() / whole
    }
}

/// The process of a server, if it is on this machine and there is no doubt which it is: the one
/// that listens on the URL's port, or the only one of its name. A name that is not expected is a
/// proxy's, in front of a container.
pub(super) fn server_process(url: &ServerUrl, default_port: u16, name: &str) -> Option<u32> {
    let url = url.expose();
    let host = url.host_str()?.trim_matches(['[', ']']);
    if !matches!(host, "localhost" | "127.0.0.1" | "::1") {
        return None;
    }
    match usage::listener(url.port().unwrap_or(default_port)) {
        Some(pid) => (usage::name(pid).as_deref() == Some(name)).then_some(pid),
        None => match usage::roots_named(name).as_slice() {
            [only] => Some(*only),
            _ => None,
        },
    }
}
