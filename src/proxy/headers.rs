//! Header fields that Sidekey writes and takes away: identity and forwarding fields on what the
//! upstream sees, rate-limit fields on what the client sees.

use http::header::{AUTHORIZATION, COOKIE, HeaderName};
use http::{HeaderMap, HeaderValue};
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use smallvec::SmallVec;

use super::credential::{cookies_without, query_without};
use crate::clock::Timestamp;
use crate::config::settings::{LimitSettings, Source};
use crate::forwarded::X_FORWARDED_FOR;
use crate::limit::{self, LimitFields, Reading};
use crate::verify::KeyView;

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_RATELIMIT: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit"),
    HeaderName::from_static("x-ratelimit-remaining"),
    HeaderName::from_static("x-ratelimit-reset"),
];
/// A request id that a trusted proxy may set has at most this many characters.
const REQUEST_ID_LEN_MAX: usize = 128;

/// Whether `name` is one of the fields by which the upstream knows who calls. Whatever is neither
/// letter nor digit counts as a hyphen: CGI, WSGI and their kin can't tell them apart.
fn is_identity_field(name: &str) -> bool {
    let starts = |field: &str| {
        let folded = |b: u8| if b.is_ascii_alphanumeric() { b } else { b'-' };
        name.len() >= field.len() && name.bytes().zip(field.bytes()).all(|(a, b)| folded(a) == b)
    };
    name.starts_with('x')
        && (starts("x-sidekey-")
            || (name.len() == X_REQUEST_ID.as_str().len() && starts("x-request-id")))
}

/// Takes away every identity field that the client sent.
pub fn remove_identity(request: &mut RequestHeader) {
    // Nearly no request has one: look before anything is copied.
    while let Some(name) = request
        .headers
        .keys()
        .find(|name| is_identity_field(name.as_str()))
        .cloned()
    {
        request.remove_header(&name);
    }
}

/// Whether any field is there that only concerns the connection to the client (RFC 9110, section
/// 7.6.1), or names such fields. Where there is none, nothing has to be taken away.
pub fn has_hop_by_hop(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        matches!(
            name.as_str(),
            "connection"
                | "http2-settings"
                | "keep-alive"
                | "proxy-authenticate"
                | "proxy-authorization"
                | "proxy-connection"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
        )
    })
}

/// Says who calls.
pub fn insert_identity(request: &mut RequestHeader, key: &KeyView) -> Result<()> {
    // Kept as a field, it would take some 80 bytes of every live key, and threads would contend for its count.
    request.insert_header("X-Sidekey-Key-Id", key.id.as_str())?;
    request.insert_header("X-Sidekey-Tenant-Id", key.tenant.field.clone())?;
    request.insert_header("X-Sidekey-Scopes", key.grants.field.clone())
}

/// The request id that a proxy in front has set, if it has the form of one.
pub fn request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(X_REQUEST_ID)?;
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let well_formed =
        (1..=REQUEST_ID_LEN_MAX).contains(&value.len()) && value.as_bytes().iter().all(plain);
    well_formed.then(|| value.clone())
}

