//! Creating a key: the form, and what is made of it.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use secrecy::SecretString;

use super::Shared;
use super::choices::Choices;
use super::flaws::Flaws;
use super::issued::{self, Issued};
use super::key_form::KeyForm;
use crate::admin::AdminState;
use crate::admin::access::Actor;
use crate::admin::answer::ApiError;
use crate::admin::dashboard::form::{Form, value};
use crate::admin::dashboard::page::{self, Fragment, Page, PageError, Section, marked, status_of};
use crate::admin::dashboard::session::Visitor;
use crate::admin::operations::keys::{self, Created, Creation};
use crate::audit::entry::hexadecimal;
use crate::problem::Kind;

const TITLE: &str = "Create an API key";
/// Random bytes of what a form calls its sending.
const SENDING_BYTES: usize = 16;
/// What a form may call its sending, at most.
const SENDING_LEN_MAX: usize = 64;

#[derive(Template)]
#[template(path = "keys/create.html")]
struct CreateForm<'a> {
    csrf: &'a str,
    /// However often the form is sent with it, one key is made.
    idempotency_key: &'a str,
    form: &'a KeyForm,
    flaws: &'a Flaws,
    /// What is wrong with no field of the form.
    notices: Vec<String>,
    choices: &'a Choices,
    is_new: bool,
}

/// A name for one sending of a form.
fn new_sending() -> Result<String, ApiError> {
    let mut bytes = [0; SENDING_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| {
        tracing::error!(%error, "there is no randomness");
        ApiError::new(Kind::Internal, "The form can't be made. Try again.")
    })?;
    Ok(hexadecimal(&bytes))
}

/// What the form calls this sending, if it is one of ours.
fn sending(pairs: &[(String, String)]) -> Option<&str> {
    let text = value(pairs, "idempotency_key");
    let is_sound = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (!text.is_empty() && text.len() <= SENDING_LEN_MAX && is_sound).then_some(text)
}

/// The empty form.
pub async fn show(
    State(state): Shared,
    fragment: Fragment,
    visitor: Visitor,
) -> Result<Response, PageError> {
    let creation = keys::creation(&state, &visitor.caller)?;
    let choices = Choices::of(&state, creation.actor()).await?;
    let content = CreateForm {
        csrf: &visitor.csrf,
        idempotency_key: &new_sending()?,
        form: &KeyForm::empty(state.clock.now()),
        flaws: &Flaws::default(),
        notices: Vec::new(),
        choices: &choices,
        is_new: true,
    };
    let page = Page::new(&visitor, TITLE, Section::Keys);
    page::dialog(StatusCode::OK, fragment, page, &content)
}

/// Makes the key, or shows the form again.
pub async fn create(
    State(state): Shared,
    fragment: Fragment,
    Form { visitor, pairs }: Form,
) -> Result<Response, PageError> {
    let creation = keys::creation(&state, &visitor.caller)?;
    let form = KeyForm::of_pairs(&pairs, state.clock.now());
    let actor = creation.actor().clone();
    let sending = sending(&pairs);
    let error = match make(creation, &form, sending).await {
        Ok(created) => {
            let content = issued(&state, &actor, &created).await?;
            return issued::answer(&visitor, fragment, &content);
        }
        Err(error) => error,
    };
    // What was sent may be another wish by now; the same name would be refused for ever.
    let is_used = error.problem.kind == Kind::IdempotencyKeyReused;
    let sending = match sending.filter(|_| !is_used) {
        Some(sending) => sending.to_owned(),
        None => new_sending()?,
    };
    let order = form.fields();
    let flaws = Flaws::of_error(&error, &order);
    let content = CreateForm {
        csrf: &visitor.csrf,
        idempotency_key: &sending,
        form: &form,
        flaws: &flaws,
        notices: notices(&error, &flaws, &order),
        choices: &Choices::of(&state, &actor).await?,
        is_new: true,
    };
    let page = Page::new(&visitor, TITLE, Section::Keys);
    let response = page::dialog(status_of(&error), fragment, page, &content)?;
    Ok(marked(response, &error))
}

/// What is shown of the key. One that was made before may have been changed since.
async fn issued(
    state: &Arc<AdminState>,
    actor: &Actor,
    created: &Created,
) -> Result<Issued, ApiError> {
    if !created.is_repeated {
        return Ok(Issued::of_created(state, created));
    }
    let id = created.key["id"].as_str().unwrap_or_default();
    let key = keys::find(state, actor, id).await?;
    Ok(Issued::of_repeated(state, created, &key))
}

async fn make(
    creation: Creation,
    form: &KeyForm,
    sending: Option<&str>,
) -> Result<Created, ApiError> {
    let (body, mut errors) = form.new_body();
    if errors.is_empty() {
        return creation
            .carry_out(body, sending.map(SecretString::from))
            .await;
    }
    // All that is wrong is told at once.
    errors.extend(creation.read(body).err().unwrap_or_default());
    Err(ApiError::fields(&errors))
}

/// What is told above the form.
pub fn notices(error: &ApiError, flaws: &Flaws, order: &[String]) -> Vec<String> {
    match error.problem.kind {
        Kind::InvalidFields => flaws.others(order),
        Kind::IdempotencyKeyReused => vec![
            "This form has made a key already. Send it again to make another one as it is written here."
                .to_owned(),
        ],
        Kind::InsufficientScope => vec![
            "Only an administrator grants Sidekey’s own scopes. Take them out.".to_owned(),
        ],
        _ => vec![error.problem.detail.clone()],
    }
}
