//! Who answers the requests of a port. The port itself, with its limits of time and number, and its
//! way of stopping, is the same for all.

use bytes::Bytes;
use clerk_sync_pipeline::queue::Publish;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::webhook::Webhook;

/// Answers requests; one for all connections.
pub trait Handler: Send + Sync + 'static {
    /// Answers a request whose head was complete at `started`, within some 10 s. When `draining`,
    /// nothing new may be begun.
    fn answer(
        &self,
        request: Request<Incoming>,
        started: Instant,
        draining: bool,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send;

    /// Counts an answer to a head that never became a request.
    fn count_slow_head(&self);
}

/// A handler that shares the port of webhooks.
pub trait Neighbour: Handler {
    /// Whether requests to this path are its own.
    fn serves(&self, path: &str) -> bool;
}

impl<P: Publish> Handler for Webhook<P> {
    async fn answer(
        &self,
        request: Request<Incoming>,
        started: Instant,
        draining: bool,
    ) -> Response<Full<Bytes>> {
        self.answer(request, started, draining).await
    }

    fn count_slow_head(&self) {
        self.count_slow_head();
    }
}

/// Webhooks, and perhaps a neighbour. A path that is nobody's is the webhooks' to refuse, and so is
/// a head that never came to its path.
pub(crate) struct Beside<P, N> {
    pub(crate) webhook: Webhook<P>,
    pub(crate) neighbour: Option<N>,
}

impl<P: Publish, N: Neighbour> Handler for Beside<P, N> {
    async fn answer(
        &self,
        request: Request<Incoming>,
        started: Instant,
        draining: bool,
    ) -> Response<Full<Bytes>> {
        match &self.neighbour {
            Some(neighbour) if neighbour.serves(request.uri().path()) => {
                neighbour.answer(request, started, draining).await
            }
            Some(_) | None => self.webhook.answer(request, started, draining).await,
        }
    }

    fn count_slow_head(&self) {
        self.webhook.count_slow_head();
    }
}
