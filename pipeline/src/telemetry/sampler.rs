//! Lines about single events: all of them on a quiet day, a share of them in a flood.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering},
};

use crate::event::{EventId, Millis};

/// Lines of one kind that are written in any second, whatever they are about.
const FREELY: u32 = 100;
/// Beyond those: one event in so many has its lines.
const ONE_IN: u64 = 100;

/// Which lines of one kind are written: the first hundred of each second, and beyond those the ones
/// about one event in a hundred.
///
/// That event is chosen by its id alone. So all lines about it are there, in every process it comes
/// through, each time it comes.
#[derive(Debug, Default)]
pub struct LogSampler {
    second: AtomicI64,
    written: AtomicU32,
    held_back: AtomicU64,
}

impl LogSampler {
    /// Calls `write` with the number of lines held back since the last one, if the line about this
    /// event is to be written.
    pub fn of_event(&self, id: &EventId, now: Millis, write: impl FnOnce(u64)) {
        // Asked first, as it counts.
        let free = self.is_free(now);
        self.decide(free || is_chosen(id), write);
    }

    /// The same for a line about something that has no id.
    pub fn of_anything(&self, now: Millis, write: impl FnOnce(u64)) {
        let free = self.is_free(now);
        self.decide(free, write);
    }

    /// Whether this second's hundred are not used up. At the turn of a second a few more may pass.
    fn is_free(&self, now: Millis) -> bool {
        let second = now.0.div_euclid(1000);
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.written.store(0, Ordering::Relaxed);
        }
        self.written.fetch_add(1, Ordering::Relaxed) < FREELY
    }

    fn decide(&self, is_written: bool, write: impl FnOnce(u64)) {
        if is_written {
            write(self.held_back.swap(0, Ordering::Relaxed));
        } else {
            self.held_back.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The same in every process: the hasher has no key.
fn is_chosen(id: &EventId) -> bool {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish().is_multiple_of(ONE_IN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: usize) -> Vec<EventId> {
        let id = |n| EventId::parse(&format!("msg_{n}")).unwrap();
        (0..count).map(id).collect()
    }

    /// Which of these events have a line, when all come in one second.
    fn written(sampler: &LogSampler, ids: &[EventId], second: i64) -> Vec<EventId> {
        let mut written = Vec::new();
        for id in ids {
            let now = Millis(second * 1000 + 999);
            sampler.of_event(id, now, |_| written.push(id.clone()));
        }
        written
    }

    #[test]
    fn on_a_quiet_day_every_line_is_written() {
        let sampler = LogSampler::default();
        let ids = ids(300);
        for (second, some) in (0..).zip(ids.chunks(100)) {
            assert_eq!(written(&sampler, some, second), some);
        }
    }

    #[test]
    fn in_a_flood_the_same_events_have_their_lines_in_every_process() {
        let (ingest, worker) = (LogSampler::default(), LogSampler::default());
        let ids = ids(20_000);
        let here = written(&ingest, &ids, 7);
        let mut backwards = ids.clone();
        backwards.reverse();
        let there = written(&worker, &backwards, 8);
        let chosen: Vec<_> = ids.into_iter().filter(is_chosen).collect();
        // One in a hundred, give or take.
        assert!((150..250).contains(&chosen.len()), "{}", chosen.len());
        for id in &chosen {
            assert!(here.contains(id) && there.contains(id), "{id}");
        }
        assert!(here.len() <= chosen.len() + 100, "{}", here.len());
    }

    #[test]
    fn what_is_held_back_is_counted() {
        let sampler = LogSampler::default();
        let mut said = Vec::new();
        for second in [1, 1, 2] {
            for _ in 0..150 {
                sampler.of_anything(Millis(second * 1000), |held_back| said.push(held_back));
            }
        }
        // A hundred in the first second, a hundred in the second; 200 were held back between them.
        assert_eq!(said.len(), 200);
        assert_eq!(said.iter().sum::<u64>(), 200);
        assert_eq!(said[100], 200);
    }
}
