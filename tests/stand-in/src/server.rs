//! The port: connections to answers.

use std::{convert::Infallible, sync::Arc};

use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{Instance, api, control};

/// Serves until it is dropped, and every connection with it.
pub(crate) async fn serve(listener: TcpListener, instance: Arc<Instance>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        // Those that ended.
        while connections.try_join_next().is_some() {}
        let _ = stream.set_nodelay(true);
        let instance = instance.clone();
        connections.spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let instance = instance.clone();
                async move {
                    if control::is_control(&request) {
                        let answer = control::answer(&instance, request).await;
                        return Ok::<_, HangUp>(answer.into_response());
                    }
                    api::answer(&instance, request.into_parts().0).await
                }
            });
            let connection = auto::Builder::new(TokioExecutor::new());
            // A client that goes away is its own business.
            let _ = connection
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// No answer: an error in a service closes its connection.
#[derive(Debug)]
pub(crate) struct HangUp;

impl std::fmt::Display for HangUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hung up, as told")
    }
}

impl std::error::Error for HangUp {}

impl From<Infallible> for HangUp {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
