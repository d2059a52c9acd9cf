//! Texts of the file that have a form of their own -> settings. An error says what is wrong and
//! what to write instead; `check` adds where it stands.

use std::net::IpAddr;

use http::HeaderName;

use super::settings::{HostPattern, Server, Source};

/// What the specification of OTLP appends to a collector's address.
const OTLP_TRACES_PATH: &str = "/v1/traces";

/// One of `credentials.sources`.
pub fn source(text: &str) -> Result<Source, String> {
    let named = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
    match text.split_once(':') {
        None if text == "bearer" => Ok(Source::Bearer),
        None if text == "basic" => Ok(Source::Basic),
        Some(("header", name)) => match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) if name == http::header::AUTHORIZATION => {
                Err("for the Authorization field use \"bearer\" or \"basic\"".to_owned())
            }
            Ok(name) if [http::header::COOKIE, http::header::HOST].contains(&name) => Err(format!(
                "the {name} field can't carry a key; for a cookie use \"cookie:NAME\""
            )),
            Ok(name) => Ok(Source::Header(name)),
            Err(_) => Err(format!("\"{name}\" is not a header field's name")),
        },
        Some(("query", name)) if named(name) && !name.contains(['&', '=', '%', '+', '#']) => {
            Ok(Source::Query(name.to_owned()))
        }
        Some(("cookie", name)) if named(name) && !name.contains([';', '=', ',', '"']) => {
            Ok(Source::Cookie(name.to_owned()))
        }
        _ => Err(format!(
            "is \"{text}\"; it must be \"bearer\", \"basic\", \"header:NAME\", \"query:NAME\" or \"cookie:NAME\""
        )),
    }
}

/// One of an upstream's `servers`.
pub fn server(text: &str) -> Result<Server, String> {
    if text == "builtin:echo" {
        return Ok(Server::Echo);
    }
    let wrong = || {
        format!("\"{text}\" must be host:port, http://host:port, https://host:port or builtin:echo")
    };
    let (rest, tls, default_port) = if let Some(rest) = text.strip_prefix("https://") {
        (rest, true, Some(443))
    } else if let Some(rest) = text.strip_prefix("http://") {
        (rest, false, Some(80))
    } else {
        (text, false, None)
    };
    let authority: http::uri::Authority = rest
        .strip_suffix('/')
        .unwrap_or(rest)
        .parse()
        .map_err(|_| wrong())?;
    let port = match (authority.port_u16(), default_port) {
        (Some(port), _) if port > 0 => port,
        (None, Some(port)) if authority.port().is_none() => port,
        _ => return Err(wrong()),
    };
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    if host.is_empty() || authority.as_str().contains('@') {
        return Err(wrong());
    }
    Ok(Server::Host {
        host: host.to_owned(),
        port,
        tls,
    })
}

/// A route's `host`.
pub fn host(text: Option<&str>) -> Result<HostPattern, String> {
    let Some(text) = text else {
        return Ok(HostPattern::Any);
    };
    let lower = text.to_ascii_lowercase();
    let (name, wildcard) = match lower.strip_prefix("*.") {
        Some(rest) => (rest, true),
        None => (lower.as_str(), false),
    };
    let is_address = name.parse::<IpAddr>().is_ok();
    let well_formed = !name.is_empty()
        && name.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        });
    if is_address && !wildcard {
        Ok(HostPattern::Exact(name.to_owned()))
    } else if !well_formed {
        Err(format!(
            "\"{text}\" must be a host name without port, such as api.example.com or *.example.com"
        ))
    } else if wildcard {
        Ok(HostPattern::Suffix(format!(".{name}")))
    } else {
        Ok(HostPattern::Exact(name.to_owned()))
    }
}

