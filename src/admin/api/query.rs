//! The parameters of a query. All bad ones are named at once: unknown ones, and those that stand there
//! twice, for which of two is meant nobody can know.

use std::collections::HashSet;
use std::fmt::Display;
use std::str::FromStr;

use super::extract::UNKNOWN_PARAMETER;
use crate::admin::input::FieldError;
use crate::clock::Timestamp;
use crate::store::PAGE_LEN_MAX;

/// A search text has at most this many characters.
const SEARCH_LEN_MAX: usize = 200;

/// What is wrong with a parameter's value.
pub type Detail = String;

/// Takes each parameter with `take`, which says `false` where the call has none of that name.
pub fn read(
    pairs: &[(String, String)],
    mut take: impl FnMut(&str, &str) -> Result<bool, Detail>,
) -> Result<(), Vec<FieldError>> {
    let mut errors = Vec::new();
    let mut seen = HashSet::new();
    for (name, value) in pairs {
        let detail = if seen.insert(name) {
            match take(name, value) {
                Ok(true) => continue,
                Ok(false) => UNKNOWN_PARAMETER.to_owned(),
                Err(detail) => detail,
            }
        } else {
            "stands there more than once".to_owned()
        };
        errors.push(FieldError {
            field: name.clone(),
            detail,
        });
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

/// How many things a page is to have.
pub fn page_len(text: &str) -> Result<usize, Detail> {
    let limit = text.parse().ok();
    limit
        .filter(|limit| (1..=PAGE_LEN_MAX).contains(limit))
        .ok_or_else(|| format!("must be 1 to {PAGE_LEN_MAX}"))
}

/// Where a page starts, of what was read of a cursor.
pub fn cursor<T>(read: Option<T>) -> Result<T, Detail> {
    read.ok_or_else(|| "must be the next_cursor of an earlier answer".to_owned())
}

/// An id, or whatever else says itself what is wrong with a text.
pub fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, Detail> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// A text to be searched for.
pub fn search(text: &str) -> Result<String, Detail> {
    if text.chars().count() > SEARCH_LEN_MAX {
        return Err(format!("has more than {SEARCH_LEN_MAX} characters"));
    }
    Ok(text.to_owned())
}

pub fn time(text: &str) -> Result<Timestamp, Detail> {
    Timestamp::parse(text).map_err(|error| error.to_string())
}

pub fn flag(text: &str) -> Result<bool, Detail> {
    parsed(text).map_err(|_| "must be true or false".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bad_parameters_are_named() {
        let text = "limit=1&limit=2&unknown=1&limit=3&from=x&to=1970-01-01T00:00:00Z";
        let pairs: Vec<(String, String)> = form_urlencoded::parse(text.as_bytes())
            .into_owned()
            .collect();
        let mut limit = 0;
        let read = read(&pairs, |name, value| {
            match name {
                "limit" => limit = page_len(value)?,
                "from" | "to" => drop(time(value)?),
                _ => return Ok(false),
            }
            Ok(true)
        });
        let errors = read.err().unwrap_or_default();
        let named: Vec<&str> = errors.iter().map(|error| &*error.field).collect();
        assert_eq!(named, ["limit", "unknown", "limit", "from"]);
        assert_eq!(limit, 1, "the first is not overwritten");
    }

    #[test]
    fn values_are_read_or_refused() {
        assert_eq!((page_len("1000"), flag("true")), (Ok(1000), Ok(true)));
        for text in ["0", "1001", "-1", "x", ""] {
            assert!(page_len(text).is_err() && flag(text).is_err(), "{text}");
        }
        assert!(cursor::<u8>(None).is_err() && cursor(Some(1)) == Ok(1));
    }
}
