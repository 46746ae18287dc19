//! Traces, by OpenTelemetry: one for each event, from its request to the commit of its batch.
//!
//! An event's trace has the request (`POST`), its `publish`, and a `process` for each attempt; the
//! message carries the publish's context in its `traceparent`. A batch is a trace of its own: its
//! span has a link to each of its events, and each event's `process` has one to it.
//!
//! Off unless a collector is named; then the functions of this module do nothing, and `traceparent`
//! is carried as it came. Nothing of a payload is in a span: ids, types, outcomes and times.

use std::{
    collections::HashMap,
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use http::StatusCode;
use opentelemetry::{
    Context, Key, KeyValue,
    propagation::TextMapPropagator as _,
    trace::{
        Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, TraceId,
        Tracer as _, TracerProvider as _,
    },
};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{
        Sampler, SamplingDecision, SamplingResult, SdkTracer, SdkTracerProvider, ShouldSample, Span,
    },
};
use url::Url;

use crate::{
    event::Event,
    queue::Reason,
    telemetry::{Label as _, Outcome, WebhookOutcome},
};

mod watched;

use watched::Watched;

/// Most links of a batch's span: no batch has more events.
const MAX_LINKS: u32 = 10_000;
/// How long the last spans may take to leave when a process ends.
const LAST_SPANS: Duration = Duration::from_secs(2);
/// The header, here and on RabbitMQ.
const TRACEPARENT: &str = "traceparent";

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Where traces go, and how many.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Process")]
pub struct TraceArgs {
    /// OpenTelemetry collector that gets traces, by OTLP over HTTP: http://collector:4318. Unset:
    /// no traces
    #[arg(
        long, env, hide_env_values = true, hide_default_value = true, default_value = "",
        value_name = "URL", value_parser = collector
    )]
    pub otel_exporter_otlp_endpoint: Collector,
    /// Share of events that are traced, from 0 to 1
    #[arg(long, env, default_value_t = 1.0, value_name = "SHARE", value_parser = share)]
    pub otel_traces_sampler_arg: f64,
}

/// The collector's address, if there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collector(Option<Url>);

fn collector(text: &str) -> Result<Collector, String> {
    if text.trim().is_empty() {
        return Ok(Collector::default());
    }
    // A password in it must not be repeated.
    let url = Url::parse(text.trim()).map_err(|error| format!("not a URL ({error})"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("it is neither http:// nor https://".to_owned());
    }
    // Nobody would send them on, and they could show in a log.
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err(
            "it has a user, a password or a query; what the collector wants to know of \
             us goes into OTEL_EXPORTER_OTLP_HEADERS"
                .to_owned(),
        );
    }
    Ok(Collector(Some(url)))
}

fn share(text: &str) -> Result<f64, String> {
    let share: Option<f64> = text.parse().ok();
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "not a number from 0 to 1".to_owned())
}

/// What sends the spans; on its drop the last ones leave.
pub struct Traces(SdkTracerProvider);

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST_SPANS) {
            tracing::debug!(%error, "the last spans did not leave");
        }
    }
}

/// Begins to trace, if a collector is named; `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
/// `OTEL_EXPORTER_OTLP_HEADERS` and `OTEL_BSP_…` are understood as OpenTelemetry has them. Call it
/// once, outside of a runtime.
///
/// # Errors
/// No HTTPS client can be made.
pub fn start(args: &TraceArgs) -> Result<Option<Traces>, ExporterBuildError> {
    let Some(url) = &args.otel_exporter_otlp_endpoint.0 else {
        return Ok(None);
    };
    let endpoint = format!("{}/v1/traces", url.as_str().trim_end_matches('/'));
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(endpoint)
        .build()?;
    let events = Sampler::TraceIdRatioBased(args.otel_traces_sampler_arg);
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(Watched::new(exporter))
        .with_sampler(Sampling(Sampler::ParentBased(Box::new(events))))
        .with_max_links_per_span(MAX_LINKS)
        .with_resource(resource())
        .build();
    // A second call is a test's; the first keeps its word.
    let _ = TRACER.set(provider.tracer("clerk-sync"));
    Ok(Some(Traces(provider)))
}

