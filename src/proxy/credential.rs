//! Where a request carries its key: finding it, and taking it out of what the upstream sees.
//!
//! A request may carry one credential. Two of them, or one twice, can be read differently by
//! whoever looks next, so that is an error (RFC 6750, section 2).

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderValue};
use smallvec::SmallVec;
use zeroize::Zeroizing;

use crate::config::settings::Source;
use crate::key::format::redact;
use crate::key::{Pair, Presented};
use crate::verify::Offer;

/// A credential in a request.
pub struct Found<'a> {
    pub offer: Offer<'a>,
    /// Which of the configured sources has it.
    pub source: usize,
}

/// More than one credential, or one that stands there twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ambiguous;

/// Finds the credential of a request with these fields and this query.
pub fn find<'a>(
    sources: &[Source],
    headers: &'a HeaderMap,
    query: Option<&'a str>,
) -> Result<Option<Found<'a>>, Ambiguous> {
    let mut found: Option<Found<'a>> = None;
    for (index, source) in sources.iter().enumerate() {
        let key = match source {
            Source::Bearer => bearer(headers)?,
            Source::Basic => None,
            Source::Header(name) => only(headers.get_all(name).iter())?.map(text_of),
            Source::Query(name) => only(query_values(query.unwrap_or_default(), name))?,
            Source::Cookie(name) => only(cookie_values(headers, name))?.map(Cow::Borrowed),
        };
        let offer = match source {
            Source::Basic => authorization(headers, "Basic")?.map(basic),
            _ => key.map(|key| Offer { key, pair: None }),
        };
        if let Some(offer) = offer {
            if found.is_some() {
                return Err(Ambiguous);
            }
            found = Some(Found {
                offer,
                source: index,
            });
        }
    }
    Ok(found)
}

/// Which of the sources hold something that is a key by its form, or by what `may_be_ours` says of a
/// text and of a login, however often. For requests that pass without their credential being checked:
/// what is ours must not go further, what is not stays.
pub fn holders(
    sources: &[Source],
    headers: &HeaderMap,
    query: Option<&str>,
    may_be_ours: impl Fn(&str, Option<&Pair>) -> bool,
) -> SmallVec<[usize; 2]> {
    let is_ours = |text: &str| may_be_ours(text, None);
    let holds = |source: &Source| match source {
        Source::Bearer => {
            headers.get_all(AUTHORIZATION).iter().any(holds_key)
                || in_scheme(headers, "Bearer").any(is_ours)
        }
        Source::Basic => in_scheme(headers, "Basic")
            .map(basic)
            .any(|offer| may_be_ours(&offer.key, offer.pair.as_ref())),
        Source::Header(name) => {
            let mut values = headers.get_all(name).iter();
            values.any(|value| holds_key(value) || is_ours(&text_of(value)))
        }
        Source::Query(name) => {
            query_values(query.unwrap_or_default(), name).any(|value| is_ours(&value))
        }
        Source::Cookie(name) => cookie_values(headers, name).any(is_ours),
    };
    let indexed = sources.iter().enumerate();
    indexed
        .filter(|(_, source)| holds(source))
        .map(|(index, _)| index)
        .collect()
}

fn is_key(text: &str) -> bool {
    Presented::parse(text).is_some()
}

/// Whether a key stands anywhere in the field: behind a scheme, in quotes, before bytes that are no
/// text.
fn holds_key(value: &HeaderValue) -> bool {
    let text = String::from_utf8_lossy(value.as_bytes());
    matches!(redact(&text), Cow::Owned(_))
}

fn only<T>(mut values: impl Iterator<Item = T>) -> Result<Option<T>, Ambiguous> {
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(Ambiguous),
        (first, None) => Ok(first),
    }
}

/// A field's value. One that is not text can't be a key, and is presented as the empty one.
fn text_of(value: &HeaderValue) -> Cow<'_, str> {
    Cow::Borrowed(value.to_str().unwrap_or_default().trim())
}

/// What stands behind `scheme` in the Authorization field.
fn authorization<'a>(headers: &'a HeaderMap, scheme: &str) -> Result<Option<&'a str>, Ambiguous> {
    let Some(value) = only(headers.get_all(AUTHORIZATION).iter())? else {
        return Ok(None);
    };
    Ok(behind_scheme(value, scheme))
}

/// What stands behind `scheme` in each Authorization field.
fn in_scheme<'a>(headers: &'a HeaderMap, scheme: &str) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(AUTHORIZATION).iter();
    values.filter_map(move |value| behind_scheme(value, scheme))
}

