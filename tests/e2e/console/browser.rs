//! A browser as far as the console needs one: a cookie, forms with their hidden fields, and no
//! redirect that is followed unasked.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use reqwest::{Client, RequestBuilder, Response, redirect::Policy};
use serde_json::Value;
use tokio::time::timeout;

use crate::harness::SOON;

/// The token of the tests.
pub(super) const TOKEN: &str = "a token that is long enough";

/// A browser with one window.
pub(super) struct Browser {
    client: Client,
    pub(super) origin: String,
    pub(super) cookie: Option<String>,
}

/// An answer.
pub(super) struct Page {
    pub(super) status: u16,
    pub(super) headers: HashMap<String, String>,
    pub(super) text: String,
}

impl Browser {
    pub(super) fn new(address: SocketAddr) -> Self {
        let client = Client::builder()
            .redirect(Policy::none())
            .timeout(Duration::from_secs(60));
        Self {
            client: client.build().unwrap(),
            origin: format!("http://{address}"),
            cookie: None,
        }
    }

    /// One that is signed in.
    pub(super) async fn signed_in(address: SocketAddr, token: &str) -> Self {
        let mut browser = Self::new(address);
        let entered = browser.post("/console/login", &[("token", token)]).await;
        assert_eq!(entered.status, 303, "{}", entered.text);
        let cookie = entered.headers["set-cookie"].split(';').next();
        browser.cookie = cookie.map(str::to_owned);
        browser
    }

    /// A request as a browser would make it, not sent yet.
    pub(super) fn request(&self, method: reqwest::Method, path: &str) -> RequestBuilder {
        let request = self
            .client
            .request(method, format!("{}{path}", self.origin));
        match &self.cookie {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        }
    }

    pub(super) async fn get(&self, path: &str) -> Page {
        sent(self.request(reqwest::Method::GET, path)).await
    }

    /// A page that must be there.
    pub(super) async fn page(&self, path: &str) -> String {
        let page = self.get(path).await;
        assert_eq!(page.status, 200, "{path}: {}", page.text);
        page.text
    }

    /// A form, sent by a page of the console's own.
    pub(super) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        let request = self.request(reqwest::Method::POST, path);
        sent(form(request, fields).header("sec-fetch-site", "same-origin")).await
    }

    /// The same with the session's own token, which any page of it has.
    pub(super) async fn act(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        let csrf = hidden(&self.page("/console").await, "csrf");
        self.post(path, &[fields, &[("csrf", csrf.as_str())]].concat())
            .await
    }

    /// A stream of events.
    pub(super) async fn stream(&self, path: &str, last: Option<&str>) -> Events {
        let mut request = self.request(reqwest::Method::GET, path);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events {
            response,
            text: String::new(),
        }
    }
}

/// A stream, as an `EventSource` reads it.
pub(super) struct Events {
    response: Response,
    text: String,
}

/// One event.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) id: Option<String>,
    pub(super) name: String,
    pub(super) data: Value,
}

impl Events {
    /// The next one with data; `None` when the stream has ended.
    pub(super) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    let mut lines = event.lines();
                    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                };
                if let Some(data) = field("data") {
                    return Some(Event {
                        id: field("id").map(str::to_owned),
                        name: field("event").unwrap_or("message").to_owned(),
                        data: serde_json::from_str(data).unwrap(),
                    });
                }
                continue;
            }
            let more = timeout(SOON, self.response.chunk()).await.expect("in time");
            self.text
                .push_str(std::str::from_utf8(&more.ok()??).unwrap());
        }
    }
}

pub(super) fn form(request: RequestBuilder, fields: &[(&str, &str)]) -> RequestBuilder {
    let mut body = url::form_urlencoded::Serializer::new(String::new());
    body.extend_pairs(fields);
    request
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body.finish())
}

pub(super) async fn sent(request: RequestBuilder) -> Page {
    let response: Response = request.send().await.unwrap();
    let headers = response.headers().iter();
    let headers = headers.map(|(name, value)| {
        let value = value.to_str().unwrap().to_owned();
        (name.as_str().to_owned(), value)
    });
    Page {
        status: response.status().as_u16(),
        headers: headers.collect(),
        text: response.text().await.unwrap(),
    }
}

/// The value of a hidden field.
pub(super) fn hidden(page: &str, name: &str) -> String {
    let field = format!("name=\"{name}\" value=\"");
    let (_, rest) = page
        .split_once(&field)
        .unwrap_or_else(|| panic!("no {name} in {page}"));
    rest.split('"').next().unwrap().to_owned()
}
