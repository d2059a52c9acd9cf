//! Which revision of a thing a caller means: `ETag` in answers, `If-Match` in requests (RFC 9110, 8.8.3
//! and 13.1.1).
//!
//! A tag names what is stored of a thing, by its revision. What changes without a write (when a key was
//! last used, that it has expired) has no part in it: nobody loses an edit over that.

use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;

use crate::admin::answer::ApiError;
use crate::manage::Expected;
use crate::problem::Kind;

/// Tags that one request names, at most.
const TAGS_MAX: usize = 32;

/// `"r7"`
pub fn etag_of(revision: i64) -> HeaderValue {
    // Digits are fit for a header, so the fallback is never seen.
    HeaderValue::from_str(&format!("\"r{revision}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// `answer`, with the tag of what it shows.
pub fn tagged(mut answer: Response, revision: i64) -> Response {
    answer.headers_mut().insert(ETAG, etag_of(revision));
    answer
}

/// Refuses a request that means another revision than this one. The write has to hold to
/// [`expected`] as well: somebody may write in between.
pub fn check_if_match(headers: &HeaderMap, revision: i64) -> Result<(), ApiError> {
    if expected(headers)?.admits(revision) {
        Ok(())
    } else {
        Err(ApiError::precondition_failed())
    }
}

/// The revisions that `If-Match` admits.
pub fn expected(headers: &HeaderMap) -> Result<Expected, ApiError> {
    let mut tags = Vec::new();
    let mut is_any = false;
    let mut lines = headers.get_all(IF_MATCH).iter().peekable();
    if lines.peek().is_none() {
        return Ok(Expected::Any);
    }
    for line in lines {
        let text = line.as_bytes().trim_ascii();
        if text == b"*" {
            is_any = true;
        } else {
            read_tags(text, &mut tags).ok_or_else(malformed)?;
        }
    }
    match (is_any, tags.len()) {
        (true, 0) => Ok(Expected::Any),
        (false, 1..=TAGS_MAX) => Ok(Expected::OneOf(
            tags.iter().filter_map(Tag::revision).collect(),
        )),
        _ => Err(malformed()),
    }
}

/// Whether `If-None-Match` says that nothing may be there yet (RFC 9110, 13.1.2). Nobody has to name what
/// he doesn't want to replace, so tags are not taken: they must not be passed over.
pub fn is_only_for_new(headers: &HeaderMap) -> Result<bool, ApiError> {
    let mut lines = headers.get_all(IF_NONE_MATCH).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(false),
        (Some(line), None) if line.as_bytes().trim_ascii() == b"*" => Ok(true),
        _ => Err(ApiError::new(
            Kind::BadRequest,
            "If-None-Match must be * here: only where there is none yet.",
        )),
    }
}

fn malformed() -> ApiError {
    ApiError::new(
        Kind::BadRequest,
        format!(
            "If-Match must be * or 1 to {TAGS_MAX} entity tags, as ETag gives them, such as \"r7\"."
        ),
    )
}

/// An entity tag.
struct Tag<'a> {
    is_weak: bool,
    text: &'a [u8],
}

impl Tag<'_> {
    /// The revision that it names. A weak tag names none: it never matches where one must not be wrong.
    fn revision(&self) -> Option<i64> {
        let digits = std::str::from_utf8(self.text).ok()?.strip_prefix('r')?;
        let revision = digits.parse().ok()?;
        // Only the very text that we write: neither `r+7` nor `r07`.
        let is_ours = !self.is_weak && format!("{revision}") == digits;
        is_ours.then_some(revision)
    }
}

/// Reads `W/"a", "b"`. Empty members count as nothing (RFC 9110, 5.6.1.2); a tag may hold a comma.
fn read_tags<'a>(mut rest: &'a [u8], tags: &mut Vec<Tag<'a>>) -> Option<()> {
    loop {
        while let Some((b' ' | b'\t' | b',', tail)) = rest.split_first() {
            rest = tail;
        }
        if rest.is_empty() {
            return Some(());
        }
        let strong = rest.strip_prefix(b"W/");
        let quoted = strong.unwrap_or(rest).strip_prefix(b"\"")?;
        let end = quoted.iter().position(|byte| *byte == b'"')?;
        let (text, tail) = (&quoted[..end], &quoted[end + 1..]);
        if !text.iter().all(|byte| matches!(byte, 0x21..=0x7e | 0x80..)) || tags.len() >= TAGS_MAX {
            return None;
        }
        tags.push(Tag {
            is_weak: strong.is_some(),
            text,
        });
        rest = tail.trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b",") {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(IF_MATCH, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn the_tag_is_what_it_was_when_it_is_sent_back() {
        let tag = etag_of(7);
        assert_eq!(tag, "\"r7\"");
        let headers = headers(&[tag.to_str().unwrap()]);
        check_if_match(&headers, 7).unwrap();
        let error = check_if_match(&headers, 8).unwrap_err();
        assert_eq!(error.problem.kind, Kind::PreconditionFailed);
    }

    #[test]
    fn stars_and_lists_match_and_weak_tags_never() {
        for (lines, matches) in [
            (&[][..], true),
            (&["*"], true),
            (&[" * "], true),
            (&["\"r7\""], true),
            (&["\"r6\", \"r7\""], true),
            (&["\"r6\",\"r7\""], true),
            (&[", ,\"r7\","], true),
            (&["\"a,b\" , \"r7\""], true),
            (&["\"r6\"", "\"r7\""], true),
            (&["\"r6\""], false),
            (&["W/\"r7\""], false),
            (&["W/\"r7\", \"r6\""], false),
            (&["W/\"r6\", \"r7\""], true),
            (&["\"R7\""], false),
            (&["\"r07\""], false),
            (&["\"r+7\""], false),
            (&["\"7\""], false),
            (&["\"\""], false),
            (&["\"ä\""], false),
        ] {
            let result = check_if_match(&headers(lines), 7);
            assert_eq!(result.is_ok(), matches, "{lines:?}");
            if let Err(error) = result {
                let kind = error.problem.kind;
                assert_eq!(kind, Kind::PreconditionFailed, "{lines:?}");
            }
        }
    }

    #[test]
    fn what_is_no_tag_is_told() {
        let many = vec!["\"r7\""; TAGS_MAX + 1].join(",");
        for lines in [
            &[""][..],
            &[","],
            &["r7"],
            &["7"],
            &["\"r7"],
            &["\"r7\" \"r8\""],
            &["w/\"r7\""],
            &["*, \"r7\""],
            &["*", "\"r7\""],
            &["\"a b\""],
            &[&many],
        ] {
            let error = check_if_match(&headers(lines), 7).unwrap_err();
            assert_eq!(error.problem.kind, Kind::BadRequest, "{lines:?}");
        }
    }
}