fn behind_scheme<'a>(value: &'a HeaderValue, scheme: &str) -> Option<&'a str> {
    let text = value.to_str().ok()?;
    let (name, rest) = text.split_at_checked(scheme.len())?;
    let is_apart = rest.is_empty() || rest.starts_with([' ', '\t']);
    (is_apart && name.eq_ignore_ascii_case(scheme)).then(|| rest.trim())
}

fn bearer(headers: &HeaderMap) -> Result<Option<Cow<'_, str>>, Ambiguous> {
    Ok(authorization(headers, "Bearer")?.map(Cow::Borrowed))
}

/// The key in HTTP Basic (RFC 7617) is the password, or the user name where that is the one that
/// looks like a key or where there is no password. Where neither looks like one, both together may be
/// a login that was imported.
fn basic(encoded: &str) -> Offer<'static> {
    let decoded = STANDARD.decode(encoded).or_else(|_| {
        // Some clients leave the padding out.
        STANDARD_NO_PAD.decode(encoded)
    });
    let text = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = Zeroizing::new(text.unwrap_or_default());
    let (user, password) = text.split_once(':').unwrap_or((text.as_str(), ""));
    let is_user = password.is_empty() || is_key(user);
    let key = if is_user { user } else { password };
    let pair = if is_key(key) {
        None
    } else {
        Pair::parse(&text)
    };
    Offer {
        key: Cow::Owned(key.to_owned()),
        pair,
    }
}

fn query_values<'a>(query: &'a str, name: &str) -> impl Iterator<Item = Cow<'a, str>> {
    form_urlencoded::parse(query.as_bytes())
        .filter(move |(n, _)| n == name)
        .map(|(_, value)| value)
}

/// The values of all cookies called `name`. Other cookies need not be text; a value that is not
/// can't be a key, and is presented as the empty one.
fn cookie_values<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|b| *b == b';'))
        .filter(move |pair| pair.contains(&b'=') && cookie_name(pair) == name.as_bytes())
        .map(|pair| {
            let value = pair.splitn(2, |b| *b == b'=').nth(1).unwrap_or_default();
            let text = std::str::from_utf8(value).unwrap_or_default();
            text.trim().trim_matches('"')
        })
}

fn cookie_name(pair: &[u8]) -> &[u8] {
    let name = pair.split(|b| *b == b'=').next();
    name.unwrap_or_default().trim_ascii()
}

/// `query` without the parameters called `name`, however that name is encoded. What stays keeps
/// its order and its bytes. `None` where nothing stays.
pub fn query_without(query: &[u8], name: &str) -> Option<Vec<u8>> {
    let is_named = |pair: &[u8]| {
        form_urlencoded::parse(pair)
            .next()
            .is_some_and(|(n, _)| n == name)
    };
    let kept: Vec<&[u8]> = query
        .split(|b| *b == b'&')
        .filter(|pair| !is_named(pair))
        .collect();
    (!kept.is_empty()).then(|| kept.join(&b'&'))
}

