//! Answers where nothing was done: the key is revoked, or is not any more what the form was made for.

use askama::Template;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;

use super::KeyHead;
use crate::admin::answer::ApiError;
use crate::admin::dashboard::page::{self, Fragment, Page, PageError, Section};
use crate::admin::dashboard::session::Visitor;
use crate::key::KeyRecord;
use crate::key::record::Standing;
use crate::problem::Kind;

/// Why a dialog has nothing to offer.
#[derive(Template)]
#[template(path = "keys/nothing_done.html")]
struct NothingDone {
    title: &'static str,
    detail: String,
    key: KeyHead,
    /// Where the form can be had as it is now.
    again: Option<String>,
}

/// The status of a problem.
pub fn status_of(error: &ApiError) -> StatusCode {
    let status = StatusCode::from_u16(error.problem.kind.status());
    status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// `response` with what else there is to say of `error`: for whoever notes refusals, and for machines.
pub fn marked(mut response: Response, error: &ApiError) -> Response {
    response.extensions_mut().insert(error.problem.kind);
    if let Some(seconds) = error.retry_after_seconds {
        let headers = response.headers_mut();
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Whether there is nothing to be done any more, and the page that says so.
pub fn of_revoked(
    visitor: &Visitor,
    fragment: Fragment,
    key: &KeyRecord,
) -> Option<Result<Response, PageError>> {
    if key.standing != Standing::Revoked {
        return None;
    }
    let content = NothingDone {
        title: "The key is revoked",
        detail: "It is revoked for good: it can neither be changed nor be given a new secret. \
                 Create a new key where one is needed."
            .to_owned(),
        key: KeyHead::new(key, visitor.caller.key_id()),
        again: None,
    };
    let page = Page::new(visitor, content.title, Section::Keys);
    Some(page::dialog(StatusCode::CONFLICT, fragment, page, &content))
}

/// The answer where `error` kept a form from being carried out: a page about the key for what concerns
/// it, and else that of any failure. `word` says what would have been done twice.
pub fn of_error(
    visitor: &Visitor,
    fragment: Fragment,
    key: &KeyRecord,
    form: &str,
    error: ApiError,
) -> Result<Response, PageError> {
    let (title, detail) = match error.problem.kind {
        Kind::PreconditionFailed => (
            "The key was changed meanwhile",
            "Somebody changed the key after this form was opened, or the form was sent twice. What was \
             sent now has changed nothing. Look at the key as it is."
                .to_owned(),
        ),
        Kind::Conflict => ("Nothing was changed", error.problem.detail.clone()),
        _ => return Err(error.into()),
    };
    let content = NothingDone {
        title,
        detail,
        key: KeyHead::new(key, visitor.caller.key_id()),
        again: Some(format!("{}/{form}", super::details_path(key.id))),
    };
    let page = Page::new(visitor, title, Section::Keys);
    let response = page::dialog(status_of(&error), fragment, page, &content)?;
    Ok(marked(response, &error))
}
