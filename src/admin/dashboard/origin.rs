//! Where a form was sent from. Browsers say it, and no page can make them say something else; so whatever
//! says nothing is no browser of today, and is held to the session's own proof alone.

use axum::http::header::{HOST, HeaderName, ORIGIN};
use axum::http::{HeaderMap, HeaderValue};

use crate::admin::answer::ApiError;
use crate::problem::Kind;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses what another site's page has sent. `url` is how people reach the admin port, where that is
/// known; otherwise it is what their browser called.
pub fn check(headers: &HeaderMap, url: Option<&str>) -> Result<(), ApiError> {
    if is_from_here(headers, url) {
        return Ok(());
    }
    let place = url.map_or_else(String::new, |url| format!(" at {url}"));
    Err(untrusted(format!(
        "It was not sent from a page of this dashboard. Open the dashboard{place}, and send it from there. \
         Where a proxy stands in front of the admin port, dashboard.url has to name what browsers call."
    )))
}

/// A form that was not sent by somebody who saw it here.
pub fn untrusted(detail: impl Into<String>) -> ApiError {
    ApiError::new(Kind::UntrustedForm, detail)
}

fn is_from_here(headers: &HeaderMap, url: Option<&str>) -> bool {
    let is_same_site = |value: &HeaderValue| value == "same-origin" || value == "none";
    let mut origins = headers.get_all(ORIGIN).iter();
    let is_same_origin = match (origins.next(), origins.next()) {
        (None, _) => true,
        (Some(origin), None) => is_ours(origin, headers, url),
        (Some(_), Some(_)) => false,
    };
    is_same_origin && headers.get_all(FETCH_SITE).iter().all(is_same_site)
}

fn is_ours(origin: &HeaderValue, headers: &HeaderMap, url: Option<&str>) -> bool {
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    if let Some(url) = url {
        return origin == url;
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host_of_origin = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    match (host, host_of_origin) {
        (Some(host), Some(of_origin)) => host.eq_ignore_ascii_case(of_origin),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: Option<&str> = Some("https://keys.example.com");

    #[track_caller]
    fn assert_trust(fields: &[(&'static str, &str)], url: Option<&str>, is_trusted: bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        assert_eq!(check(&headers, url).is_ok(), is_trusted, "{fields:?}");
    }

    #[test]
    fn what_says_nothing_is_no_browser() {
        assert_trust(&[("host", "a:1")], None, true);
        assert_trust(&[], URL, true);
    }

    #[test]
    fn an_origin_is_that_of_the_dashboard() {
        for (origin, is_ours) in [
            ("https://keys.example.com", true),
            ("http://keys.example.com", false),
            ("https://keys.example.com:444", false),
            ("https://keys.example.com.evil.example", false),
            ("https://evil.example", false),
            ("null", false),
            ("", false),
        ] {
            let fields = [("host", "127.0.0.1:8081"), ("origin", origin)];
            assert_trust(&fields, URL, is_ours);
        }
        let twice = [
            ("origin", "https://keys.example.com"),
            ("origin", "https://keys.example.com"),
        ];
        assert_trust(&twice, URL, false);
    }

    #[test]
    fn without_a_url_it_is_what_was_called() {
        for (origin, is_ours) in [
            ("http://localhost:8081", true),
            ("https://localhost:8081", true),
            ("http://localhost:8082", false),
            ("http://localhost", false),
            ("ftp://localhost:8081", false),
            ("localhost:8081", false),
            ("null", false),
        ] {
            let fields = [("host", "localhost:8081"), ("origin", origin)];
            assert_trust(&fields, None, is_ours);
        }
        assert_trust(&[("origin", "http://localhost:8081")], None, false);
    }

    #[test]
    fn another_site_is_refused_whatever_origin_it_names() {
        for (site, is_trusted) in [
            ("same-origin", true),
            ("none", true),
            ("same-site", false),
            ("cross-site", false),
            ("", false),
        ] {
            let fields = [
                ("origin", "https://keys.example.com"),
                ("sec-fetch-site", site),
            ];
            assert_trust(&fields, URL, is_trusted);
            assert_trust(&fields[1..], URL, is_trusted);
        }
        let both = [
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "cross-site"),
        ];
        assert_trust(&both, URL, false);
    }
}
