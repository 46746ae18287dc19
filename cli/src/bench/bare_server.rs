//! Reference of `ingest`: the least that a webhook server must do. Reads the body, verifies the
//! signature, answers 204; keeps nothing.

use std::{convert::Infallible, net::SocketAddr, process::ExitCode};

use clerk_sync_ingest::{
    config::signing_secret,
    verify::{Unverified, Verifier},
};
use clerk_sync_pipeline::{Millis, config};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;

/// The reference server in a process of its own, so that its CPU time is its own
#[derive(clap::Args)]
pub(crate) struct BareServerArgs {
    #[arg(long, env, value_parser = signing_secret)]
    clerk_webhook_signing_secret: Verifier,
    #[arg(long, env)]
    listen: SocketAddr,
}

pub(crate) async fn serve(args: BareServerArgs) -> anyhow::Result<ExitCode> {
    clerk_sync_pipeline::telemetry::init_logs(
        clerk_sync_pipeline::telemetry::LogFormat::Json,
        "info",
    )
    .map_err(anyhow::Error::msg)?;
    let shutdown = clerk_sync_pipeline::lifecycle::Shutdown::on_signals()?;
    let listener = config::bind("LISTEN", args.listen).await?;
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            () = shutdown.requested() => return Ok(ExitCode::SUCCESS),
        };
        stream.set_nodelay(true)?;
        let verifier = args.clerk_webhook_signing_secret.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, &verifier));
            // A client that has gone away is none of the reference's business.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    verifier: &Verifier,
) -> Result<Response<Empty<bytes::Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let status = match body.collect().await {
        Ok(body) => {
            let verified = Unverified::read(&head.headers, Millis::now())
                .and_then(|unverified| unverified.verify(verifier, body.to_bytes()));
            match verified {
                Ok(_) => StatusCode::NO_CONTENT,
                Err(_) => StatusCode::UNAUTHORIZED,
            }
        }
        Err(_) => StatusCode::BAD_REQUEST,
    };
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    Ok(response)
}
