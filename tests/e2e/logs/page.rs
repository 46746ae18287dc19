//! docs/LOGS.md, and the lines that the sources hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use crate::harness::servers::ROOT;

/// Level and message of a line, and the fields that it may have.
pub(super) type Lines = BTreeMap<(String, String), BTreeSet<String>>;

/// The crates whose lines reach an operator.
const PRODUCT: [&str; 10] = [
    "api",
    "clerk",
    "cli",
    "console",
    "entity",
    "ingest",
    "migration",
    "pipeline",
    "projection",
    "worker",
];

pub(super) struct Page {
    /// Names in the table of fields.
    pub(super) fields: BTreeSet<String>,
    /// The tables of lines.
    pub(super) lines: Lines,
}

impl Page {
    pub(super) fn read() -> Self {
        let text = std::fs::read_to_string(format!("{ROOT}/docs/LOGS.md")).unwrap();
        let part = |heading: &str| {
            let part = text.split(&format!("\n## {heading}\n")).nth(1).unwrap();
            part.split("\n## ").next().unwrap()
        };
        let rows = |part: &str| -> Vec<Vec<String>> {
            let rows = part.lines().filter(|line| line.starts_with("| "));
            let cells = |row: &str| row.split('|').map(|cell| cell.trim().to_owned()).collect();
            rows.map(cells).collect()
        };
        let fields = rows(part("Fields"));
        let fields = fields.iter().flat_map(|row| quoted(&row[1]));
        let mut lines = Lines::new();
        for row in rows(part("Lines")) {
            for message in quoted(&row[2]) {
                let fields = lines.entry((row[1].clone(), message)).or_default();
                fields.extend(quoted(&row[3]));
            }
        }
        Self {
            fields: fields.collect(),
            lines,
        }
    }
}

/// What stands between backquotes.
fn quoted(cell: &str) -> Vec<String> {
    let odd = cell.split('`').skip(1).step_by(2);
    odd.map(str::to_owned).collect()
}

/// Every line that the product's sources can write.
pub(super) fn in_the_sources() -> Lines {
    let mut lines = Lines::new();
    for name in PRODUCT {
        visit(&Path::new(ROOT).join(name).join("src"), &mut lines);
    }
    lines
}

fn visit(folder: &Path, lines: &mut Lines) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, lines);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            read(&std::fs::read_to_string(&path).unwrap(), lines);
        }
    }
}

/// The lines of one source: `tracing::warn!(field, %field, a.b = value, "message")`.
fn read(source: &str, lines: &mut Lines) {
    for call in source.split("tracing::").skip(1) {
        let Some((level, rest)) = call.split_once("!(") else {
            continue;
        };
        if !["error", "warn", "info", "debug", "trace"].contains(&level) {
            continue;
        }
        let mut parts = arguments(rest);
        let message = parts.pop().expect("a message");
        let message = message.trim_matches('"').replace("\\\n", "\n");
        // As the compiler reads a text that goes on in the next line.
        let message = message.lines().map(str::trim_start).collect();
        let fields = lines.entry((level.to_owned(), message)).or_default();
        for part in parts {
            let name = part.split('=').next().unwrap().trim();
            fields.insert(name.trim_start_matches(['%', '?']).replace("r#", ""));
        }
    }
}

/// What stands between commas, up to the end of the call.
fn arguments(rest: &str) -> Vec<String> {
    let (mut parts, mut part, mut depth, mut in_text) = (Vec::new(), String::new(), 0, false);
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => in_text = !in_text,
            '\\' if in_text => {
                part.push(c);
                part.extend(chars.next());
                continue;
            }
            _ if in_text => {}
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(std::mem::take(&mut part).trim().to_owned());
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    parts.push(part.trim().to_owned());
    parts.retain(|part| !part.is_empty());
    parts
}

#[test]
fn a_call_is_read() {
    let mut lines = Lines::new();
    let source = r#"
        tracing::warn!(event.id = %f("a, b)"), event.r#type = 1, %error, "some \
            text, (twice)",);
        tracing::enabled!(Level::DEBUG)
    "#;
    read(source, &mut lines);
    let line = ("warn".to_owned(), "some text, (twice)".to_owned());
    let fields = ["event.id", "event.type", "error"].map(str::to_owned);
    assert_eq!(lines, Lines::from([(line, fields.into())]));
}
