//! A running API with a stand-in for Clerk behind it, and a client.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use clap::Parser as _;
use clerk_sync_api::{Api, ApiArgs};
use clerk_sync_clerk::backend::SecretKey;
use clerk_sync_ingest::PortLimits;
use clerk_sync_pipeline::{
    event::{Event, EventId, EventType, Millis},
    lifecycle::Shutdown,
    telemetry::{ApiEndpoint, ApiOutcome, Metrics},
};
use clerk_sync_projection::{Projection, ProjectionConfig};
use clerk_sync_stand_in::{Settings, StandIn};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::database::Home;

/// Whose pages may call.
pub(crate) const ORIGIN: &str = "https://app.example.com";

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    api: ApiArgs,
}

pub(crate) struct Rig {
    pub(crate) clerk: StandIn,
    pub(crate) home: Home,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) projection: Projection,
    pub(crate) address: SocketAddr,
    pub(crate) client: Client,
    pub(crate) shutdown: Shutdown,
    pub(crate) server: JoinHandle<()>,
}

impl Rig {
    pub(crate) async fn start(home: Home) -> Self {
        Self::with(home, &["--sync-floor", "0s"], ProjectionConfig::default()).await
    }

    pub(crate) async fn with(home: Home, more: &[&str], config: ProjectionConfig) -> Self {
        let clerk = StandIn::start_as(Settings::production()).await;
        let secret = clerk.settings().secret_key.clone();
        Self::of(home, clerk, &secret, more, config).await
    }

    /// With any key, and any other settings.
    pub(crate) async fn of(
        home: Home,
        clerk: StandIn,
        secret_key: &str,
        more: &[&str],
        config: ProjectionConfig,
    ) -> Self {
        let (url, publishable) = (clerk.url(), clerk.settings().publishable_key());
        let usual = [
            "test",
            "--clerk-api-url",
            &url,
            "--clerk-publishable-key",
            &publishable,
            "--allowed-origins",
            ORIGIN,
        ];
        let own_key = format!("--clerk-jwt-key={}", clerk.jwt_key());
        let is_key = |argument: &&str| argument.starts_with("--clerk-jwt-key");
        let key = (!more.iter().any(is_key)).then_some(&*own_key);
        let arguments = usual.into_iter().chain(key).chain(more.iter().copied());
        let args = Cli::parse_from(arguments).api;
        let metrics = Arc::new(Metrics::new(0));
        let projection = Projection::new(home.db.clone(), config, metrics.clone());
        let secret: SecretKey = secret_key.parse().unwrap();
        let api: Api = args
            .build(
                &secret,
                home.db.clone(),
                projection.clone(),
                metrics.clone(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::default();
        let limits = PortLimits {
            head_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(75),
            max_connections: 1000,
        };
        let stopping = shutdown.clone();
        let server = tokio::spawn(async move {
            clerk_sync_ingest::serve(api.clone(), limits, listener, stopping).await;
            api.close().await;
        });
        Self {
            clerk,
            home,
            metrics,
            projection,
            address,
            client: Client::new(),
            shutdown,
            server,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn get_me(&self, token: &str) -> RequestBuilder {
        self.client
            .get(self.url("/api/users/me"))
            .bearer_auth(token)
    }

    pub(crate) fn post_sync(&self, token: &str) -> RequestBuilder {
        let url = self.url("/api/users/sync");
        self.client.post(url).bearer_auth(token)
    }

    /// What `me` says to a user, who is signed in.
    pub(crate) async fn me(&self, user_id: &str) -> Answer {
        let token = self.clerk.session_token(user_id);
        Answer::to(self.get_me(&token)).await
    }

    pub(crate) async fn sync(&self, user_id: &str) -> Answer {
        let token = self.clerk.session_token(user_id);
        Answer::to(self.post_sync(&token)).await
    }

    /// Applies an event as a worker does.
    pub(crate) async fn webhook(&self, event_type: &str, data: &str) -> String {
        let body = format!(
            r#"{{"data":{data},"object":"event","type":"{event_type}","timestamp":{}}}"#,
            Millis::now().0
        );
        let number = Millis::now().0;
        let event = Event {
            id: EventId::parse(&format!("msg_{event_type}_{number}")).unwrap(),
            event_type: EventType::parse(event_type).unwrap(),
            received_at: Millis::now(),
            attempted_at: number / 1000,
            traceparent: None,
            body: body.into(),
        };
        let events = [event];
        let mut batch = self.projection.read(&events);
        self.projection.apply(&mut batch).await.unwrap();
        let (verdict, _) = batch.into_verdicts().into_iter().next().unwrap();
        format!("{verdict:?}")
    }

    pub(crate) fn count(&self, endpoint: ApiEndpoint, outcome: ApiOutcome) -> u64 {
        self.metrics.api_requests.get(endpoint, outcome).get()
    }
}

/// An answer, read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) async fn to(request: RequestBuilder) -> Self {
        Self::of(request.send().await.unwrap()).await
    }

    async fn of(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.unwrap();
        Self {
            status,
            headers,
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    /// Status and code of a refusal.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{:?}", self.body);
        assert_eq!(self.body["error"], code);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.body["status"], status);
        let again = matches!(status, 502 | 503);
        assert_eq!(again, !self.header("retry-after").is_empty(), "Retry-After");
    }
}