/// A route's path without the slash at its end.
pub fn path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("\"{text}\" must start with '/'"));
    }
    if text.contains(['*', '{', '?', '#', '%', '\\']) {
        return Err(format!(
            "\"{text}\" is a plain prefix: no wildcards, no query, no percent-encoding; \
             it matches everything below it"
        ));
    }
    let trimmed = text.strip_suffix('/').unwrap_or(text);
    let ambiguous = trimmed
        .split('/')
        .skip(1)
        .any(|segment| segment.is_empty() || segment == "." || segment == "..");
    let plain = text.chars().all(|c| !c.is_control() && c != ' ');
    if ambiguous || !plain {
        return Err(format!(
            "\"{text}\" may not hold empty segments, dot segments, spaces or control characters"
        ));
    }
    Ok(trimmed.to_owned())
}

/// An origin (RFC 6454) as browsers write it.
pub fn origin(text: &str) -> Result<String, String> {
    // Without the text: there may be a password in it.
    let wrong =
        || "must be scheme, host and port alone, such as https://keys.example.com".to_owned();
    let url = web_url(text).ok_or_else(wrong)?;
    if url.path() == "/" {
        Ok(url.origin().ascii_serialization())
    } else {
        Err(wrong())
    }
}

/// What paths are added to: without a slash at its end.
pub fn base_url(text: &str) -> Result<String, String> {
    let url = web_url(text).ok_or_else(|| {
        "must be a URL without login and query, such as https://api.example.com".to_owned()
    })?;
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Where OTLP over HTTP goes: traces have a path of their own below an address.
pub fn otlp_traces(text: &str) -> Result<String, String> {
    let url = web_url(text).ok_or_else(|| {
        "must be a URL without login and query, such as http://127.0.0.1:4318".to_owned()
    })?;
    let base = url.as_str().trim_end_matches('/');
    if base.ends_with(OTLP_TRACES_PATH) {
        Ok(base.to_owned())
    } else {
        Ok(format!("{base}{OTLP_TRACES_PATH}"))
    }
}

/// One with neither login nor query.
fn web_url(text: &str) -> Option<url::Url> {
    let url = url::Url::parse(text).ok()?;
    let is_plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    (matches!(url.scheme(), "http" | "https") && url.has_host() && is_plain).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_browsers_write_it() {
        for (text, written) in [
            ("https://keys.example.com", "https://keys.example.com"),
            ("https://keys.example.com/", "https://keys.example.com"),
            ("HTTPS://Keys.Example.COM:443", "https://keys.example.com"),
            ("http://localhost:8081", "http://localhost:8081"),
            ("http://[::1]:80/", "http://[::1]"),
        ] {
            assert_eq!(origin(text).as_deref(), Ok(written), "{text}");
        }
        for text in [
            "keys.example.com",
            "//keys.example.com",
            "https://",
            "https://keys.example.com/admin",
            "https://keys.example.com/?a",
            "https://keys.example.com/#a",
            "https://user@keys.example.com",
            "ftp://keys.example.com",
            "localhost:8081",
        ] {
            assert!(origin(text).is_err(), "{text}");
        }
    }

    #[test]
    fn traces_have_a_path_of_their_own() {
        for (text, url) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://[::1]:4318/", "http://[::1]:4318/v1/traces"),
            ("https://a.example/otlp", "https://a.example/otlp/v1/traces"),
            ("http://a:4318/v1/traces", "http://a:4318/v1/traces"),
        ] {
            assert_eq!(otlp_traces(text).as_deref(), Ok(url), "{text}");
        }
        for text in [
            "127.0.0.1:4318",
            "grpc://a:4317",
            "http://a/?b",
            "http://u:p@a",
        ] {
            assert!(otlp_traces(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_can_be_added_to_a_base() {
        for (text, base) in [
            ("https://api.example.com/", "https://api.example.com"),
            (
                "https://api.example.com:8443/v1/",
                "https://api.example.com:8443/v1",
            ),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ] {
            assert_eq!(base_url(text).as_deref(), Ok(base), "{text}");
        }
        for text in [
            "api.example.com",
            "https://api.example.com/?v=1",
            "https://a:b@c",
            "",
        ] {
            assert!(base_url(text).is_err(), "{text}");
        }
    }
}
