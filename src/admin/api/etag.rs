//! Versions of things, and changes of exactly the version that was read (RFC 9110, section 13.1.1).

use axum::http::header::IF_MATCH;
use axum::http::{HeaderMap, HeaderValue};

use crate::admin::answer::ApiError;

/// The strong entity tag of what has this revision.
pub fn etag_of(revision: i64) -> HeaderValue {
    HeaderValue::from_str(&format!("\"r{revision}\"")).unwrap_or(HeaderValue::from_static("\"r\""))
}

/// An error where `If-Match` names other versions than this.
pub fn check_if_match(headers: &HeaderMap, revision: i64) -> Result<(), ApiError> {
    let current = etag_of(revision);
    let names_current = |line: &HeaderValue| {
        line.to_str().is_ok_and(|line| {
            line.split(',')
                .map(str::trim)
                .any(|tag| tag == "*" || tag.as_bytes() == current.as_bytes())
        })
    };
    let mut lines = headers.get_all(IF_MATCH).iter().peekable();
    if lines.peek().is_none() || lines.any(names_current) {
        Ok(())
    } else {
        Err(ApiError::precondition_failed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(lines: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(IF_MATCH, line.parse().unwrap());
        }
        check_if_match(&headers, 7).is_ok()
    }

    #[test]
    fn only_the_current_version_matches() {
        for lines in [
            &[][..],
            &["\"r7\""],
            &["*"],
            &["\"r6\", \"r7\""],
            &["\"r6\"", "\"r7\""],
        ] {
            assert!(matches(lines), "{lines:?}");
        }
        // A weak tag never matches here.
        for lines in [&["\"r6\""][..], &["W/\"r7\""], &["r7"], &[""], &["\"r77\""]] {
            assert!(!matches(lines), "{lines:?}");
        }
    }
}
