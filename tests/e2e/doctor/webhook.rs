//! What can be wrong with the webhook's address.

use super::{NOBODY, Site, doctor};
use crate::harness::process::Process;

#[tokio::test(flavor = "multi_thread")]
async fn whoever_answers_in_our_place_or_nobody_is_a_problem() {
    let site = Site::new().await;
    let ours = site.env["WEBHOOK_URL"].clone();
    // The flag wins over the environment, and a password is not shown.
    let elsewhere = format!("http://me:hunter2@{NOBODY}/hook");
    let diagnosis = doctor(&site.env, &["--webhook-url", &elsewhere]).await;
    diagnosis.is(&["problem webhook/webhook"]);
    diagnosis.says("webhook/webhook", &[NOBODY, "refused", "LISTEN"]);
    assert!(!diagnosis.report.to_string().contains("hunter2"));

    let wrong_path = ours.replace("/clerk", "/svix");
    let diagnosis = doctor(&site.with("WEBHOOK_URL", wrong_path), &[]).await;
    diagnosis.is(&["problem webhook/webhook"]);
    diagnosis.says("webhook/webhook", &["404 (not_found)", "WEBHOOK_PATH"]);

    let somebody = format!("{}/v1/jwks", site.clerk.url());
    let diagnosis = doctor(&site.with("WEBHOOK_URL", somebody), &[]).await;
    diagnosis.is(&["problem webhook/webhook"]);
    diagnosis.says("webhook/webhook", &["not as clerk-sync does"]);
    site.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingester_whose_broker_is_away_still_refuses_what_is_forged() {
    let site = Site::new().await;
    let ingest = site.with("AMQP_URL", format!("amqp://{NOBODY}/%2f"));
    let ingest = Process::start("clerk-sync-ingest", &[], &ingest);
    let url = ingest.webhook_url().await;
    doctor(&site.with("WEBHOOK_URL", url), &[]).await.is(&[]);
    ingest.stop().await;
    site.remove().await;
}
