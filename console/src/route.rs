//! What is at a path.

use crate::frame::Room;

/// What a path of the console's is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
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
    Job,
    Replay,
    Discard,
    Users,
    FindUser,
    FetchUser,
}

impl Route {
    /// Of a path behind `/console`.
    pub(crate) fn of(path: &str) -> Option<Self> {
        Some(match path {
            "" | "/" => Self::Overview,
            "/stream" => Self::Numbers,
            "/login" => Self::SignIn,
            "/logout" => Self::SignOut,
            "/events" => Self::Events,
            "/events/stream" => Self::Tail,
            "/event" => Self::Event,
            "/dead-letters" => Self::DeadLetters,
            "/dead-letters/letter" => Self::Letter,
            "/dead-letters/body" => Self::Body,
            "/dead-letters/plan" => Self::Plan,
            "/dead-letters/job" => Self::Job,
            "/dead-letters/replay" => Self::Replay,
            "/dead-letters/discard" => Self::Discard,
            "/users" => Self::Users,
            "/users/find" => Self::FindUser,
            "/users/fetch" => Self::FetchUser,
            _ => return None,
        })
    }

    /// The room that it belongs to.
    pub(crate) fn room(self) -> Room {
        match self {
            Self::Overview | Self::Numbers | Self::SignIn | Self::SignOut => Room::Overview,
            Self::Events | Self::Tail | Self::Event => Room::Events,
            Self::DeadLetters
            | Self::Letter
            | Self::Body
            | Self::Plan
            | Self::Job
            | Self::Replay
            | Self::Discard => Room::DeadLetters,
            Self::Users | Self::FindUser | Self::FetchUser => Room::Users,
        }
    }
}
