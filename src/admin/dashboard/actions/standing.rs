//! Small questions: disable a key, enable it again, end its old secret.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, json};

use super::refusal;
use super::{KeyHead, Shared, expected_if_said};
use crate::admin::dashboard::form::Form;
use crate::admin::dashboard::moment::Moment;
use crate::admin::dashboard::page::{self, Fragment, Page, PageError, Section};
use crate::admin::dashboard::path::IdText;
use crate::admin::dashboard::session::Visitor;
use crate::admin::dashboard::unconfirmed::done_path;
use crate::admin::operations::{Uses, keys};
use crate::key::KeyRecord;
use crate::manage::Expected;

/// A question with one answer.
#[derive(Template)]
#[template(path = "keys/confirm.html")]
struct Question<'a> {
    csrf: &'a str,
    key: KeyHead,
    title: &'static str,
    detail: &'static str,
    /// The last part of the form's address.
    action: &'static str,
    button: &'static str,
    is_dangerous: bool,
    /// When what is about to end was last used, if that is asked.
    last_used: Option<Option<Moment>>,
}

fn ask(
    visitor: &Visitor,
    fragment: Fragment,
    question: &Question<'_>,
) -> Result<Response, PageError> {
    let page = Page::new(visitor, question.title, Section::Keys);
    page::dialog(StatusCode::OK, fragment, page, question)
}

/// Whether a key is to be refused for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Disabled,
    Active,
}

pub async fn show_disable(
    State(state): Shared,
    fragment: Fragment,
    visitor: Visitor,
    IdText(id): IdText,
) -> Result<Response, PageError> {
    let record = keys::change(&state, &visitor.caller, &id).await?.record;
    refusal::if_revoked(&visitor, fragment, &record)?;
    let uses = Uses::of(&state, std::slice::from_ref(&record)).await?;
    let last_used = uses.latest(record.id).map(|last| last.at.into());
    let question = Question {
        csrf: &visitor.csrf,
        key: KeyHead::new(&record, visitor.caller.key_id()),
        title: "Disable the key?",
        detail: "All requests with it are refused from the next one on, until it is enabled again. \
                 Nothing of it is lost.",
        action: "disable",
        button: "Disable the key",
        is_dangerous: true,
        last_used: Some(last_used),
    };
    ask(&visitor, fragment, &question)
}

pub async fn show_enable(
    State(state): Shared,
    fragment: Fragment,
    visitor: Visitor,
    IdText(id): IdText,
) -> Result<Response, PageError> {
    let record = keys::change(&state, &visitor.caller, &id).await?.record;
    refusal::if_revoked(&visitor, fragment, &record)?;
    let question = Question {
        csrf: &visitor.csrf,
        key: KeyHead::new(&record, visitor.caller.key_id()),
        title: "Enable the key?",
        detail: "Requests with it are let through again, with the secret that it has.",
        action: "enable",
        button: "Enable the key",
        is_dangerous: false,
        last_used: None,
    };
    ask(&visitor, fragment, &question)
}

pub async fn show_end_overlap(
    State(state): Shared,
    fragment: Fragment,
    visitor: Visitor,
    IdText(id): IdText,
) -> Result<Response, PageError> {
    let record = keys::ending(&state, &visitor.caller, &id).await?.record;
    refusal::if_revoked(&visitor, fragment, &record)?;
    let uses = Uses::of(&state, std::slice::from_ref(&record)).await?;
    let last_used = uses.of_previous(&record).map(|last| last.at.into());
    let question = Question {
        csrf: &visitor.csrf,
        key: KeyHead::new(&record, visitor.caller.key_id()),
        title: "End the old secret?",
        detail: "Requests with the secret that was replaced are refused from the next one on. \
                 The current secret works as before.",
        action: "end-overlap",
        button: "End the old secret",
        is_dangerous: true,
        last_used: Some(last_used),
    };
    ask(&visitor, fragment, &question)
}

pub async fn disable(
    state: Shared,
    fragment: Fragment,
    id: IdText,
    form: Form,
) -> Result<Response, PageError> {
    set(state, fragment, id, form, Standing::Disabled).await
}

pub async fn enable(
    state: Shared,
    fragment: Fragment,
    id: IdText,
    form: Form,
) -> Result<Response, PageError> {
    set(state, fragment, id, form, Standing::Active).await
}

async fn set(
    State(state): Shared,
    fragment: Fragment,
    IdText(id): IdText,
    Form { visitor, pairs }: Form,
    standing: Standing,
) -> Result<Response, PageError> {
    let change = keys::change(&state, &visitor.caller, &id).await?;
    let record = change.record.clone();
    refusal::if_revoked(&visitor, fragment, &record)?;
    let (status, form, done) = match standing {
        Standing::Disabled => ("disabled", "disable", "disabled"),
        Standing::Active => ("active", "enable", "enabled"),
    };
    let body = Map::from_iter([("status".to_owned(), json!(status))]);
    match change
        .carry_out(body, version(&record, standing, &pairs))
        .await
    {
        Ok(changed) => {
            let path = done_path(record.id, done, &changed.propagation);
            Ok(page::go(fragment, &path))
        }
        Err(error) => refusal::of_error(&visitor, fragment, &record, form, error),
    }
}

/// Which version is meant: any, where the key is already as it is wished, for then nothing is changed.
fn version(key: &KeyRecord, wished: Standing, pairs: &[(String, String)]) -> Expected {
    let is_disabled = key.standing == crate::key::record::Standing::Disabled;
    if is_disabled == (wished == Standing::Disabled) {
        Expected::Any
    } else {
        expected_if_said(pairs)
    }
}

/// Ends the old secret; where there is none any more, nothing happens.
pub async fn end_overlap(
    State(state): Shared,
    fragment: Fragment,
    IdText(id): IdText,
    Form { visitor, .. }: Form,
) -> Result<Response, PageError> {
    let ending = keys::ending(&state, &visitor.caller, &id).await?;
    let record = ending.record.clone();
    refusal::if_revoked(&visitor, fragment, &record)?;
    match ending.end_overlap().await {
        Ok(propagation) => {
            let path = done_path(record.id, "overlap-ended", &propagation);
            Ok(page::go(fragment, &path))
        }
        Err(error) => refusal::of_error(&visitor, fragment, &record, "end-overlap", error),
    }
}
