//! The alerts, and that each has what an alert needs.

use std::collections::BTreeSet;

use yaml_rust2::Yaml;

use super::files::{RULES, SCRAPED, TESTS, all, items, text, word, yaml};

/// Where a reader of an alert is sent.
const RUNBOOK: &str = "https://github.com/clerk-sync/clerk-sync/blob/main/docs/OPERATIONS.md#";

pub(super) struct Alert {
    pub(super) name: String,
    pub(super) expr: String,
    yaml: Yaml,
}

/// A query that is to be kept as a series.
pub(super) struct Record {
    pub(super) name: String,
    pub(super) expr: String,
}

fn rules() -> Vec<Yaml> {
    let files = all(RULES, "yml").into_iter();
    files
        .flat_map(|(_, text)| items(&yaml(&text)["groups"]).to_vec())
        .flat_map(|group| items(&group["rules"]).to_vec())
        .collect()
}

pub(super) fn alerts() -> Vec<Alert> {
    let alerts = rules()
        .into_iter()
        .filter(|rule| !rule["alert"].is_badvalue());
    alerts
        .map(|yaml| Alert {
            name: word(&yaml, "alert"),
            expr: word(&yaml, "expr"),
            yaml,
        })
        .collect()
}

pub(super) fn records() -> Vec<Record> {
    let records = rules()
        .into_iter()
        .filter(|rule| !rule["record"].is_badvalue());
    records
        .map(|yaml| Record {
            name: word(&yaml, "record"),
            expr: word(&yaml, "expr"),
        })
        .collect()
}

/// The jobs that `prometheus.yml` scrapes, itself left out.
pub(super) fn jobs() -> Vec<String> {
    let config = yaml(&text(SCRAPED));
    let jobs = items(&config["scrape_configs"]).iter();
    jobs.map(|job| word(job, "job_name"))
        .filter(|job| job != "prometheus")
        .collect()
}

#[test]
fn every_alert_says_how_bad_it_is_what_it_is_and_what_to_do() {
    let alerts = alerts();
    let names: BTreeSet<&str> = alerts.iter().map(|alert| alert.name.as_str()).collect();
    assert_eq!(names.len(), alerts.len(), "a name is used twice");
    for alert in &alerts {
        let severity = word(&alert.yaml["labels"], "severity");
        assert!(
            ["critical", "warning"].contains(&severity.as_str()),
            "{}: {severity}",
            alert.name
        );
        let annotations = &alert.yaml["annotations"];
        let [summary, description, runbook] =
            ["summary", "description", "runbook_url"].map(|key| word(annotations, key));
        assert!(summary.len() < 120, "{}: {summary}", alert.name);
        assert!(description.len() > summary.len(), "{}", alert.name);
        assert_eq!(runbook, format!("{RUNBOOK}{}", alert.name.to_lowercase()));
    }
}

/// A test that fires is an `ALERTS` series that must be there; one that is silent, an alert that
/// must not. `promtool test rules` runs both; `scripts/test-watch` runs promtool.
#[test]
fn every_alert_has_a_test_that_fires_and_one_that_is_silent() {
    let (mut firing, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for (file, text) in all(TESTS, "yml") {
        for test in items(&yaml(&text)["tests"]) {
            for fires in items(&test["promql_expr_test"]) {
                let expr = word(fires, "expr");
                let name = expr
                    .strip_prefix("ALERTS{alertname=\"")
                    .and_then(|rest| rest.strip_suffix("\",alertstate=\"firing\"}"));
                let name = name.unwrap_or_else(|| panic!("{file}: {expr} is not of an alert"));
                assert!(!items(&fires["exp_samples"]).is_empty(), "{file}: {name}");
                firing.insert(name.to_owned());
            }
            for rests in items(&test["alert_rule_test"]) {
                let expected = rests["exp_alerts"].as_vec();
                assert!(expected.is_some_and(Vec::is_empty), "{file}: {rests:?}");
                silent.insert(word(rests, "alertname"));
            }
        }
    }
    let alerts: BTreeSet<String> = alerts().into_iter().map(|alert| alert.name).collect();
    assert_eq!(firing, alerts, "tests that fire, and alerts");
    assert_eq!(silent, alerts, "tests that are silent, and alerts");
}

/// A job that is named in a rule and scraped by nobody makes an alert that never fires.
#[test]
fn the_jobs_of_the_rules_are_scraped() {
    let config = yaml(&text(SCRAPED));
    assert_eq!(
        items(&config["rule_files"])[0].as_str(),
        Some("rules/*.yml")
    );
    let jobs = jobs();
    for job in ["ingest", "worker", "api", "reconcile"] {
        assert!(jobs.contains(&format!("clerk-sync-{job}")), "{job}");
    }
    for job in ["rabbitmq", "rabbitmq-queues"] {
        assert!(jobs.contains(&job.to_owned()), "{job}");
    }
}
