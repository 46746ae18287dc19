//! What receives traces: an HTTP server that takes OTLP as a collector does, and keeps the spans.

use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message as _;
use tokio::net::TcpListener;

use crate::harness::{SOON, eventually};

#[derive(Clone, Default)]
pub(super) struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    services: Arc<Mutex<BTreeSet<String>>>,
    url: String,
}

impl Collector {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let collector = Self {
            url,
            ..Self::default()
        };
        let serving = collector.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let collector = serving.clone();
                let service = service_fn(move |request| collector.clone().take(request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        collector
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    async fn take(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        assert_eq!(request.uri().path(), "/v1/traces");
        assert_eq!(request.headers()["content-type"], "application/x-protobuf");
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let export = ExportTraceServiceRequest::decode(body).unwrap();
        for resource in &export.resource_spans {
            let attributes = &resource.resource.as_ref().unwrap().attributes;
            let name = value(attributes, "service.name");
            self.services.lock().unwrap().insert(name);
        }
        let resources = export.resource_spans.into_iter();
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        let spans = scopes.flat_map(|scope| scope.spans);
        self.spans.lock().unwrap().extend(spans);
        let answer = ExportTraceServiceResponse::default().encode_to_vec();
        Ok(Response::new(Full::from(answer)))
    }

    pub(super) fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// Who has sent.
    pub(super) fn services(&self) -> BTreeSet<String> {
        self.services.lock().unwrap().clone()
    }

    /// The spans of one event by their names, once `count` of them are there.
    pub(super) async fn of_event(&self, id: &str, count: usize) -> HashMap<String, Span> {
        let of_event = || {
            let spans = self.spans().into_iter();
            let spans = spans.filter(|span| text(span, "messaging.message.id") == id);
            spans.map(|span| (span.name.clone(), span)).collect()
        };
        eventually("the event's spans are there", SOON, async || {
            let found: HashMap<String, Span> = of_event();
            found.len() == count
        })
        .await;
        of_event()
    }
}

/// An attribute's text; blank when there is none.
pub(super) fn text(span: &Span, key: &str) -> String {
    value(&span.attributes, key)
}

fn value(attributes: &[KeyValue], key: &str) -> String {
    let attribute = attributes.iter().find(|found| found.key == key);
    match attribute.and_then(|found| found.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        _ => String::new(),
    }
}
