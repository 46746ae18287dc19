//! The stages of a shutdown, as connections and requests see them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio_util::sync::CancellationToken;

/// A shutdown in two steps. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drain(Arc<Stages>);

#[derive(Debug, Default)]
struct Stages {
    /// Flags, because every request asks and asking a token takes a lock.
    begun: AtomicBool,
    over: AtomicBool,
    lingered: CancellationToken,
}

impl Drain {
    /// No more connections: what arrives on the open ones is answered, and each answer says that
    /// it is the last.
    pub(crate) fn begin(&self) {
        self.0.begun.store(true, Ordering::Relaxed);
    }

    /// From now on connections close as soon as nothing is going on, and new requests are refused.
    pub(crate) fn end(&self) {
        self.0.over.store(true, Ordering::Relaxed);
        self.0.lingered.cancel();
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.0.begun.load(Ordering::Relaxed)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.over.load(Ordering::Relaxed)
    }

    /// Resolves at [`Drain::end`].
    pub(crate) async fn lingered(&self) {
        self.0.lingered.cancelled().await;
    }
}
