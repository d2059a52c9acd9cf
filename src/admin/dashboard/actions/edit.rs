//! Changing a key: the same form as for a new one, filled in.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::choices::Choices;
use super::create::notices;
use super::flaws::Flaws;
use super::key_form::KeyForm;
use super::refusal;
use super::{KeyHead, Shared, expected};
use crate::admin::AdminState;
use crate::admin::answer::ApiError;
use crate::admin::dashboard::form::{Form, value};
use crate::admin::dashboard::page::{self, Fragment, Page, PageError, Section, marked, status_of};
use crate::admin::dashboard::path::IdText;
use crate::admin::dashboard::session::Visitor;
use crate::admin::dashboard::unconfirmed::done_path;
use crate::admin::operations::keys::{self, Change, Changed};
use crate::manage::Expected;
use crate::problem::Kind;

const TITLE: &str = "Edit the key";

#[derive(Template)]
#[template(path = "keys/edit.html")]
struct EditForm<'a> {
    csrf: &'a str,
    key: KeyHead,
    /// The version that the form was filled in from.
    revision: String,
    form: &'a KeyForm,
    flaws: &'a Flaws,
    notices: Vec<String>,
    choices: &'a Choices,
    is_new: bool,
}

fn form_of(state: &AdminState, change: &Change) -> KeyForm {
    let catalogue = &state.keys.catalogue;
    KeyForm::of_record(&change.record, catalogue, state.clock.now())
}

/// The form, filled in.
pub async fn show(
    State(state): Shared,
    fragment: Fragment,
    visitor: Visitor,
    IdText(id): IdText,
) -> Result<Response, PageError> {
    let change = keys::change(&state, &visitor.caller, &id).await?;
    refusal::if_revoked(&visitor, fragment, &change.record)?;
    let content = EditForm {
        csrf: &visitor.csrf,
        key: KeyHead::new(&change.record, visitor.caller.key_id()),
        revision: change.record.revision.to_string(),
        form: &form_of(&state, &change),
        flaws: &Flaws::default(),
        notices: Vec::new(),
        choices: &Choices::of(&state, change.actor()).await?,
        is_new: false,
    };
    let page = Page::new(&visitor, TITLE, Section::Keys);
    page::dialog(StatusCode::OK, fragment, page, &content)
}

/// Changes the key, or shows the form again.
pub async fn edit(
    State(state): Shared,
    fragment: Fragment,
    IdText(id): IdText,
    Form { visitor, pairs }: Form,
) -> Result<Response, PageError> {
    let change = keys::change(&state, &visitor.caller, &id).await?;
    let (record, actor) = (change.record.clone(), change.actor().clone());
    refusal::if_revoked(&visitor, fragment, &record)?;
    let form = KeyForm::of_pairs(&pairs, state.clock.now());
    let error = match carry_out(&state, change, &form, expected(&pairs)).await {
        Ok(changed) => {
            let path = done_path(record.id, "saved", &changed.propagation);
            return Ok(page::go(fragment, &path));
        }
        Err(error) => error,
    };
    let is_about_the_key = matches!(
        error.problem.kind,
        Kind::PreconditionFailed | Kind::Conflict
    );
    if is_about_the_key {
        return refusal::of_error(&visitor, fragment, &record, "edit", error);
    }
    let order = form.fields();
    let flaws = Flaws::of_error(&error, &order);
    let content = EditForm {
        csrf: &visitor.csrf,
        key: KeyHead::new(&record, visitor.caller.key_id()),
        revision: value(&pairs, "revision").to_owned(),
        form: &form,
        flaws: &flaws,
        notices: notices(&error, &flaws, &order),
        choices: &Choices::of(&state, &actor).await?,
        is_new: false,
    };
    let page = Page::new(&visitor, TITLE, Section::Keys);
    let response = page::dialog(status_of(&error), fragment, page, &content)?;
    Ok(marked(response, &error))
}

async fn carry_out(
    state: &Arc<AdminState>,
    change: Change,
    form: &KeyForm,
    expected: Expected,
) -> Result<Changed, ApiError> {
    // What was touched is told by the key as the form was filled in from it.
    if !expected.admits(change.record.revision) {
        return Err(ApiError::precondition_failed());
    }
    let (body, mut errors) = form.change_body(&form_of(state, &change));
    if errors.is_empty() {
        return change.carry_out(body, expected).await;
    }
    errors.extend(change.read(body).err().unwrap_or_default());
    Err(ApiError::fields(&errors))
}
