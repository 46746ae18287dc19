//! Who answers the requests of a port. The port itself, with its limits of time and number, and its
//! way of stopping, is the same for all.

use std::error::Error;

use bytes::Bytes;
use clerk_sync_pipeline::queue::Publish;
use http::{Request, Response};
use http_body_util::{Either, Full};
use hyper::body::{Body, Incoming};
use tokio::time::Instant;

use crate::{refusal::Refusal, webhook::Webhook};

/// Answers requests; one for all connections.
pub trait Handler: Send + Sync + 'static {
    /// What its answers are made of. A body that goes on and on ends by itself when the process
    /// stops; until then the port treats its connection as one at rest.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static;

    /// Answers a request whose head was complete at `started`, within some 10 s. When `draining`,
    /// nothing new may be begun.
    fn answer(
        &self,
        request: Request<Incoming>,
        started: Instant,
        draining: bool,
    ) -> impl Future<Output = Response<Self::Body>> + Send;

    /// Counts an answer to a head that never became a request.
    fn count_slow_head(&self);
}

/// A handler that shares the port of webhooks.
pub trait Neighbour: Handler {
    /// Whether requests to this path are its own.
    fn serves(&self, path: &str) -> bool;
}

impl<P: Publish> Handler for Webhook<P> {
    type Body = Full<Bytes>;

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
    type Body = Either<Full<Bytes>, N::Body>;

    async fn answer(
        &self,
        request: Request<Incoming>,
        started: Instant,
        draining: bool,
    ) -> Response<Self::Body> {
        match &self.neighbour {
            Some(neighbour) if neighbour.serves(request.uri().path()) => {
                let answer = neighbour.answer(request, started, draining).await;
                answer.map(Either::Right)
            }
            Some(_) | None => {
                let answer = self.webhook.answer(request, started, draining).await;
                answer.map(Either::Left)
            }
        }
    }

    fn count_slow_head(&self) {
        self.webhook.count_slow_head();
    }
}

/// Two neighbours, or one of them. A path that is nobody's goes to neither: [`Neighbour::serves`]
/// says so before.
#[derive(Clone, Debug)]
pub struct Both<A, B>(pub Option<A>, pub Option<B>);

impl<A: Neighbour, B: Neighbour> Neighbour for Both<A, B> {
    fn serves(&self, path: &str) -> bool {
        let first = self.0.as_ref().is_some_and(|first| first.serves(path));
        first || self.1.as_ref().is_some_and(|second| second.serves(path))
    }
}

impl<A: Neighbour, B: Neighbour> Handler for Both<A, B> {
    type Body = Either<A::Body, Either<B::Body, Full<Bytes>>>;

    async fn answer(
        &self,
        request: Request<Incoming>,
        started: Instant,
        draining: bool,
    ) -> Response<Self::Body> {
        match self {
            Self(Some(first), _) if first.serves(request.uri().path()) => {
                let answer = first.answer(request, started, draining).await;
                answer.map(Either::Left)
            }
            Self(_, Some(second)) => {
                let answer = second.answer(request, started, draining).await;
                answer.map(|body| Either::Right(Either::Left(body)))
            }
            Self(_, None) => {
                let answer = Refusal::NotFound.response();
                answer.map(|body| Either::Right(Either::Right(body)))
            }
        }
    }

    fn count_slow_head(&self) {}
}
