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

    /// A place, once there is one.
    pub(crate) async fn place(&self) -> OwnedSemaphorePermit {
        if self.places.available_permits() == 0 {
            self.waiting.store(true, Ordering::Relaxed);
        }
        let place = self.places.clone().acquire_owned().await;
        place.expect("the semaphore is never closed")
    }

    /// The kernel has no connection for us: nobody is waiting.
    ///
    /// A place that was free is no sign of that. Places become free many at a time, and the rest
    /// of those that are to leave would not hear that there are more to come.
    pub(crate) fn nobody_waits(&self) {
        self.waiting.store(false, Ordering::Relaxed);
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn somebody_waits_until_nobody_is_left_outside() {
        let crowd = Crowd::new(2);
        let first = crowd.place().await;
        let second = crowd.place().await;
        assert!(!crowd.is_waiting(), "there was a place for each");
        assert!(crowd.place().now_or_never().is_none());
        assert!(crowd.is_waiting());
        drop((first, second));
        let _third = crowd.place().await;
        assert!(crowd.is_waiting(), "more may stand behind the third");
        crowd.nobody_waits();
        let _fourth = crowd.place().await;
        assert!(!crowd.is_waiting());
    }
}
