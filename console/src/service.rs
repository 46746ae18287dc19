//! One request, from its head to its answer.

use std::{sync::Arc, time::Duration};

use clerk_sync_ingest::{Handler, Neighbour};
use clerk_sync_pipeline::lifecycle::Shutdown;
use http::{HeaderMap, Method, Request, StatusCode};
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
    reader::Reader,
    refusal::Refusal,
    sampler::Sampler,
    shelf::{Deed, Shelf},
    stream::{self, Line},
    users,
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

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Overview,
    Numbers,
    SignIn,
    SignOut,
    Events,
    Tail,
    Event,
    DeadLetters,
    Letter,
    Body,
    Plan,
    Replay,
    Discard,
    Users,
    FindUser,
    FetchUser,
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
        let room = room(path).ok_or(Refusal::NoSuchPath)?;
        if is_get {
            form::read(body).await?;
            let target = head
                .uri
                .path_and_query()
                .map_or(HOME, |target| target.as_str());
            self.get(room, target, head.uri.query(), &head.headers)
                .await
        } else if head.method == Method::POST {
            self.post(room, &head.headers, body).await
        } else {
            Err(Refusal::MethodNotAllowed("GET, HEAD, POST"))
        }
    }

    async fn get(
        &self,
        room: Room,
        target: &str,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Answer, Refusal> {
        let fields = Fields::of_query(query);
        let session = self.access.session(headers, Instant::now());
        let session = match (room, session) {
            (Room::SignIn, Some(_)) => return Ok(see_other(HOME)),
            (Room::SignIn, None) => return Ok(login::ask(fields.get("next"), false)),
            // A stream has no use for the page that asks for the token.
            (Room::Numbers | Room::Tail, None) => return Err(Refusal::SignedOut),
            (_, Some(session)) => session,
            (_, None) => {
                let next = Some(target).filter(|target| *target != HOME);
                return Ok(see_other(&form::address("/login", &[("next", next)])));
            }
        };
        let csrf = session.csrf.as_str();
        let shown = match room {
            Room::Overview => overview::page(&self.board.borrow().clone(), csrf),
            Room::Numbers => {
                return Ok(stream::numbers(
                    self.line()?,
                    self.board.subscribe(),
                    headers,
                ));
            }
            Room::Tail => {
                let search = events::Search::of(&fields);
                return Ok(stream::tail(self.line()?, self.reader.clone(), search));
            }
            Room::Events => events::page(&self.reader, &fields, csrf).await?,
            Room::Event => event::page(&self.reader, &self.shelf, &fields, csrf).await?,
            Room::DeadLetters => {
                let unrouted = self
                    .board
                    .borrow()
                    .stock()
                    .map_or(0, |stock| stock.unrouted);
                letters::page(&self.shelf, &fields, unrouted, csrf).await?
            }
            Room::Letter => letters::letter(&self.shelf, &fields, false, csrf).await?,
            Room::Plan => deed::plan(&self.shelf, &fields, csrf).await?,
            Room::Users => {
                let can_fetch = self.clerk.is_some();
                users::page(&self.reader, can_fetch, &fields, csrf).await?
            }
            Room::SignIn
            | Room::SignOut
            | Room::Body
            | Room::Replay
            | Room::Discard
            | Room::FindUser
            | Room::FetchUser => return Err(Refusal::MethodNotAllowed("POST")),
        };
        Ok(page(StatusCode::OK, shown))
    }

    async fn post(
        &self,
        room: Room,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Result<Answer, Refusal> {
        let fields = Fields::of_body(body).await?;
        if asker::is_foreign(headers) {
            return Err(Refusal::Foreign);
        }
        if room == Room::SignIn {
            return login::enter(&self.access, headers, &fields);
        }
        let session = self.access.session(headers, Instant::now());
        let made = |session: &Session| session.made(fields.get("csrf").unwrap_or_default());
        let session = session.filter(made).ok_or(Refusal::Foreign)?;
        match room {
            Room::SignOut => Ok(login::leave(&self.access, headers)),
            Room::Body => {
                let shown = letters::letter(&self.shelf, &fields, true, &session.csrf).await?;
                Ok(page(StatusCode::OK, shown))
            }
            Room::Replay => deed::carry_out(&self.shelf, &fields, Deed::Replay).await,
            Room::Discard => deed::carry_out(&self.shelf, &fields, Deed::Discard).await,
            Room::FindUser => users::find(&self.reader, &fields, &session.csrf).await,
            Room::FetchUser => users::fetch(&self.reader, self.clerk.as_ref(), &fields).await,
            Room::Overview
            | Room::Numbers
            | Room::SignIn
            | Room::Events
            | Room::Tail
            | Room::Event
            | Room::DeadLetters
            | Room::Letter
            | Room::Plan
            | Room::Users => Err(Refusal::MethodNotAllowed("GET, HEAD")),
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

fn room(path: &str) -> Option<Room> {
    Some(match path {
        "" | "/" => Room::Overview,
        "/stream" => Room::Numbers,
        "/login" => Room::SignIn,
        "/logout" => Room::SignOut,
        "/events" => Room::Events,
        "/events/stream" => Room::Tail,
        "/event" => Room::Event,
        "/dead-letters" => Room::DeadLetters,
        "/dead-letters/letter" => Room::Letter,
        "/dead-letters/body" => Room::Body,
        "/dead-letters/plan" => Room::Plan,
        "/dead-letters/replay" => Room::Replay,
        "/dead-letters/discard" => Room::Discard,
        "/users" => Room::Users,
        "/users/find" => Room::FindUser,
        "/users/fetch" => Room::FetchUser,
        _ => return None,
    })
}
