//! Metadata as people write it: `name = value` lines, or a JSON object.

use serde_json::{Map, Value};

/// What a form shows of `metadata`: lines where it is plain texts, JSON otherwise.
pub fn to_text(metadata: &Map<String, Value>) -> String {
    let lines: Option<Vec<String>> = metadata.iter().map(line).collect();
    match lines {
        Some(lines) => lines.join("\n"),
        None => format!("{:#}", Value::Object(metadata.clone())),
    }
}

/// An entry as a line that is read as the same entry.
fn line((name, value): (&String, &Value)) -> Option<String> {
    let value = value.as_str()?;
    let is_plain = |text: &str| text.trim() == text && !text.contains(['\n', '\r']);
    let is_name =
        is_plain(name) && !name.is_empty() && !name.contains('=') && !name.starts_with('{');
    (is_name && is_plain(value)).then(|| format!("{name} = {value}"))
}

/// The metadata that `text` means.
pub fn from_text(text: &str) -> Result<Map<String, Value>, String> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|error| {
            format!(
                "is not JSON: line {}, column {}",
                error.line(),
                error.column()
            )
        });
    }
    let mut metadata = Map::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let number = number + 1;
        let pair = line.split_once('=');
        let (name, value) = pair.ok_or_else(|| format!("has no = in line {number}"))?;
        let name = name.trim();
        if name.is_empty() {
            return Err(format!("has no name in line {number}"));
        }
        let before = metadata.insert(name.to_owned(), value.trim().into());
        if before.is_some() {
            return Err(format!("has the name of line {number} twice"));
        }
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn lines_and_json_are_read() {
        for (text, value) in [
            ("", json!({})),
            (
                "\r\n a=1 \r\n\r\nteam = Orders = good\n",
                json!({"a": "1", "team": "Orders = good"}),
            ),
            (" {\"a\": [1, null]}", json!({"a": [1, null]})),
        ] {
            assert_eq!(from_text(text).unwrap(), map(value), "{text}");
        }
        for text in ["a", "= b", "a=1\na=2", "{", "{}x", "{\"a\"}"] {
            assert!(from_text(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_what_is_meant(
            entries in proptest::collection::btree_map("[ a={\n\"<]{0,5}", "[ a={\r\n\"<]{0,5}", 0..4),
            more in any::<bool>(),
        ) {
            let mut metadata: Map<String, Value> =
                entries.into_iter().map(|(name, value)| (name, value.into())).collect();
            if more {
                metadata.insert("list".to_owned(), json!([1, {"a": null}]));
            }
            prop_assert_eq!(from_text(&to_text(&metadata)).unwrap(), metadata);
        }
    }
}
