//! One request, from its head to its answer.

use std::{sync::Arc, time::Duration};

use clerk_sync_ingest::{Handler, Neighbour};
use clerk_sync_pipeline::lifecycle::Shutdown;
use http::{HeaderMap, Method, Request, StatusCode, request::Parts};
use hyper::body::Incoming;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout_at},
};

use crate::{
    access::{Access, Session},
    answer::{Answer, Body, guarded, page, see_other},
    asker, assets,
    board::Board,
    config::Clerk,
    deed, event, events,
    form::{self, Fields},
    letters, login, overview,
    plans::Deed,
    reader::Reader,
    refusal::Refusal,
    route::Route,
    sampler::Sampler,
    shelf::Shelf,
    stream::{self, Line},
    tail, users,
};

/// Where the console is.
pub(crate) const HOME: &str = "/console";

/// When whatever is being waited for is given up; an answer leaves within 10 s.
const DEADLINE: Duration = Duration::from_millis(9_500);
/// Most requests at a time, and most streams: few people look at once.
const MAX_IN_FLIGHT: usize = 64;
pub(crate) const MAX_STREAMS: usize = 32;

/// Answers a browser; one for all connections. Cloning shares it.
#[derive(Clone)]
pub struct Console(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) access: Access,
    pub(crate) reader: Reader,
    pub(crate) shelf: Shelf,
    pub(crate) clerk: Option<Clerk>,
    pub(crate) board: watch::Sender<Arc<Board>>,
    pub(crate) places: Semaphore,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) shutdown: Shutdown,
    /// This run of the process.
    pub(crate) run: Arc<str>,
}

impl Console {
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// Looks at everything every few seconds, until stopping is asked for.
    pub(crate) async fn watch(&self, sampler: Sampler) {
        let board = self.0.board.clone();
        sampler.run(board, self.0.shutdown.clone()).await;
    }

    /// Waits for what was begun and nobody waits for any more. Call it when the port is closed.
    pub async fn close(&self) {
        self.0.shelf.close().await;
    }
}