/// Appends `peer`, the connection's other end, to `X-Forwarded-For`, so that the upstream still
/// sees it.
pub fn append_forwarded_for(request: &mut RequestHeader, peer: &HeaderValue) -> Result<()> {
    if !request.headers.contains_key(X_FORWARDED_FOR) {
        return request.insert_header("X-Forwarded-For", peer.clone());
    }
    let mut chain: SmallVec<[u8; 64]> = SmallVec::new();
    for line in request.headers.get_all(X_FORWARDED_FOR) {
        chain.extend_from_slice(line.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(peer.as_bytes());
    request.insert_header("X-Forwarded-For", &chain[..])
}

/// Takes the credential away from where `source` had it.
pub fn hide(request: &mut RequestHeader, source: &Source) -> Result<()> {
    match source {
        Source::Bearer | Source::Basic => {
            request.remove_header(&AUTHORIZATION);
        }
        Source::Header(name) => {
            request.remove_header(name);
        }
        Source::Query(name) => hide_query(request, name)?,
        Source::Cookie(name) => hide_cookie(request, name)?,
    }
    Ok(())
}

fn hide_query(request: &mut RequestHeader, name: &str) -> Result<()> {
    let raw = request.raw_path();
    let Some(mark) = raw.iter().position(|b| *b == b'?') else {
        return Ok(());
    };
    let mut target = raw[..mark].to_vec();
    if let Some(rest) = query_without(&raw[mark + 1..], name) {
        target.push(b'?');
        target.extend_from_slice(&rest);
    }
    request.set_raw_path(&target)
}

fn hide_cookie(request: &mut RequestHeader, name: &str) -> Result<()> {
    let lines: Vec<HeaderValue> = request
        .headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|line| cookies_without(line.as_bytes(), name))
        // A part of a field's value is one too.
        .filter_map(|line| HeaderValue::from_bytes(&line).ok())
        .collect();
    request.remove_header(&COOKIE);
    for line in lines {
        request.append_header(COOKIE, line)?;
    }
    Ok(())
}

/// Writes the fields that every answer carries into `lines`: the rate-limit fields of a caller
/// whose limits are known, and the request id. What the upstream says of limits of its own stays,
/// and where it is the stricter one, its `X-RateLimit-*` stay in place of ours.
pub fn write_common(
    response: &mut ResponseHeader,
    settings: &LimitSettings,
    limits: Option<(&LimitFields, &[Reading])>,
    now: Timestamp,
    request_id: &HeaderValue,
    lines: &mut Vec<u8>,
) {
    // Nearly no upstream has any of these fields: one look at the names tells.
    let has_theirs = response.headers.keys().any(|name| {
        let name = name.as_str();
        name.starts_with("x-ratelimit-") || name == X_REQUEST_ID.as_str()
    });
    if let Some((fields, readings)) = limits
        && let Some(closest) = limit::closest(readings)
    {
        if settings.ratelimit_fields {
            fields.write_ratelimit(readings, lines);
        }
        let now_seconds = u64::try_from(now.as_seconds_ceil()).unwrap_or(0);
        if settings.x_ratelimit_fields
            && !(has_theirs && is_stricter(response, fields.quota(closest), closest.remaining))
        {
            if has_theirs {
                for name in &X_RATELIMIT {
                    response.remove_header(name);
                }
            }
            fields.write_x_ratelimit(closest, now_seconds, lines);
        }
    }
    if !(has_theirs && response.headers.contains_key(X_REQUEST_ID)) {
        lines.extend_from_slice(b"X-Request-Id: ");
        lines.extend_from_slice(request_id.as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
}

/// Whether the upstream's own `X-RateLimit-Limit` or `-Remaining` leaves the caller no more than
/// ours would. Where it says several numbers, the least counts.
fn is_stricter(response: &ResponseHeader, limit: u64, remaining: u64) -> bool {
    let least = |name: &HeaderName| {
        let lines = response.headers.get_all(name).iter();
        let texts = lines.filter_map(|value| value.to_str().ok());
        texts
            .flat_map(|text| text.split(|c: char| !c.is_ascii_digit()))
            .filter_map(|digits| digits.parse::<u64>().ok())
            .min()
    };
    least(&X_RATELIMIT[0]).is_some_and(|theirs| theirs < limit)
        || least(&X_RATELIMIT[1]).is_some_and(|theirs| theirs <= remaining)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Policy;
    use std::sync::Arc;

    fn request(target: &str, lines: &[(&'static str, &'static str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        for (name, value) in lines {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    #[test]
    fn identity_fields_of_the_client_are_gone_however_they_are_written() {
        let mut request = request(
            "/",
            &[
                ("X-Sidekey-Key-Id", "a"),
                ("x_sidekey_key_id", "b"),
                ("X-SIDEKEY_Scopes", "c"),
                ("X-Sidekey-Anything", "d"),
                ("X-Sidekey-", "d"),
                ("X.Sidekey.Scopes", "d"),
                ("X_Request-ID", "e"),
                ("X-Request-Id", "f"),
                ("X-Request-Idx", "stays"),
                ("Sidekey-Key-Id", "stays"),
            ],
        );
        remove_identity(&mut request);
        let mut names: Vec<&str> = request.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["sidekey-key-id", "x-request-idx"]);
    }

    #[test]
    fn hop_by_hop_fields_are_seen_however_they_are_written() {
        for name in [
            "Connection",
            "KEEP-ALIVE",
            "te",
            "Upgrade",
            "Proxy-Authorization",
        ] {
            assert!(has_hop_by_hop(
                &request("/", &[("A", "b"), (name, "c")]).headers
            ));
        }
        assert!(!has_hop_by_hop(
            &request("/", &[("Host", "a"), ("Te-St", "b")]).headers
        ));
    }

    #[test]
    fn only_plain_request_ids_are_taken_over() {
        for (value, taken) in [
            ("a-1_B.c", true),
            ("", false),
            ("a b", false),
            ("a\"b", false),
        ] {
            let request = request("/", &[]);
            let mut headers = request.headers.clone();
            headers.insert(X_REQUEST_ID, HeaderValue::from_str(value).unwrap());
            assert_eq!(request_id(&headers).is_some(), taken, "{value}");
        }
    }

    #[test]
    fn the_chain_of_proxies_grows() {
        let mut request = request(
            "/",
            &[
                ("X-Forwarded-For", "198.51.100.1"),
                ("x-forwarded-for", "10.0.0.2"),
            ],
        );
        append_forwarded_for(&mut request, &HeaderValue::from_static("10.0.0.3")).unwrap();
        let lines: Vec<_> = request.headers.get_all(X_FORWARDED_FOR).iter().collect();
        assert_eq!(lines, ["198.51.100.1, 10.0.0.2, 10.0.0.3"]);
    }

    #[test]
    fn the_credential_goes_and_the_rest_stays() {
        let mut query = request("/a?b=1&%6bey=s3cret&c=%20", &[]);
        hide(&mut query, &Source::Query("key".into())).unwrap();
        assert_eq!(query.raw_path(), b"/a?b=1&c=%20");
        let mut alone = request("/a?key=s3cret", &[]);
        hide(&mut alone, &Source::Query("key".into())).unwrap();
        assert_eq!(alone.raw_path(), b"/a");
        let mut cookies = request(
            "/",
            &[("Cookie", "a=1; key=s3cret"), ("Cookie", "key=s3cret")],
        );
        hide(&mut cookies, &Source::Cookie("key".into())).unwrap();
        assert_eq!(
            cookies.headers.get_all(COOKIE).iter().collect::<Vec<_>>(),
            ["a=1"]
        );
        let mut bearer = request(
            "/",
            &[("Authorization", "Bearer s3cret"), ("Accept", "*/*")],
        );
        hide(&mut bearer, &Source::Bearer).unwrap();
        assert_eq!(bearer.headers.len(), 1);
    }

    #[test]
    fn the_upstreams_own_limits_are_never_made_more_permissive() {
        let policy = Policy {
            name: "p".into(),
            quota: 10,
            window_seconds: 1,
            burst: None,
        };
        let fields = LimitFields::new(&[Arc::new(policy.clone())]).unwrap();
        let settings = LimitSettings {
            redis: None,
            on_outage: crate::config::settings::OnOutage::Local,
            instances: 1,
            max_lease: std::time::Duration::ZERO,
            default: vec![],
            anonymous: vec![],
            failed_auth: Arc::new(policy),
            max_addresses: 1,
            ratelimit_fields: true,
            x_ratelimit_fields: true,
        };
        let reading = Reading {
            remaining: 7,
            reset_seconds: 1,
            wait_seconds: 0,
            violated: false,
        };
        let now = Timestamp::from_millis(999_100);
        let id = HeaderValue::from_static("id");
        let write = |response: &mut ResponseHeader| {
            let mut lines = Vec::new();
            let limits = Some((&fields, &[reading][..]));
            write_common(response, &settings, limits, now, &id, &mut lines);
            String::from_utf8(lines).unwrap()
        };
        for (theirs, stays) in [
            (["10", "3", "30"], true),
            (["10", "7", "30"], true),
            (["10", "9", "30"], false),
            (["600", "9", "9999999999"], false),
            (["5", "9", "30"], true),
            (["10", "many", "30"], false),
            (["10", "0.5", "30"], true),
            (["10, 10;w=1", "9", "30"], true),
        ] {
            let mut response = ResponseHeader::build(200, None).unwrap();
            for (name, value) in X_RATELIMIT.iter().zip(theirs) {
                response.insert_header(name, value).unwrap();
            }
            response
                .insert_header("RateLimit", "\"theirs\";r=1;t=1")
                .unwrap();
            let lines = write(&mut response);
            let has = |name| response.headers.contains_key(name);
            assert!(has("ratelimit"));
            for name in &X_RATELIMIT {
                assert_eq!(response.headers.contains_key(name), stays, "{theirs:?}");
            }
            assert_eq!(lines.contains("X-RateLimit-Remaining: 7\r\n"), !stays);
            assert!(lines.contains("RateLimit: \"p\";r=7;t=1\r\n"));
        }
        let mut response = ResponseHeader::build(200, None).unwrap();
        assert_eq!(
            write(&mut response),
            "RateLimit-Policy: \"p\";q=10;w=1\r\nRateLimit: \"p\";r=7;t=1\r\n\
             X-RateLimit-Limit: 10\r\nX-RateLimit-Remaining: 7\r\nX-RateLimit-Reset: 1001\r\n\
             X-Request-Id: id\r\n"
        );
        response.insert_header("X-Request-Id", "theirs").unwrap();
        assert!(!write(&mut response).contains("X-Request-Id"));
    }
}
