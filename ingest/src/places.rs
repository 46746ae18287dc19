//! Places for requests in flight: their number and their bytes bound the memory that bodies take.
//!
//! When all places are taken, or all bytes, the request that has waited longest for the rest of its
//! body gives its own to a new one. So slow bodies, however many, keep nobody out who sends a whole
//! request at once; and a request whose body is there is never sent away again.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicIsize, AtomicUsize, Ordering},
    },
};

use futures_util::FutureExt as _;
use tokio::{sync::oneshot, task::yield_now};

/// The places of all connections together.
#[derive(Debug)]
pub(crate) struct Places {
    /// How many there are.
    count: usize,
    /// A count, not a semaphore, whose release takes a lock that all requests would share.
    free: AtomicUsize,
    /// Bytes for bodies that come in several pieces; less than none until those sent away are gone.
    free_bytes: AtomicIsize,
    /// Only those whose body did not come with their head are in here.
    readers: Mutex<Readers>,
}

/// Requests that wait for the rest of their bodies, by the order in which they began to.
#[derive(Debug, Default)]
struct Readers {
    began: u64,
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
}

/// A place that is held. Dropping it gives it back, unless it was given to another.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    places: &'a Places,
    held: bool,
}

/// The place has gone to another request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GaveWay;

/// The bytes of a body's pieces. Dropping it gives them back.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    places: &'a Places,
    bytes: isize,
}

impl Places {
    /// `count` bodies at a time, of `bytes` together.
    pub(crate) fn new(count: usize, bytes: usize) -> Self {
        Self {
            count,
            free: AtomicUsize::new(count),
            free_bytes: AtomicIsize::new(isize::try_from(bytes).unwrap_or(isize::MAX)),
            readers: Mutex::default(),
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.count.saturating_sub(self.free.load(Ordering::Relaxed))
    }

    /// A free place, or else that of the longest-waiting reader. `None` when all bodies are there
    /// and wait for the queue.
    pub(crate) fn take(&self) -> Option<Place<'_>> {
        let one_less = |free: usize| free.checked_sub(1);
        let is_free = self
            .free
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .is_ok();
        // Made only when it is one: dropping it gives it back.
        (is_free || self.send_one_away()).then(|| Place {
            places: self,
            held: true,
        })
    }

    /// What a body holds that has not begun to come.
    pub(crate) fn hold_nothing(&self) -> Held<'_> {
        Held {
            places: self,
            bytes: 0,
        }
    }

    fn send_one_away(&self) -> bool {
        let longest = self.readers().waiting.pop_first();
        // If it is just now leaving by itself, it finds that its place is not its own any more.
        longest.map(|(_, reader)| reader.send(())).is_some()
    }

    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held<'_> {
    /// Holds a further piece. When there is no room for it, the longest-waiting reader is sent away,
    /// and has time to go before a piece more is read.
    ///
    /// # Errors
    /// Nobody waits who could give way.
    pub(crate) async fn add(&mut self, piece: &[u8]) -> Result<(), GaveWay> {
        // A piece is a slice: it cannot be longer than this.
        let bytes = piece.len().cast_signed();
        self.bytes += bytes;
        let free = self.places.free_bytes.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        if free < 0 {
            if !self.places.send_one_away() {
                return Err(GaveWay);
            }
            yield_now().await;
        }
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.places
            .free_bytes
            .fetch_add(self.bytes, Ordering::Relaxed);
    }
}

impl Place<'_> {
    /// Reads a body, and gives way while it is not there.
    ///
    /// # Errors
    /// Another request has the place now.
    pub(crate) async fn while_reading<F: Future>(&mut self, read: F) -> Result<F::Output, GaveWay> {
        let mut read = pin!(read);
        // What came with the head is read at once, and takes no lock.
        if let Some(body) = read.as_mut().now_or_never() {
            return Ok(body);
        }
        let (reader, sent_away) = oneshot::channel();
        let _waiting = Waiting::begin(self, reader);
        tokio::select! {
            // A body that is there in the end counts, whoever has the place now.
            biased;
            body = read => Ok(body),
            _ = sent_away => Err(GaveWay),
        }
    }
}