/// Who sends: as the environment says, else `clerk-sync`.
fn resource() -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder().with_attribute(version);
    let found = Resource::builder().build();
    let name = found.get(&Key::from_static_str("service.name"));
    // What OpenTelemetry says where nobody has said anything.
    let is_named = name.is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    if is_named {
        resource.build()
    } else {
        resource.with_service_name("clerk-sync").build()
    }
}

/// A batch is traced when one of its events is; an event as its parent, else by share.
#[derive(Clone, Debug)]
struct Sampling(Sampler);

impl ShouldSample for Sampling {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let mut result = self
            .0
            .should_sample(parent, trace_id, name, kind, attributes, links);
        if name == BATCH {
            let any = links.iter().any(|link| link.span_context.is_sampled());
            result.decision = if any {
                SamplingDecision::RecordAndSample
            } else {
                SamplingDecision::Drop
            };
        }
        result
    }
}

/// A verified request, until it is answered.
pub struct Request(Option<Box<Open>>);

struct Open {
    request: Context,
    publish: Span,
}

impl Request {
    /// Begins the spans of a request that has begun `ago`, and has the event carry them on.
    #[must_use]
    pub fn begin(event: &mut Event, ago: Duration) -> Self {
        let Some(tracer) = TRACER.get() else {
            return Self(None);
        };
        let parent = context(event.traceparent.as_deref());
        let request = SpanBuilder::from_name("POST")
            .with_kind(SpanKind::Server)
            .with_start_time(SystemTime::now() - ago)
            .with_attributes([
                KeyValue::new("http.request.method", "POST"),
                KeyValue::new("messaging.message.id", event.id.as_str().to_owned()),
                KeyValue::new("clerk.event.type", event.event_type.as_str().to_owned()),
            ]);
        let request = tracer.build_with_context(request, &parent);
        let request = parent.with_span(request);
        let publish = SpanBuilder::from_name("publish")
            .with_kind(SpanKind::Producer)
            .with_attributes([
                KeyValue::new("messaging.operation.type", "send"),
                KeyValue::new("messaging.message.id", event.id.as_str().to_owned()),
            ]);
        let publish = tracer.build_with_context(publish, &request);
        event.traceparent = traceparent(publish.span_context()).or(event.traceparent.take());
        Self(Some(Box::new(Open { request, publish })))
    }

    /// Ends them: confirmed, or refused.
    pub fn end(self, refused: Option<(StatusCode, WebhookOutcome)>) {
        let Some(open) = self.0 else {
            return;
        };
        let (request, mut publish) = (open.request.span(), open.publish);
        let status = refused.map_or(StatusCode::NO_CONTENT, |(status, _)| status);
        if let Some((_, outcome)) = refused {
            publish.set_status(Status::error(outcome.as_str()));
            request.set_status(Status::error(outcome.as_str()));
        }
        publish.end();
        let status = i64::from(status.as_u16());
        request.set_attribute(KeyValue::new("http.response.status_code", status));
        request.end();
    }
}

/// The name of a batch's span.
const BATCH: &str = "process batch";

/// A batch in hand. Dropped before its end, it was handed back.
pub struct Batch(Option<InHand>);

struct InHand {
    span: Option<Span>,
    began: SystemTime,
}

/// What became of an event in a batch.
pub struct Processed<'a> {
    /// The event.
    pub event: &'a Event,
    /// How often it had failed before.
    pub attempt: u32,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it failed, if it did.
    pub reason: Option<Reason>,
}

