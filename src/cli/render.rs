//! What commands show: tables for people, JSON for scripts. Names and details come from others, so
//! nothing in a table may steer the terminal.

use std::borrow::Cow;
use std::io::{ErrorKind, IsTerminal, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde_json::Value;

use super::failure::Failure;
use crate::key::format::is_harmful;

/// Members of a key with members of their own, which have lines of their own.
const PARTS: [&str; 2] = ["previous_secret", "usage"];
/// What stands where there is nothing.
const NONE: &str = "-";

/// A column of a table: its title, and what it shows of an item.
pub struct Column {
    pub title: &'static str,
    pub value: fn(&Value) -> String,
}

/// `text` with every harmful character as its number.
pub fn harmless(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_harmful(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// The same JSON, in which no raw character steers a terminal. They stand in strings only, where an
/// escape means the same; line breaks between members stay.
fn harmless_json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut units = [0u16; 2];
    for c in text.chars() {
        if is_harmful(c) && !matches!(c, '\n' | '\r' | '\t') {
            for unit in c.encode_utf16(&mut units) {
                shown.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Writes to stdout.
pub fn out(text: &str) -> Result<(), Failure> {
    out_bytes(text.as_bytes())
}

/// Writes JSON lines to stdout as they come in pieces, for a terminal line by line.
pub fn out_json_lines() -> impl FnMut(&[u8]) -> Result<(), Failure> {
    let is_terminal = std::io::stdout().is_terminal();
    let mut begun = Vec::new();
    move |bytes| {
        if !is_terminal {
            return out_bytes(bytes);
        }
        begun.extend_from_slice(bytes);
        let end = begun
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let lines: Vec<u8> = begun.drain(..end).collect();
        out(&harmless_json(&String::from_utf8_lossy(&lines)))
    }
}

fn out_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::ClosedPipe,
        _ => Failure::failed(format!("the output can't be written: {error}")),
    })
}

/// Writes a line to stdout.
pub fn line(text: &str) -> Result<(), Failure> {
    out(&format!("{text}\n"))
}

/// Writes JSON to stdout as it was answered, and ends the line.
pub fn json(text: &str) -> Result<(), Failure> {
    if text.is_empty() {
        return Ok(());
    }
    json_part(text)?;
    out("\n")
}

/// Writes a part of a JSON text to stdout.
pub fn json_part(text: &str) -> Result<(), Failure> {
    if std::io::stdout().is_terminal() {
        out(&harmless_json(text))
    } else {
        out(text)
    }
}

fn table() -> Table {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// The lines of a table, without what is blank at their ends.
fn lines(table: &Table) -> String {
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end().strip_prefix(' ').unwrap_or(line.trim_end()));
        text.push('\n');
    }
    text
}

/// A line for each of `items`, below the columns' titles.
pub fn rows(columns: &[Column], items: &[Value]) -> String {
    let mut table = table();
    table.set_header(columns.iter().map(|column| column.title));
    for item in items {
        table.add_row(
            columns
                .iter()
                .map(|column| harmless(&(column.value)(item)).into_owned()),
        );
    }
    lines(&table)
}

/// Every member of an object on a line of its own.
pub fn members(object: &Value) -> String {
    let mut table = table();
    for (name, value) in object.as_object().into_iter().flatten() {
        let label = name.replace('_', " ");
        match value.as_object().filter(|_| PARTS.contains(&name.as_str())) {
            Some(part) => {
                for (name, value) in part {
                    let label = format!("{label} {}", name.replace('_', " "));
                    table.add_row(row(&label, name, value));
                }
            }
            None => {
                table.add_row(row(&label, name, value));
            }
        }
    }
    lines(&table)
}

fn row(label: &str, name: &str, value: &Value) -> [String; 2] {
    [label, &member(name, value)].map(|text| harmless(text).into_owned())
}

fn member(name: &str, value: &Value) -> String {
    match (name, value) {
        ("rate_limits", Value::Null) => "(the defaults)".to_owned(),
        ("rate_limits", Value::Array(policies)) if policies.is_empty() => "(no limit)".to_owned(),
        ("rate_limits", Value::Array(policies)) => {
            policies.iter().map(policy).collect::<Vec<_>>().join(", ")
        }
        ("allowed_ips", Value::Array(items)) if items.is_empty() => "(any)".to_owned(),
        _ => cell(value),
    }
}

/// A policy as it is written in an option: `day:10000/86400s:500`.
fn policy(policy: &Value) -> String {
    let number = |name: &str| cell(&policy[name]);
    let burst = policy["burst"].as_u64();
    let burst = burst.map(|burst| format!(":{burst}")).unwrap_or_default();
    format!(
        "{}:{}/{}s{burst}",
        number("name"),
        number("quota"),
        number("window_seconds")
    )
}

/// A value in a table.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => NONE.to_owned(),
        Value::String(text) if text.is_empty() => NONE.to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => NONE.to_owned(),
        Value::Array(items) if items.iter().all(|item| !item.is_object()) => {
            items.iter().map(cell).collect::<Vec<_>>().join(", ")
        }
        Value::Object(members) if members.is_empty() => NONE.to_owned(),
        Value::Object(members) => {
            let parts = members.iter().map(|(name, value)| match value {
                Value::Array(_) | Value::Object(_) => format!("{name}={value}"),
                _ => format!("{name}={}", cell(value)),
            });
            parts.collect::<Vec<_>>().join(" ")
        }
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_in_a_table_steers_the_terminal() {
        let item = json!({"name": "a\u{1b}[31mred\u{9b}2J\nb\u{202e}c\u{7f}"});
        let columns = [Column {
            title: "NAME",
            value: |item| cell(&item["name"]),
        }];
        for text in [rows(&columns, std::slice::from_ref(&item)), members(&item)] {
            assert!(
                !text.trim_end().replace('\n', "").contains(is_harmful),
                "{text:?}"
            );
            assert!(
                text.contains("a\\u{1b}[31mred\\u{9b}2J\\u{a}b\\u{202e}c\\u{7f}"),
                "{text}"
            );
        }
        // Letters of any language stay.
        assert_eq!(harmless("Größe 日本 🔑"), "Größe 日本 🔑");
    }

    #[test]
    fn json_for_a_terminal_means_the_same() {
        let text = "{\n\"a\": \"x\u{9b}y\u{7f}\u{202e}🔑\"\n}";
        let shown = harmless_json(text);
        assert!(!shown.replace('\n', "").contains(is_harmful), "{shown:?}");
        let (before, after): (Value, Value) = (
            serde_json::from_str(text).unwrap(),
            serde_json::from_str(&shown).unwrap(),
        );
        assert_eq!(before, after);
    }

    #[test]
    fn a_list_has_a_line_for_each_item() {
        let columns = [
            Column {
                title: "ID",
                value: |item| cell(&item["id"]),
            },
            Column {
                title: "SCOPES",
                value: |item| cell(&item["scopes"]),
            },
        ];
        let items = [
            json!({"id": "one", "scopes": ["a:b", "c"]}),
            json!({"id": "twelve", "scopes": []}),
        ];
        assert_eq!(
            rows(&columns, &items),
            "ID      SCOPES\none     a:b, c\ntwelve  -\n"
        );
    }

    #[test]
    fn an_object_has_a_line_for_each_member() {
        let text = members(&json!({
            "id": "x", "expires_at": null, "metadata": {"team": "a b", "n": 3}, "enabled": true,
            "rate_limits": [{"name": "day", "quota": 5, "window_seconds": 60, "burst": 2},
                            {"name": "s", "quota": 1, "window_seconds": 1, "burst": null}],
            "allowed_ips": [],
        }));
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.splitn(2, "  ").map(str::trim).collect())
            .collect();
        assert_eq!(
            lines,
            [
                ["id", "x"],
                ["expires at", "-"],
                ["metadata", "team=a b n=3"],
                ["enabled", "true"],
                ["rate limits", "day:5/60s:2, s:1/1s"],
                ["allowed ips", "(any)"],
            ]
        );
        assert!(members(&json!({"rate_limits": null})).contains("(the defaults)"));
        assert!(members(&json!({"rate_limits": []})).contains("(no limit)"));
    }
}