/// A reader among the others, for as long as this lives.
struct Waiting<'w, 'p> {
    place: &'w mut Place<'p>,
    number: u64,
}

impl<'w, 'p> Waiting<'w, 'p> {
    fn begin(place: &'w mut Place<'p>, reader: oneshot::Sender<()>) -> Self {
        let mut readers = place.places.readers();
        readers.began += 1;
        let number = readers.began;
        readers.waiting.insert(number, reader);
        drop(readers);
        Self { place, number }
    }
}

impl Drop for Waiting<'_, '_> {
    fn drop(&mut self) {
        let among_them = self.place.places.readers().waiting.remove(&self.number);
        self.place.held = among_them.is_some();
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.held {
            self.places.free.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn free(places: &Places) -> usize {
        places.free.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn the_longest_waiting_reader_gives_way_and_only_a_reader_does() {
        let places = Places::new(2, 100);
        let mut first = places.take().unwrap();
        let mut second = places.take().unwrap();
        for _ in 0..3 {
            assert!(places.take().is_none(), "neither reads");
        }
        {
            let mut longest = pin!(first.while_reading(pending::<()>()));
            let mut other = pin!(second.while_reading(pending::<()>()));
            assert!(longest.as_mut().now_or_never().is_none());
            assert!(other.as_mut().now_or_never().is_none());
            let third = places.take().expect("the place of the longest");
            assert_eq!(longest.await, Err(GaveWay));
            assert!(other.as_mut().now_or_never().is_none(), "it has its place");
            drop(third);
        }
        drop((first, second));
        assert_eq!(free(&places), 2, "each place was given back once");
    }

    #[tokio::test]
    async fn a_body_that_is_there_never_gives_way() {
        let places = Places::new(1, 100);
        let mut at_once = places.take().unwrap();
        assert_eq!(at_once.while_reading(ready(1)).await, Ok(1));
        assert!(places.take().is_none(), "it waits for the queue");
        drop(at_once);

        // One that is there in the moment in which it was to give way.
        let mut late = places.take().unwrap();
        let (whole, body) = oneshot::channel();
        let mut read = Box::pin(late.while_reading(body));
        assert!(read.as_mut().now_or_never().is_none());
        let newcomer = places.take().unwrap();
        whole.send(2).unwrap();
        assert_eq!(read.await, Ok(Ok(2)));
        drop(late);
        assert_eq!(free(&places), 0, "the place is the newcomer's");
        drop(newcomer);
        assert_eq!(free(&places), 1);
    }

    #[tokio::test]
    async fn where_bytes_are_few_the_longest_waiting_reader_gives_way() {
        let places = Places::new(3, 100);
        let (mut first, mut second) = (places.take().unwrap(), places.take().unwrap());
        let (mut of_first, mut of_second) = (places.hold_nothing(), places.hold_nothing());
        assert_eq!(of_first.add(&[0; 60]).await, Ok(()));
        {
            let mut longest = pin!(first.while_reading(pending::<()>()));
            let mut other = pin!(second.while_reading(pending::<()>()));
            assert!(longest.as_mut().now_or_never().is_none());
            assert!(other.as_mut().now_or_never().is_none());
            assert_eq!(of_second.add(&[0; 40]).await, Ok(()));
            assert!(longest.as_mut().now_or_never().is_none(), "there is room");
            assert_eq!(of_second.add(&[0; 1]).await, Ok(()));
            assert_eq!(longest.now_or_never(), Some(Err(GaveWay)));
            assert!(other.as_mut().now_or_never().is_none());
        }
        assert_eq!(of_second.add(&[0; 1]).await, Err(GaveWay), "nobody is left");
        drop((of_first, of_second));
        assert_eq!(places.free_bytes.load(Ordering::Relaxed), 100);
    }

    #[tokio::test]
    async fn a_reader_that_leaves_gives_its_place_back() {
        let places = Places::new(1, 100);
        let mut place = places.take().unwrap();
        let mut read = Box::pin(place.while_reading(pending::<()>()));
        assert!(read.as_mut().now_or_never().is_none());
        drop(read);
        assert!(places.readers().waiting.is_empty());
        drop(place);
        assert_eq!(free(&places), 1);
    }
}
