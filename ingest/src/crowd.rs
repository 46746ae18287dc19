//! Places for connections, and whether somebody is waiting for one.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Every connection has a place; while all are taken and somebody waits, the others hear of it
/// and have less time to rest ([`Limits::crowded`](crate::activity::Limits::crowded)).
#[derive(Clone, Debug)]
pub(crate) struct Crowd {
    places: Arc<Semaphore>,
    waiting: Arc<AtomicBool>,
}

impl Crowd {
    pub(crate) fn new(places: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            waiting: Arc::default(),
        }
    }

    /// A place, once there is one. One caller at a time.
    pub(crate) async fn place(&self) -> OwnedSemaphorePermit {
        let places = self.places.clone();
        if let Ok(place) = places.clone().try_acquire_owned() {
            self.waiting.store(false, Ordering::Relaxed);
            return place;
        }
        // It stays so for as long as connections come faster than places: until one does not wait.
        self.waiting.store(true, Ordering::Relaxed);
        let place = places.acquire_owned().await;
        place.expect("the semaphore is never closed")
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }
}
