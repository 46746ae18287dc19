//! A report, told to a person: 80 columns, and colours where somebody looks.

use std::io::IsTerminal as _;

use super::report::{Group, Line, Report, Status};
use crate::progress::in_words;

/// Columns of a terminal that nobody has made wider.
const WIDTH: usize = 80;
/// Where a text begins: two spaces, the status, the name.
const INDENT: usize = 2 + 7 + 2 + 12 + 2;

/// Whether to colour: only a terminal, and nobody who minds (<https://no-color.org>).
pub(super) fn wants_colour() -> bool {
    let minds = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal() && !minds
}

pub(super) fn tell(group: &Group, colour: bool) {
    say!("{}", group.name);
    for line in &group.lines {
        for written in written(line, colour) {
            say!("{written}");
        }
    }
    say!();
}

pub(super) fn tell_total(report: &Report) {
    let counted = |status: Status, what: &str| match report.count(status) {
        0 => None,
        1 => Some(format!("1 {what}")),
        many => Some(format!("{many} {what}s")),
    };
    let found: Vec<String> = [
        counted(Status::Problem, "problem"),
        counted(Status::Warning, "warning"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let found = if found.is_empty() {
        "all is well".to_owned()
    } else {
        found.join(", ")
    };
    let skipped = match report.count(Status::Skipped) {
        0 => String::new(),
        many => format!(", {many} skipped"),
    };
    say!("{found}{skipped}, in {}", in_words(report.took));
}

/// The lines of the terminal for one of the report.
fn written(line: &Line, colour: bool) -> Vec<String> {
    let status = format!("{:<7}", line.status.as_str());
    let status = if colour {
        let code = match line.status {
            Status::Ok => "32",
            Status::Skipped => "2",
            Status::Warning => "33",
            Status::Problem => "31",
        };
        format!("\u{1b}[{code}m{status}\u{1b}[0m")
    } else {
        status
    };
    let head = format!("  {status}  {:<12}  ", line.name);
    let indent = " ".repeat(INDENT);
    let mut lines = Vec::new();
    for (place, text) in wrapped(&line.text, WIDTH - INDENT).into_iter().enumerate() {
        let before = if place == 0 { &head } else { &indent };
        lines.push(format!("{before}{text}"));
    }
    for (place, text) in wrapped(line.cure.as_deref().unwrap_or_default(), WIDTH - INDENT - 2)
        .into_iter()
        .enumerate()
    {
        let arrow = if place == 0 { "→ " } else { "  " };
        lines.push(format!("{indent}{arrow}{text}"));
    }
    lines
}

/// A text in lines of `width` characters at most, broken between words, and within one only if it
/// is longer than a line.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut room = 0;
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        if word.len() < room {
            let line = lines.last_mut().expect("a line with room is there");
            line.push(' ');
            line.extend(&word);
            room -= word.len() + 1;
            continue;
        }
        while word.len() > width {
            let rest = word.split_off(width);
            lines.push(word.into_iter().collect());
            word = rest;
        }
        room = width - word.len();
        lines.push(word.into_iter().collect());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_and_never_longer_than_the_width() {
        let text = "one two three four amqp://user:***@a-host-with-a-long-name:5672/%2f end";
        let lines = wrapped(text, 13);
        assert!(
            lines.iter().all(|line| line.chars().count() <= 13),
            "{lines:?}"
        );
        assert_eq!(lines[..2], ["one two three", "four"]);
        assert_eq!(lines.concat().replace(' ', ""), text.replace(' ', ""));
        assert!(wrapped("", 10).is_empty());
    }

    #[test]
    fn a_line_has_its_cure_beneath_it_in_80_columns_and_colour_is_no_width() {
        let line = Line::problem("topology", "queue ".repeat(30), "run ".repeat(30));
        let plain = written(&line, false);
        assert!(
            plain[0].starts_with("  problem  topology      queue queue"),
            "{plain:?}"
        );
        assert!(
            plain.iter().all(|line| line.chars().count() <= WIDTH),
            "{plain:#?}"
        );
        assert!(
            plain
                .iter()
                .any(|line| line.trim_start().starts_with("→ run"))
        );
        let coloured = written(&line, true);
        assert_eq!(coloured[1..], plain[1..]);
        assert!(coloured[0].contains("\u{1b}[31mproblem\u{1b}[0m"));
    }
}