/// A Cookie field without the cookie called `name`; the values of the others keep their bytes.
/// `None` where nothing stays.
pub fn cookies_without(line: &[u8], name: &str) -> Option<Vec<u8>> {
    let kept: Vec<&[u8]> = line
        .split(|b| *b == b';')
        .map(<[u8]>::trim_ascii)
        .filter(|pair| !pair.is_empty() && cookie_name(pair) != name.as_bytes())
        .collect();
    (!kept.is_empty()).then(|| kept.join(&b"; "[..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    fn all_sources() -> Vec<Source> {
        vec![
            Source::Bearer,
            Source::Basic,
            Source::Header(HeaderName::from_static("x-api-key")),
            Source::Query("api key".into()),
            Source::Cookie("key".into()),
        ]
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn found(lines: &[(&'static str, &str)], query: &str) -> Result<Option<String>, Ambiguous> {
        let headers = headers(lines);
        find(&all_sources(), &headers, Some(query))
            .map(|found| found.map(|f| f.offer.key.into_owned()))
    }

    fn key() -> String {
        use crate::key::{Environment, MintKey, MintKeys};
        use secrecy::ExposeSecret;
        let keys = MintKeys::new(MintKey::new(&[1; 32]), vec![]);
        keys.mint(&"sk".parse().unwrap(), Environment::Live)
            .unwrap()
            .text
            .expose_secret()
            .to_owned()
    }

    #[test]
    fn each_source_is_read() {
        let key = key();
        let basic = |pair: String| format!("Basic {}", STANDARD.encode(pair));
        for (lines, query) in [
            (
                vec![("authorization", format!("Bearer {key}"))],
                String::new(),
            ),
            (
                vec![("authorization", format!("bEARER   {key} "))],
                String::new(),
            ),
            (
                vec![("authorization", basic(format!("user:{key}")))],
                String::new(),
            ),
            (
                vec![("authorization", basic(format!("{key}:")))],
                String::new(),
            ),
            (vec![("authorization", basic(key.clone()))], String::new()),
            (
                vec![("authorization", basic(format!("{key}:x-oauth-basic")))],
                String::new(),
            ),
            (
                vec![("authorization", basic(format!("{key}:")).replace('=', ""))],
                String::new(),
            ),
            (vec![("x-api-key", format!(" {key} "))], String::new()),
            (
                vec![("cookie", format!("a=b; key={key}; c=d"))],
                String::new(),
            ),
            (
                vec![
                    ("cookie", "a=b".to_owned()),
                    ("cookie", format!("key=\"{key}\"")),
                ],
                String::new(),
            ),
            (vec![], format!("a=b&api+key={key}")),
            (vec![], format!("%61pi%20ke%79={}", key.replace('_', "%5F"))),
        ] {
            let lines: Vec<(&'static str, &str)> =
                lines.iter().map(|(n, v)| (*n, v.as_str())).collect();
            assert_eq!(
                found(&lines, &query),
                Ok(Some(key.clone())),
                "{lines:?} {query}"
            );
        }
    }

    #[test]
    fn what_is_no_credential_is_left_alone() {
        for lines in [
            vec![],
            vec![("authorization", "Digest x")],
            vec![("cookie", "akey=1; b")],
        ] {
            assert_eq!(found(&lines, "a=b"), Ok(None), "{lines:?}");
        }
    }

    #[test]
    fn an_empty_credential_is_presented_too() {
        for lines in [
            vec![("authorization", "Bearer")],
            vec![("authorization", "Bearer ")],
            vec![("authorization", "Basic !!!")],
            vec![("x-api-key", "")],
        ] {
            assert_eq!(found(&lines, ""), Ok(Some(String::new())), "{lines:?}");
        }
    }

    #[test]
    fn more_than_one_is_ambiguous() {
        for (lines, query) in [
            (
                vec![("authorization", "Bearer a"), ("authorization", "Bearer a")],
                "",
            ),
            (
                vec![("authorization", "Bearer a"), ("authorization", "Digest b")],
                "",
            ),
            (vec![("authorization", "Bearer a"), ("x-api-key", "b")], ""),
            (vec![("authorization", "Bearer a"), ("x-api-key", "a")], ""),
            (vec![("x-api-key", "a"), ("x-api-key", "b")], ""),
            (vec![("x-api-key", "a")], "api+key=b"),
            (vec![], "api+key=a&api%20key=b"),
            (vec![("cookie", "key=a; key=b")], ""),
        ] {
            assert_eq!(found(&lines, query), Err(Ambiguous), "{lines:?} {query}");
        }
    }

    #[test]
    fn hiding_keeps_the_rest_as_it_came() {
        for (query, rest) in [
            ("key=1", None),
            ("a=b&key=1&c=%20d", Some("a=b&c=%20d")),
            ("%6bey=1&a&&b=", Some("a&&b=")),
            ("key", None),
            ("akey=1", Some("akey=1")),
            ("KEY=1&key=2&key=3", Some("KEY=1")),
        ] {
            let kept = query_without(query.as_bytes(), "key");
            assert_eq!(kept.as_deref(), rest.map(str::as_bytes), "{query}");
        }
        for (line, rest) in [
            ("key=1", None),
            ("a=b; key=1;c=d", Some("a=b; c=d")),
            ("akey=1; key2=3", Some("akey=1; key2=3")),
        ] {
            let kept = cookies_without(line.as_bytes(), "key");
            assert_eq!(kept.as_deref(), rest.map(str::as_bytes), "{line}");
        }
    }

    proptest! {
        #[test]
        fn a_hidden_parameter_is_gone_in_any_encoding(
            value in "[a-z]{1,8}",
            encode in proptest::collection::vec(any::<bool>(), 3),
            before in "[a-z=&%+]{0,10}",
        ) {
            let name: String = "key".chars().zip(&encode)
                .map(|(c, encoded)| if *encoded { format!("%{:02X}", u32::from(c)) } else { c.to_string() })
                .collect();
            let rest = query_without(format!("{before}&{name}={value}").as_bytes(), "key")
                .unwrap_or_default();
            prop_assert!(form_urlencoded::parse(&rest).all(|(n, _)| n != "key"));
        }

        #[test]
        fn no_field_makes_it_panic(authorization in "\\PC{0,40}", cookie in "[ -~]{0,40}", query in "\\PC{0,40}") {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_str(&authorization) {
                headers.append("authorization", value);
            }
            if let Ok(value) = HeaderValue::from_str(&cookie) {
                headers.append("cookie", value);
            }
            let _ = find(&all_sources(), &headers, Some(&query));
        }
    }
}
