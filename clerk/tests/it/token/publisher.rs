//! Who publishes keys: a real HTTP server that counts, and answers as it is told.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use clerk_sync_clerk::{
    backend::{ApiUrl, SecretKey},
    token::{FrontendApi, Jwks},
};
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpListener, time::sleep};

/// What was asked: path, `Authorization`, `Clerk-API-Version`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    pub(crate) version: Option<String>,
}

#[derive(Default)]
struct State {
    asked: Vec<Asked>,
    answer: (u16, String),
    delay: Duration,
}

pub(crate) struct Publisher {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Publisher {
    /// Publishes this key set until told otherwise.
    pub(crate) async fn start(keys: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            answer: (200, keys.to_string()),
            ..State::default()
        }));
        let served = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = served.clone();
                let service = service_fn(move |request| answer(request, state.clone()));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, state }
    }

    pub(crate) fn answer(&self, status: u16, body: &str) {
        self.state.lock().unwrap().answer = (status, body.to_owned());
    }

    pub(crate) fn delay(&self, delay: Duration) {
        self.state.lock().unwrap().delay = delay;
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.lock().unwrap().asked.clone()
    }

    /// A client that has this as its Backend API.
    pub(crate) fn of_backend(&self, secret: &str) -> Jwks {
        let url: ApiUrl = format!("http://{}", self.address).parse().unwrap();
        let secret: SecretKey = secret.parse().unwrap();
        Jwks::of_backend(&url, &secret).unwrap()
    }

    /// A client that has this as its Frontend API.
    pub(crate) fn of_frontend(&self) -> Jwks {
        let frontend: FrontendApi = format!("http://{}/__clerk/", self.address).parse().unwrap();
        Jwks::of_frontend(&frontend).unwrap()
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let header = |name| {
        let value = request.headers().get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    let ((status, body), delay) = {
        let mut state = state.lock().unwrap();
        state.asked.push(Asked {
            path: request.uri().path().to_owned(),
            authorization: header("authorization"),
            version: header("clerk-api-version"),
        });
        (state.answer.clone(), state.delay)
    };
    // The server's own slowness, not a condition.
    sleep(delay).await;
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status.try_into().unwrap();
    Ok(response)
}