impl Batch {
    /// Begins the span of a batch, if any of its events is traced.
    #[must_use]
    pub fn begin<'a>(events: impl Iterator<Item = &'a Event>) -> Self {
        let Some(tracer) = TRACER.get() else {
            return Self(None);
        };
        let mut count = 0_i64;
        let links: Vec<Link> = events
            .inspect(|_| count += 1)
            .filter_map(|event| event.traceparent.as_deref())
            .map(|traceparent| context(Some(traceparent)).span().span_context().clone())
            .filter(SpanContext::is_valid)
            .map(Link::with_context)
            .collect();
        let began = SystemTime::now();
        let batch = SpanBuilder::from_name(BATCH)
            .with_kind(SpanKind::Consumer)
            .with_start_time(began)
            .with_links(links)
            .with_attributes([
                KeyValue::new("messaging.operation.type", "process"),
                KeyValue::new("messaging.batch.message_count", count),
            ]);
        let span = Some(tracer.build_with_context(batch, &Context::new()));
        Self(Some(InHand { span, began }))
    }

    /// Ends it, with what became of each event; not asked where nothing is traced.
    pub fn end<'a, I>(mut self, processed: impl FnOnce() -> I)
    where
        I: Iterator<Item = Processed<'a>>,
    {
        let (Some(tracer), Some(in_hand)) = (TRACER.get(), &mut self.0) else {
            return;
        };
        let Some(mut span) = in_hand.span.take() else {
            return;
        };
        if span.span_context().is_sampled() {
            for processed in processed() {
                process(tracer, &processed, in_hand.began, span.span_context());
            }
        }
        span.end();
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if let Some(mut span) = self.0.as_mut().and_then(|in_hand| in_hand.span.take()) {
            span.set_status(Status::error("handed back"));
            span.end();
        }
    }
}

/// The part of an event's trace that a batch was.
fn process(tracer: &SdkTracer, processed: &Processed<'_>, began: SystemTime, batch: &SpanContext) {
    let parent = context(processed.event.traceparent.as_deref());
    if !parent.span().span_context().is_sampled() {
        return;
    }
    let mut attributes = vec![
        KeyValue::new("messaging.operation.type", "process"),
        KeyValue::new(
            "messaging.message.id",
            processed.event.id.as_str().to_owned(),
        ),
        KeyValue::new("clerk_sync.outcome", processed.outcome.as_str()),
        KeyValue::new("clerk_sync.attempt", i64::from(processed.attempt)),
    ];
    let failed = processed.reason.map(Reason::as_str);
    attributes.extend(failed.map(|reason| KeyValue::new("error.type", reason)));
    let span = SpanBuilder::from_name("process")
        .with_kind(SpanKind::Consumer)
        .with_start_time(began)
        .with_links(vec![Link::with_context(batch.clone())])
        .with_attributes(attributes);
    let mut span = tracer.build_with_context(span, &parent);
    if let Some(reason) = failed {
        span.set_status(Status::error(reason));
    }
    span.end();
}

/// What a `traceparent` says, if it can be read.
fn context(traceparent: Option<&str>) -> Context {
    let carrier: HashMap<String, String> = traceparent
        .map(|text| (TRACEPARENT.to_owned(), text.to_owned()))
        .into_iter()
        .collect();
    TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier)
}

fn traceparent(context: &SpanContext) -> Option<String> {
    let mut carrier = HashMap::new();
    let context = Context::new().with_remote_span_context(context.clone());
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    carrier.remove(TRACEPARENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked() {
        assert_eq!(collector(" "), Ok(Collector(None)));
        assert!(collector("http://collector:4318").unwrap().0.is_some());
        for bad in [
            "collector:4318",
            "grpc://collector",
            "4318",
            "http://me:hunter2@collector:4318",
            "http://hunter2@collector:4318",
            "http://collector:4318/?key=hunter2",
        ] {
            let said = collector(bad).unwrap_err();
            assert!(!said.contains("hunter2"), "{bad}: {said}");
        }
        for (text, good) in [
            ("0", true),
            ("0.25", true),
            ("1", true),
            ("1.1", false),
            ("x", false),
        ] {
            assert_eq!(share(text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn a_context_survives_its_header() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let read = context(Some(text));
        assert_eq!(
            traceparent(read.span().span_context()).as_deref(),
            Some(text)
        );
        assert!(!context(Some("nonsense")).span().span_context().is_valid());
        assert!(!context(None).span().span_context().is_valid());
    }
}
