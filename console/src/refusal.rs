//! Every way to say no, and the one place that turns them into HTTP.

use std::time::Duration;

use clerk_sync_projection::Unavailable;
use http::{HeaderValue, StatusCode, header};
use maud::{Markup, html};

use crate::{
    answer::{Answer, page},
    frame::{self, Room},
};

/// Why there is no page. `Display` is what the person reads.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("There is nothing at this address.")]
    NoSuchPath,
    #[error("{0}")]
    NotFound(String),
    #[error("This address is not asked for in this way.")]
    MethodNotAllowed(&'static str),
    #[error("Your session has ended.")]
    SignedOut,
    #[error(
        "This request did not come from a page of this console, or its session has ended. Nothing was done."
    )]
    Foreign,
    #[error("The request is too long or did not arrive. Nothing was done.")]
    BadBody,
    #[error("{0}")]
    Unavailable(String),
    #[error(
        "This takes longer than a page can wait. What was begun goes on; look again in a moment."
    )]
    StillGoing,
    #[error(
        "Somebody else's request goes through the letters, which takes long. Nothing was done for \
         this one; try again in a moment."
    )]
    Busy,
    #[error("Too much at a time. Try again in a moment.")]
    Overloaded,
    #[error("This process is stopping.")]
    Draining,
    #[error("Too many attempts. Try again in {} s.", .0.as_secs().max(1))]
    TooManyAttempts(Duration),
}

impl From<Unavailable> for Refusal {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(format!("The database does not answer: {unavailable}"))
    }
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoSuchPath | Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::SignedOut => StatusCode::UNAUTHORIZED,
            Self::Foreign => StatusCode::FORBIDDEN,
            Self::BadBody => StatusCode::BAD_REQUEST,
            Self::StillGoing => StatusCode::ACCEPTED,
            Self::Unavailable(_) | Self::Busy | Self::Overloaded | Self::Draining => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::TooManyAttempts(_) => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Self::NoSuchPath | Self::NotFound(_) => "Not found",
            Self::MethodNotAllowed(_) | Self::BadBody | Self::Foreign => "Not done",
            Self::SignedOut => "Signed out",
            Self::StillGoing => "Still going on",
            Self::Unavailable(_) | Self::Draining => "No answer",
            Self::TooManyAttempts(_) | Self::Busy | Self::Overloaded => "Not now",
        }
    }

    /// As a page for anybody.
    pub(crate) fn answer(&self) -> Answer {
        let home = html! { p { a.button href=(crate::service::HOME) { "To the overview" } } };
        self.page(frame::bare(self.title(), &self.text(&home)))
    }

    /// As a page for who is signed in, with the ways that lead on; `here` is what was asked for, if
    /// that can be asked again.
    pub(crate) fn answer_in(&self, room: Room, csrf: &str, here: Option<&str>) -> Answer {
        let is_passing = matches!(self, Self::StillGoing | Self::Busy);
        let again = here.filter(|_| is_passing).map(frame::again);
        let text = self.text(&again.unwrap_or_default());
        self.page(frame::framed(room, self.title(), csrf, &text))
    }

    fn text(&self, way_out: &Markup) -> Markup {
        html! {
            div.refusal {
                h1 { (self.title()) }
                p { (self.to_string()) }
                (way_out)
            }
        }
    }

    fn page(&self, markup: Markup) -> Answer {
        let mut answer = page(self.status(), markup);
        let headers = answer.headers_mut();
        match self {
            Self::MethodNotAllowed(allowed) => {
                headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
            }
            Self::TooManyAttempts(wait) => {
                headers.insert(
                    header::RETRY_AFTER,
                    HeaderValue::from(wait.as_secs().max(1)),
                );
            }
            _ => {}
        }
        answer
    }
}
