//! Dialogs that change keys: create, edit, regenerate, revoke, disable, enable, end an old secret. Each is a
//! page of its own as well. What may be done, and whether it was, is found out in
//! [`crate::admin::operations`].

mod choices;
mod create;
mod edit;
mod examples;
mod flaws;
mod issued;
mod key_form;
mod limits;
mod metadata;
mod refusal;
mod regenerate;
mod revoke;
mod standing;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};

use super::KEYS_PATH;
use super::form::value;
use crate::admin::AdminState;
use crate::key::{KeyId, KeyRecord};
use crate::manage::Expected;

type Shared = State<Arc<AdminState>>;

/// Where a key is created.
pub const NEW_PATH: &str = "/dashboard/settings/developers/api-keys/new";

pub fn routes() -> Router<Arc<AdminState>> {
    let one = format!("{KEYS_PATH}/{{id}}");
    Router::new()
        .route(KEYS_PATH, post(create::create))
        .route(NEW_PATH, get(create::show))
        .route(&format!("{one}/edit"), get(edit::show).post(edit::edit))
        .route(
            &format!("{one}/regenerate"),
            get(regenerate::show).post(regenerate::regenerate),
        )
        .route(
            &format!("{one}/revoke"),
            get(revoke::show).post(revoke::revoke),
        )
        .route(
            &format!("{one}/disable"),
            get(standing::show_disable).post(standing::disable),
        )
        .route(
            &format!("{one}/enable"),
            get(standing::show_enable).post(standing::enable),
        )
        .route(
            &format!("{one}/end-overlap"),
            get(standing::show_end_overlap).post(standing::end_overlap),
        )
}

/// The page of a key.
fn details_path(id: KeyId) -> String {
    format!("{KEYS_PATH}/{id}")
}

/// The version that a form was made for. A form that says none may change nothing.
fn expected(pairs: &[(String, String)]) -> Expected {
    Expected::OneOf(value(pairs, "revision").parse().into_iter().collect())
}

/// The version that a form was made for, where it makes a difference only if it says one.
fn expected_if_said(pairs: &[(String, String)]) -> Expected {
    match value(pairs, "revision") {
        "" => Expected::Any,
        _ => expected(pairs),
    }
}

/// What is at the top of every dialog about a key.
struct KeyHead {
    name: String,
    hint: String,
    path: String,
    revision: i64,
    /// Whether it is the key that its viewer has signed in with.
    is_own: bool,
}

impl KeyHead {
    fn new(key: &KeyRecord, viewer: KeyId) -> Self {
        KeyHead {
            name: key.name.clone(),
            hint: key.hint.clone(),
            path: details_path(key.id),
            revision: key.revision,
            is_own: key.id == viewer,
        }
    }
}
