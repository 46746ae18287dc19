//! Traces: from the request to the commit, as a collector gets them.

mod collector;

use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode};
use serde_json::json;

use self::collector::{Collector, text};
use crate::harness::{
    SOON,
    clerk::{Letter, SECRET, client, created, event, now, post, sign, user},
    eventually,
    process::{Env, Process, base_env},
    servers::{TestDb, TestQueue},
};

/// Of somebody who calls us.
const CALLERS_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLERS_SPAN: &str = "b7ad6b7169203331";

fn env(collector: &str) -> Env {
    let mut env = base_env();
    env.insert("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned());
    env.insert("OTEL_EXPORTER_OTLP_ENDPOINT", collector.to_owned());
    env.insert("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned());
    env
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn links_to(span: &Span, other: &Span) -> bool {
    let same = |link: &opentelemetry_proto::tonic::trace::v1::span::Link| {
        (&link.trace_id, &link.span_id) == (&other.trace_id, &other.span_id)
    };
    span.links.iter().any(same)
}

/// The batch that an event's span names.
fn batch_of<'a>(spans: &'a [Span], process: &Span) -> &'a Span {
    let mut batches = spans.iter().filter(|span| span.name == "process batch");
    batches.find(|batch| links_to(process, batch)).unwrap()
}

/// From the request to the commit, whatever the queue.
async fn is_traced(collector: &Collector, url: &str) {
    let letter = created("user_1", "maren@harbour-labs.example");
    let response = client()
        .post(url)
        .header("svix-id", &letter.id)
        .header("svix-timestamp", now())
        .header("svix-signature", sign(&letter.id, now(), &letter.body))
        .header(
            "traceparent",
            format!("00-{CALLERS_TRACE}-{CALLERS_SPAN}-01"),
        )
        .body(letter.body.clone())
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 204);
    let spans = collector.of_event(&letter.id, 3).await;
    let (request, publish, process) = (&spans["POST"], &spans["publish"], &spans["process"]);
    for span in [request, publish, process] {
        assert_eq!(hex(&span.trace_id), CALLERS_TRACE, "{}", span.name);
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
    }
    assert_eq!(hex(&request.parent_span_id), CALLERS_SPAN);
    assert_eq!(publish.parent_span_id, request.span_id);
    assert_eq!(process.parent_span_id, publish.span_id);
    assert_eq!(text(request, "http.response.status_code"), "204");
    assert_eq!(text(request, "clerk.event.type"), "user.created");
    assert_eq!(text(process, "clerk_sync.outcome"), "created");

    eventually("the batch's span is there", SOON, async || {
        let spans = collector.spans();
        spans
            .iter()
            .any(|span| span.name == "process batch" && links_to(span, publish))
    })
    .await;
    let all = collector.spans();
    let batch = batch_of(&all, process);
    assert_ne!(batch.trace_id, process.trace_id);
    assert!(links_to(batch, publish));
    let said = format!("{all:?}");
    for private in ["maren", "harbour-labs", "user_1"] {
        assert!(!said.contains(private), "{private} is in a span");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_traced_from_its_request_to_its_commit_through_rabbitmq() {
    let (collector, db) = (
        Collector::start().await,
        TestDb::postgres().await.migrated().await,
    );
    let queue = TestQueue::with_ladder("5s").await;
    let mut env = env(collector.url());
    queue.env(&mut env);
    env.insert("DATABASE_URL", db.url.expose().to_string());
    // A blank name is none.
    env.insert("OTEL_SERVICE_NAME", String::new());
    let worker = Process::start("clerk-sync-worker", &[], &env);
    let named = "deployment.environment=test,service.name=shop-webhooks";
    env.insert("OTEL_RESOURCE_ATTRIBUTES", named.to_owned());
    let ingest = Process::start("clerk-sync-ingest", &[], &env);
    let url = ingest.webhook_url().await;
    ingest.ready().await;
    worker.ready().await;
    is_traced(&collector, &url).await;

    // What cannot be applied says why.
    let mut nobody = user("user_2", "nobody@harbour-labs.example", 1);
    nobody["email_addresses"] = json!([]);
    nobody["primary_email_address_id"] = json!(null);
    let letter = event("user.created", &nobody);
    assert_eq!(post(&client(), &url, &letter).await, 204);
    let spans = collector.of_event(&letter.id, 3).await;
    let process = &spans["process"];
    assert_eq!(text(process, "clerk_sync.outcome"), "dead_lettered");
    assert_eq!(text(process, "error.type"), "missing_email");
    let status = process.status.as_ref().unwrap();
    assert_eq!(status.code, i32::from(StatusCode::Error));
    // What has no parent is traced as the share says, here all of it.
    assert!(spans["POST"].parent_span_id.is_empty());
    let services: Vec<String> = collector.services().into_iter().collect();
    assert_eq!(services, ["clerk-sync", "shop-webhooks"]);

    ingest.stop().await;
    worker.stop().await;
    queue.remove().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_traced_from_its_request_to_its_commit_in_one_process() {
    let (collector, folder) = (Collector::start().await, tempfile::tempdir().unwrap());
    let db = TestDb::sqlite().await.migrated().await;
    let mut env = env(collector.url());
    env.insert("CLERK_SYNC_DATA", folder.path().display().to_string());
    env.insert("DATABASE_URL", db.url.expose().to_string());
    // Longer than the test: what was traced last leaves when the process ends.
    env.insert("OTEL_BSP_SCHEDULE_DELAY", "600000".to_owned());
    let up = Process::start("clerk-sync", &["up"], &env);
    let url = up.webhook_url().await;
    up.ready().await;
    let request = async {
        eventually("the event is applied", SOON, async || {
            !db.users().await.is_empty()
        })
        .await;
        up.stop().await;
    };
    tokio::join!(is_traced(&collector, &url), request);
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_chosen_is_not_sent_and_a_collector_that_is_away_stops_nothing() {
    let collector = Collector::start().await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let away = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    for (url, share) in [(collector.url(), "0"), (away.as_str(), "1")] {
        let folder = tempfile::tempdir().unwrap();
        let db = TestDb::sqlite().await.migrated().await;
        let mut env = env(url);
        env.insert("OTEL_TRACES_SAMPLER_ARG", share.to_owned());
        env.insert("CLERK_SYNC_DATA", folder.path().display().to_string());
        env.insert("DATABASE_URL", db.url.expose().to_string());
        let up = Process::start("clerk-sync", &["up"], &env);
        let url = up.webhook_url().await;
        up.ready().await;
        let letters: Vec<Letter> = (0..20)
            .map(|n| created(&format!("user_{n}"), &format!("u{n}@a.example")))
            .collect();
        for letter in &letters {
            assert_eq!(post(&client(), &url, letter).await, 204);
        }
        eventually("every event is applied", SOON, async || {
            db.users().await.len() == letters.len()
        })
        .await;
        if share == "1" {
            // In our words, and not as an error of somebody else's at each try.
            eventually("the outage is told", SOON, async || {
                up.output().contains("the collector takes no traces")
            })
            .await;
            assert!(!up.output().contains("Export"), "{}", up.output());
        }
        up.stop().await;
        db.remove().await;
    }
    assert!(collector.spans().is_empty());
}
