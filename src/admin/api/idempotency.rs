//! The `Idempotency-Key` of a request (draft-ietf-httpapi-idempotency-key-header). Must never show the
//! key: it opens what is stored.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::SecretString;

use crate::admin::answer::ApiError;
use crate::problem::Kind;

/// Characters of an idempotency key, at most.
pub const KEY_LEN_MAX: usize = 255;
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer was given before.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// What the client calls a request that it wants to be carried out once.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<SecretString>, ApiError> {
    let mut lines = headers.get_all(IDEMPOTENCY_KEY).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(None),
        (Some(line), None) => read_key(line).map(Some).ok_or_else(malformed),
        (Some(_), Some(_)) => Err(malformed()),
    }
}

fn malformed() -> ApiError {
    ApiError::new(
        Kind::BadRequest,
        format!(
            "Idempotency-Key must be one text of 1 to {KEY_LEN_MAX} printable ASCII characters, with or \
             without quotes, such as a random UUID. Nothing was done."
        ),
    )
}

/// The key of a header field: a string of RFC 9651, or the bare text that many clients send. Both name
/// the same key.
fn read_key(line: &HeaderValue) -> Option<SecretString> {
    let text = line.to_str().ok()?.trim_matches([' ', '\t']);
    let key = match text.strip_prefix('"') {
        Some(rest) => unquoted(rest)?,
        None => text.to_owned(),
    };
    let is_sound = (1..=KEY_LEN_MAX).contains(&key.len())
        && key.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    is_sound.then(|| key.into())
}

/// What stands before the closing quote, which must be the last character.
fn unquoted(rest: &str) -> Option<String> {
    let mut key = String::new();
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => return characters.next().is_none().then_some(key),
            '\\' => match characters.next()? {
                escaped @ ('"' | '\\') => key.push(escaped),
                _ => return None,
            },
            character => key.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn keys_are_read_with_and_without_quotes() {
        let long = "x".repeat(KEY_LEN_MAX);
        let quoted = format!("\"{long}\"");
        for (line, key) in [
            ("abc", "abc"),
            ("\"abc\"", "abc"),
            (" \"a b\" ", "a b"),
            ("a\"b", "a\"b"),
            ("\"a\\\"b\\\\c\"", "a\"b\\c"),
            ("~!*", "~!*"),
            (&long, &long),
            (&quoted, &long),
        ] {
            let read = read_key(&HeaderValue::from_str(line).unwrap());
            assert_eq!(read.unwrap().expose_secret(), key, "{line}");
        }
        let longer = "x".repeat(KEY_LEN_MAX + 1);
        for line in [
            "",
            " ",
            "\"\"",
            "\"abc",
            "\"abc\"d",
            "\"abc\";a=1",
            "\"a\\b\"",
            "a\tb",
            "ä",
            &longer,
        ] {
            let read = read_key(&HeaderValue::from_bytes(line.as_bytes()).unwrap());
            assert!(read.is_none(), "{line}");
        }
    }
}
