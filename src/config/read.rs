//! A TOML table into the raw shape, as far as it goes: one wrong field does not hide the others.

use serde::de::IntoDeserializer;
use toml::{Table, Value};

use super::raw::Raw;
use super::{PROBLEMS_MAX, Problem};

/// Reads `table` into the raw shape. Fields of a wrong type are reported and left at their
/// default, so that the rest can be checked in the same run; unknown fields are reported too.
pub fn read(table: Table, problems: &mut Vec<Problem>) -> Raw {
    let mut value = Value::Table(table);
    for _ in 0..PROBLEMS_MAX {
        let mut unknown = Vec::new();
        let mut track = serde_path_to_error::Track::new();
        let result: Result<Raw, toml::de::Error> = {
            let tracked = serde_path_to_error::Deserializer::new(
                value.clone().into_deserializer(),
                &mut track,
            );
            serde_ignored::deserialize(tracked, |path| unknown.push(path.to_string()))
        };
        match result {
            Ok(raw) => {
                problems.extend(unknown.into_iter().map(|path| {
                    Problem::new(
                        dotted(&path),
                        "there is no such field; config/sidekey.toml shows those there are",
                    )
                }));
                return raw;
            }
            Err(error) => {
                let path = track.path();
                let place = path.to_string();
                // A table that lacks one field often lacks more; one report is enough.
                if problems.last().is_none_or(|last| last.path != place) {
                    problems.push(Problem::new(place, without_value(error.message())));
                }
                if !remove(&mut value, &path) {
                    break;
                }
            }
        }
    }
    Raw::default()
}

/// Serde's message without the value that it found, which may be a secret:
/// `invalid type: string "x", expected u16`.
fn without_value(message: &str) -> String {
    match message.rsplit_once("expected ") {
        Some((_, expected)) => format!("has the wrong type or range; it must be {expected}"),
        None => message.to_owned(),
    }
}

/// `routes.1.path` of serde_ignored as `routes[1].path`.
fn dotted(path: &str) -> String {
    let mut out = String::new();
    for part in path.split('.').filter(|part| *part != "?") {
        if part.bytes().all(|b| b.is_ascii_digit()) {
            out.push_str(&format!("[{part}]"));
        } else {
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(part);
        }
    }
    out
}

/// Takes what stands at `path` out of `value`, so that reading can go on without it. A table in a
/// list is emptied instead (the numbers of its neighbours stay true); if that is not enough, or
/// for a text in a list, the whole list goes back to its default.
fn remove(value: &mut Value, path: &serde_path_to_error::Path) -> bool {
    use serde_path_to_error::Segment;
    let segments: Vec<&Segment> = path
        .iter()
        .filter(|segment| !matches!(segment, Segment::Unknown))
        .collect();
    remove_at(value, &segments)
}

fn remove_at(value: &mut Value, path: &[&serde_path_to_error::Segment]) -> bool {
    use serde_path_to_error::Segment;
    let Some((last, before)) = path.split_last() else {
        return false;
    };
    match (last, descend(value, before)) {
        (Segment::Map { key }, Some(Value::Table(table))) => table.remove(key).is_some(),
        (Segment::Seq { index }, Some(Value::Array(list))) => match list.get_mut(*index) {
            Some(Value::Table(entry)) if !entry.is_empty() => {
                entry.clear();
                true
            }
            _ => remove_at(value, before),
        },
        _ => false,
    }
}

fn descend<'a>(
    value: &'a mut Value,
    path: &[&serde_path_to_error::Segment],
) -> Option<&'a mut Value> {
    use serde_path_to_error::Segment;
    path.iter()
        .try_fold(value, |at, segment| match (segment, at) {
            (Segment::Map { key }, Value::Table(table)) => table.get_mut(key),
            (Segment::Seq { index }, Value::Array(list)) => list.get_mut(*index),
            _ => None,
        })
}