impl Neighbour for Console {
    fn serves(&self, path: &str) -> bool {
        let rest = path.strip_prefix(HOME);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl Handler for Console {
    type Body = Body;

    async fn answer(&self, request: Request<Incoming>, started: Instant, draining: bool) -> Answer {
        let answered = timeout_at(started + DEADLINE, self.0.respond(request, draining));
        let answered = answered.await.unwrap_or(Err(Refusal::StillGoing));
        guarded(answered.unwrap_or_else(|refusal| refusal.answer()))
    }

    fn count_slow_head(&self) {}
}

impl Inner {
    async fn respond(&self, request: Request<Incoming>, draining: bool) -> Result<Answer, Refusal> {
        let (head, body) = request.into_parts();
        if draining {
            return Err(Refusal::Draining);
        }
        let _place = self.places.try_acquire().map_err(|_| Refusal::Overloaded)?;
        let path = head.uri.path().strip_prefix(HOME).unwrap_or_default();
        let is_get = matches!(head.method, Method::GET | Method::HEAD);
        if let Some(name) = path.strip_prefix("/assets/") {
            form::read(body).await?;
            let asset = assets::find(name).ok_or(Refusal::NoSuchPath)?;
            return if is_get {
                Ok(asset.answer(&head.headers))
            } else {
                Err(Refusal::MethodNotAllowed("GET, HEAD"))
            };
        }
        let route = Route::of(path).ok_or(Refusal::NoSuchPath)?;
        if is_get {
            form::read(body).await?;
            self.get(route, &head).await
        } else if head.method == Method::POST {
            self.post(route, &head.headers, body).await
        } else {
            Err(Refusal::MethodNotAllowed("GET, HEAD, POST"))
        }
    }

    async fn get(&self, route: Route, head: &Parts) -> Result<Answer, Refusal> {
        let fields = Fields::of_query(head.uri.query());
        let session = match (route, self.access.session(&head.headers, Instant::now())) {
            (Route::SignIn, Some(_)) => return Ok(see_other(HOME)),
            (Route::SignIn, None) => return Ok(login::ask(fields.get("next"), false)),
            (_, Some(session)) => session,
            // A stream has no use for the page that asks for the token.
            (Route::Numbers | Route::Tail, None) => return Err(Refusal::SignedOut),
            (_, None) => {
                let next = head.uri.path_and_query().map(|target| target.as_str());
                let next = next.filter(|next| *next != HOME);
                return Ok(see_other(&form::address("/login", &[("next", next)])));
            }
        };
        let shown = self.show(route, &head.headers, &fields, &session.csrf);
        // What these are shown from is kept for a while, so asking again comes to an end.
        let is_kept = matches!(route, Route::DeadLetters | Route::Plan);
        let here = head.uri.path_and_query().filter(|_| is_kept);
        let here = here.map(|target| target.as_str());
        Ok(shown
            .await
            .unwrap_or_else(|refusal| refusal.answer_in(route.room(), &session.csrf, here)))
    }

    /// What is to be seen, for who is signed in.
    async fn show(
        &self,
        route: Route,
        headers: &HeaderMap,
        fields: &Fields,
        csrf: &str,
    ) -> Result<Answer, Refusal> {
        let shown = match route {
            Route::Overview => overview::page(&self.board.borrow().clone(), csrf),
            Route::Numbers => {
                let boards = self.board.subscribe();
                return Ok(stream::numbers(self.line()?, boards, headers));
            }
            Route::Tail => {
                let reader = self.reader.clone();
                return Ok(tail::tail(self.line()?, reader, fields, headers));
            }
            Route::Events => events::page(&self.reader, fields, csrf).await?,
            Route::Event => event::page(&self.reader, &self.shelf, fields, csrf).await?,
            Route::DeadLetters => {
                let stock = self.board.borrow().stock();
                let unrouted = stock.map_or(0, |stock| stock.unrouted);
                letters::page(&self.shelf, fields, unrouted, csrf).await?
            }
            Route::Letter => letters::letter(&self.shelf, fields, false, csrf).await?,
            Route::Plan => deed::plan(&self.shelf, fields, csrf).await?,
            Route::Job => return deed::job(&self.shelf, fields, csrf),
            Route::Users => users::page(&self.reader, self.clerk.is_some(), fields, csrf).await?,
            Route::SignIn
            | Route::SignOut
            | Route::Body
            | Route::Replay
            | Route::Discard
            | Route::FindUser
            | Route::FetchUser => return Err(Refusal::MethodNotAllowed("POST")),
        };
        Ok(page(StatusCode::OK, shown))
    }

    async fn post(
        &self,
        route: Route,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Result<Answer, Refusal> {
        let fields = Fields::of_body(body).await?;
        if asker::is_foreign(headers) {
            return Err(Refusal::Foreign);
        }
        if route == Route::SignIn {
            return login::enter(&self.access, headers, &fields);
        }
        let session = self.access.session(headers, Instant::now());
        let made = |session: &Session| session.made(fields.get("csrf").unwrap_or_default());
        let session = session.filter(made).ok_or(Refusal::Foreign)?;
        let done = self.act(route, headers, &fields, &session.csrf).await;
        Ok(done.unwrap_or_else(|refusal| refusal.answer_in(route.room(), &session.csrf, None)))
    }

    /// What is to be done, for a form of ours.
    async fn act(
        &self,
        route: Route,
        headers: &HeaderMap,
        fields: &Fields,
        csrf: &str,
    ) -> Result<Answer, Refusal> {
        match route {
            Route::SignOut => Ok(login::leave(&self.access, headers)),
            Route::Body => {
                let shown = letters::letter(&self.shelf, fields, true, csrf).await?;
                Ok(page(StatusCode::OK, shown))
            }
            Route::Replay => deed::carry_out(&self.shelf, fields, Deed::Replay).await,
            Route::Discard => deed::carry_out(&self.shelf, fields, Deed::Discard).await,
            Route::FindUser => users::find(&self.reader, fields, csrf).await,
            Route::FetchUser => users::fetch(&self.reader, self.clerk.as_ref(), fields).await,
            Route::Overview
            | Route::Numbers
            | Route::SignIn
            | Route::Events
            | Route::Tail
            | Route::Event
            | Route::DeadLetters
            | Route::Letter
            | Route::Plan
            | Route::Job
            | Route::Users => Err(Refusal::MethodNotAllowed("GET, HEAD")),
        }
    }

    fn line(&self) -> Result<Line, Refusal> {
        let place = self.streams.clone().try_acquire_owned();
        Ok(Line {
            shutdown: self.shutdown.clone(),
            _place: place.map_err(|_| Refusal::Overloaded)?,
            run: self.run.clone(),
        })
    }
}

pub(crate) fn places() -> Semaphore {
    Semaphore::new(MAX_IN_FLIGHT)
}
