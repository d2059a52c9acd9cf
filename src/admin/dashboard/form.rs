//! Forms, as they are sent: from a page of ours, by somebody who is signed in. A handler that takes a
//! [`Form`] can't forget to ask.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::origin;
use super::page::PageError;
use super::session::Visitor;
use crate::admin::AdminState;
use crate::admin::answer::ApiError;
use crate::problem::Kind;

/// The media type of what forms send.
const MEDIA_TYPE: &str = "application/x-www-form-urlencoded";
/// Fields of one form; its bytes are limited as those of all bodies of the port.
const FIELDS_MAX: usize = 500;
/// The field with which a form shows that it was made for its session.
const CSRF: &str = "csrf";

/// The fields of a form in their order, and who has sent them.
pub struct Form {
    pub visitor: Visitor,
    pub pairs: Vec<(String, String)>,
}

/// The first value of a field; empty where there is none.
pub fn value<'a>(pairs: &'a [(String, String)], name: &str) -> &'a str {
    let found = pairs.iter().find(|(field, _)| field == name);
    found.map_or("", |(_, value)| value)
}

impl FromRequest<Arc<AdminState>> for Form {
    type Rejection = Response;

    async fn from_request(request: Request, state: &Arc<AdminState>) -> Result<Self, Response> {
        let refuse = |error: ApiError| PageError::from(error).into_response();
        let url = state.dashboard.settings.url.as_deref();
        origin::check(request.headers(), url).map_err(refuse)?;
        let (mut parts, body) = request.into_parts();
        let visitor = Visitor::from_request_parts(&mut parts, state).await?;
        let pairs = pairs(Request::from_parts(parts, body)).await;
        let mut pairs = pairs.map_err(refuse)?;
        let proof = take(&mut pairs, CSRF);
        if proof.is_some_and(|proof| visitor.token.accepts(&proof)) {
            Ok(Form { visitor, pairs })
        } else {
            let detail = "It was made for another session, or is incomplete. Reload the page, and send it again.";
            Err(refuse(origin::untrusted(detail)))
        }
    }
}

/// The fields of a form, whoever sends it.
pub async fn pairs(request: Request) -> Result<Vec<(String, String)>, ApiError> {
    if !is_form(request.headers()) {
        let detail = format!("Send Content-Type: {MEDIA_TYPE}.");
        return Err(ApiError::new(Kind::UnsupportedMediaType, detail));
    }
    let body = Bytes::from_request(request, &()).await;
    let body = body.map_err(|rejection| unread(&rejection))?;
    read(&body)
}

fn is_form(headers: &HeaderMap) -> bool {
    let media_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok()?.split(';').next());
    media_type.is_some_and(|text| text.trim().eq_ignore_ascii_case(MEDIA_TYPE))
}

fn unread(rejection: &BytesRejection) -> ApiError {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        ApiError::new(Kind::BodyTooLarge, "Send less at once.")
    } else {
        ApiError::new(
            Kind::BadRequest,
            "The form could not be read. Send it again.",
        )
    }
}

fn read(body: &[u8]) -> Result<Vec<(String, String)>, ApiError> {
    let mut fields = form_urlencoded::parse(body).into_owned();
    let pairs = fields.by_ref().take(FIELDS_MAX).collect();
    match fields.next() {
        None => Ok(pairs),
        Some(_) => {
            let detail = format!("A form has at most {FIELDS_MAX} fields.");
            Err(ApiError::new(Kind::BadRequest, detail))
        }
    }
}

/// Takes out a field that stands there once; `None` where it does not.
fn take(pairs: &mut Vec<(String, String)>, name: &str) -> Option<String> {
    let mut taken = pairs.extract_if(.., |(field, _)| field == name);
    let (first, second) = (taken.next(), taken.next());
    taken.for_each(drop);
    match (first, second) {
        (Some((_, value)), None) => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order_and_their_repetitions() {
        let pairs = read(b"scopes=a&name=x+y%26z&scopes=b&empty=&bare&").unwrap();
        let shown: Vec<_> = pairs.iter().map(|(n, v)| (&**n, &**v)).collect();
        let expected = [
            ("scopes", "a"),
            ("name", "x y&z"),
            ("scopes", "b"),
            ("empty", ""),
            ("bare", ""),
        ];
        assert_eq!(shown, expected);
        assert_eq!(value(&pairs, "scopes"), "a");
        assert_eq!(value(&pairs, "other"), "");
    }

    #[test]
    fn there_are_only_so_many() {
        let most = "a=1&".repeat(FIELDS_MAX);
        assert_eq!(read(most.as_bytes()).unwrap().len(), FIELDS_MAX);
        let more = read(format!("{most}b=1").as_bytes());
        assert_eq!(more.unwrap_err().problem.kind, Kind::BadRequest);
    }

    #[test]
    fn the_proof_stands_there_once() {
        let mut pairs = read(b"a=1&csrf=x&b=2").unwrap();
        assert_eq!(take(&mut pairs, CSRF).as_deref(), Some("x"));
        assert_eq!(pairs, read(b"a=1&b=2").unwrap());
        assert_eq!(take(&mut pairs, CSRF), None);
        let mut twice = read(b"csrf=x&a=1&csrf=x&csrf=y").unwrap();
        assert_eq!(take(&mut twice, CSRF), None);
        assert_eq!(twice, read(b"a=1").unwrap());
    }

    #[test]
    fn only_what_forms_send_is_read() {
        for (media_type, is_one) in [
            ("application/x-www-form-urlencoded", true),
            ("Application/X-WWW-Form-Urlencoded; charset=UTF-8", true),
            ("application/json", false),
            ("text/plain", false),
            ("multipart/form-data; boundary=x", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, media_type.parse().unwrap());
            assert_eq!(is_form(&headers), is_one, "{media_type}");
        }
        assert!(!is_form(&HeaderMap::new()));
    }
}
