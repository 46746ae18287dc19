//! JSON as it came, with line breaks: nothing is parsed into values and written again, so order,
//! numbers and doubled keys are those of the sender.

/// Spaces for each depth.
const STEP: usize = 2;
/// Most bytes that are shown with line breaks: what is nested to annoy would be a page of spaces.
const MOST: usize = 2 << 20;

/// The same tokens with line breaks; `None` where it is no JSON, or would be too long with them.
pub(crate) fn indented(json: &[u8]) -> Option<String> {
    serde_json::from_slice::<serde::de::IgnoredAny>(json).ok()?;
    let text = std::str::from_utf8(json).ok()?;
    let mut out = String::with_capacity(text.len() * 2);
    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    // What opened last and has nothing in it yet.
    let mut is_empty = false;
    for character in text.chars() {
        if out.len() > MOST {
            return None;
        }
        if in_string {
            out.push(character);
            in_string = is_escaped || character != '"';
            is_escaped = !is_escaped && character == '\\';
            continue;
        }
        match character {
            ' ' | '\t' | '\n' | '\r' => {}
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                if !is_empty {
                    new_line(&mut out, depth);
                }
                is_empty = false;
                out.push(character);
            }
            _ => {
                if is_empty {
                    new_line(&mut out, depth);
                    is_empty = false;
                }
                out.push(character);
                match character {
                    '"' => in_string = true,
                    '{' | '[' => {
                        depth += 1;
                        is_empty = true;
                    }
                    ',' => new_line(&mut out, depth),
                    ':' => out.push(' '),
                    _ => {}
                }
            }
        }
    }
    Some(out)
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', depth * STEP));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_serde_json_writes_it() {
        let value = serde_json::json!({
            "a": [1, 2.5, -3, true, null, [], {}, [[]]],
            "b": {"c": "x, y: {\"z\"} [\\]", "d": {}}, "e": "\\\"", "f": "\\",
        });
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        let compact = value.to_string();
        for text in [&compact, &pretty] {
            assert_eq!(indented(text.as_bytes()).as_deref(), Some(pretty.as_str()));
        }
        assert_eq!(indented(b"\"{\"").as_deref(), Some("\"{\""));
    }

    #[test]
    fn what_was_sent_is_what_is_shown() {
        let sent = br#"{"z":1.10,"a":12345678901234567890123,"z":1e2}"#;
        let shown = "{\n  \"z\": 1.10,\n  \"a\": 12345678901234567890123,\n  \"z\": 1e2\n}";
        assert_eq!(indented(sent).as_deref(), Some(shown));
        for broken in [&b"no JSON"[..], b"", b"{", b"\xff", b"{} {}"] {
            assert_eq!(indented(broken), None);
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(indented(deep.as_bytes()), None, "it would be 20 GB");
        let wide = format!("[{}1]", "1,".repeat(100_000));
        assert!(indented(wide.as_bytes()).is_some());
    }
}
