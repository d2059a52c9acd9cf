//! Answers where nothing was done: the key is revoked, or is not any more what the form was made for.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::KeyHead;
use crate::admin::answer::ApiError;
use crate::admin::dashboard::page::{self, Fragment, Page, PageError, Section, marked, status_of};
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

/// Ends a request about a key with which nothing can be done any more, with a page that says so.
pub fn if_revoked(visitor: &Visitor, fragment: Fragment, key: &KeyRecord) -> Result<(), PageError> {
    if key.standing != Standing::Revoked {
        return Ok(());
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
    let answer = page::dialog(StatusCode::CONFLICT, fragment, page, &content)?;
    Err(PageError::Told(Box::new(answer)))
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
