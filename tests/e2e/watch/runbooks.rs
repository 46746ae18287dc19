//! The runbooks: one for each alert, and nothing in them that is not there.

use std::collections::BTreeSet;

use super::{
    files::{RUNBOOKS, text},
    rules,
};
use crate::harness::process::{Env, run};

/// The lines of the document's code blocks in this language.
fn code(language: &str) -> Vec<String> {
    let (mut lines, mut inside) = (Vec::new(), false);
    for line in text(RUNBOOKS).lines() {
        let line = line.trim();
        match line.strip_prefix("```") {
            Some(fence) => inside = !inside && fence == language,
            None if inside => lines.push(line.to_owned()),
            None => {}
        }
    }
    assert!(!lines.is_empty(), "no `{language}` in {RUNBOOKS}");
    lines
}

/// What the runbooks have Prometheus asked; one query on each line.
pub(super) fn queries() -> Vec<String> {
    code("promql")
}

#[test]
fn every_alert_has_its_runbook_and_every_runbook_its_alert() {
    let text = text(RUNBOOKS);
    let headings = text
        .lines()
        .filter_map(|line| line.strip_prefix("### ClerkSync"));
    let headings: Vec<String> = headings.map(|rest| format!("ClerkSync{rest}")).collect();
    let runbooks: BTreeSet<String> = headings.iter().cloned().collect();
    assert_eq!(runbooks.len(), headings.len(), "a runbook is there twice");
    let alerts: BTreeSet<String> = rules::alerts()
        .into_iter()
        .map(|alert| alert.name)
        .collect();
    assert_eq!(runbooks, alerts);
    for alert in &alerts {
        let body = text.split(&format!("### {alert}\n")).nth(1).unwrap();
        let body = body.split("\n#").next().unwrap();
        for part in ["**Means:**", "**Look:**", "**Cure:**", "**Cured:**"] {
            assert!(body.contains(part), "{alert} has no {part}");
        }
    }
}

/// Every command of ours that the document shows, with its flags, is in the program's own help.
#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_runbooks_are_there() {
    let mut asked = 0;
    for line in code("sh") {
        let Some(at) = line.find("clerk-sync ") else {
            continue;
        };
        if line[..at].contains(['/', '#']) {
            // In a path, or in a remark.
            continue;
        }
        let command = line[at..].split(['|', '#', ';', '>']).next().unwrap();
        let words: Vec<&str> = command.split_whitespace().skip(1).collect();
        let nested = matches!(words.first(), Some(&("dead-letters" | "migrate")));
        let named = words.iter().take(1 + usize::from(nested)).copied();
        let mut help: Vec<&str> = named.collect();
        help.push("--help");
        let (status, out, err) = run("clerk-sync", &help, &Env::new()).await;
        assert!(status.success(), "{line}: {err}");
        for flag in words.iter().filter(|word| word.starts_with("--")) {
            let flag = flag.split('=').next().unwrap();
            assert!(out.contains(flag), "{line}: no {flag} in its help");
        }
        asked += 1;
    }
    assert!(asked > 10, "{asked} commands");
}
