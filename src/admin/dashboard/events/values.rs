//! How values read that the audit log has as JSON.

use serde_json::{Map, Value};

use crate::admin::dashboard::moment::Moment;
use crate::clock::Timestamp;

/// Of one value a page shows this many bytes. What is longer is whole in an export.
const VALUE_LEN_MAX: usize = 2000;

/// A value as people read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub text: String,
    /// Where it is a moment.
    pub moment: Option<Moment>,
    /// Whether it says that there is nothing.
    pub is_nothing: bool,
}

impl Shown {
    fn text(text: String) -> Self {
        let (mut text, is_cut) = shorten(text, VALUE_LEN_MAX);
        if is_cut {
            text.push('…');
        }
        Shown {
            text,
            moment: None,
            is_nothing: false,
        }
    }

    fn nothing() -> Self {
        Shown {
            text: "none".to_owned(),
            moment: None,
            is_nothing: true,
        }
    }
}

/// `text`, or the first `len_max` bytes of it, and whether something is missing.
pub fn shorten(mut text: String, len_max: usize) -> (String, bool) {
    let is_cut = text.len() > len_max;
    if is_cut {
        let end = (0..=len_max).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
    }
    (text, is_cut)
}

/// A member's name as people read it.
pub fn heading(name: &str) -> String {
    let known = match name {
        "presented_key_id" => "key that was named",
        "count" => "calls like this",
        "unrecorded" => "events that there was no room for",
        "omitted_bytes" => "bytes left out",
        "previous_secret_valid_until" => "old secret works until",
        "allowed_ips" => "allowed addresses",
        "max_keys" => "keys at most",
        "rotation_days" => "days between rotations",
        _ => return shorten(name.replace('_', " "), VALUE_LEN_MAX).0,
    };
    known.to_owned()
}

/// The value of the member `name`.
pub fn shown(name: &str, value: &Value) -> Shown {
    match value {
        Value::Null => Shown::nothing(),
        Value::String(text) if text.is_empty() => Shown::nothing(),
        Value::String(text) => of_text(name, text),
        Value::Bool(true) => Shown::text("yes".to_owned()),
        Value::Bool(false) => Shown::text("no".to_owned()),
        Value::Number(number) => Shown::text(number.to_string()),
        Value::Array(items) if items.is_empty() => Shown::nothing(),
        Value::Array(items) => Shown::text(of_items(items)),
        Value::Object(object) if object.is_empty() => Shown::nothing(),
        Value::Object(_) => Shown::text(value.to_string()),
    }
}

fn of_text(name: &str, text: &str) -> Shown {
    let is_time = name.ends_with("_at") || name.ends_with("_until");
    let moment = Timestamp::parse(text).ok().filter(|_| is_time);
    let moment = moment.map(Moment::from);
    match moment {
        Some(moment) => Shown {
            text: moment.text.clone(),
            moment: Some(moment),
            is_nothing: false,
        },
        None => Shown::text(text.to_owned()),
    }
}

fn of_items(items: &[Value]) -> String {
    let texts = items.iter().map(|item| match item {
        Value::String(text) => text.clone(),
        Value::Object(object) => policy(object).unwrap_or_else(|| item.to_string()),
        _ => item.to_string(),
    });
    texts.collect::<Vec<_>>().join(", ")
}

/// A rate limit: `day: 1000 in 86400 s, 50 at once`.
fn policy(object: &Map<String, Value>) -> Option<String> {
    let name = object.get("name")?.as_str()?;
    let number = |name| object.get(name).and_then(Value::as_u64);
    let (quota, seconds) = (number("quota")?, number("window_seconds")?);
    let burst = number("burst").filter(|burst| *burst != quota);
    let burst = burst.map_or_else(String::new, |burst| format!(", {burst} at once"));
    Some(format!("{name}: {quota} in {seconds} s{burst}"))
}
