//! A new secret, shown this once: to be copied, saved, and tried.

use std::sync::Arc;

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::details_path;
use super::examples::{self, Example};
use crate::admin::AdminState;
use crate::admin::dashboard::KEYS_PATH;
use crate::admin::dashboard::moment::Moment;
use crate::admin::dashboard::page::{self, Fragment, Page, PageError, Section};
use crate::admin::dashboard::session::Visitor;
use crate::admin::dashboard::unconfirmed::Unconfirmed;
use crate::admin::operations::keys::{Created, Regenerated};
use crate::clock::Timestamp;
use crate::key::record::Generation;
use crate::key::{KeyRecord, ScopePattern, Status};

/// What is shown of a new secret. It has no `Debug`: the secret is in it.
#[derive(Template)]
#[template(path = "keys/issued.html")]
pub struct Issued {
    title: &'static str,
    /// What is read out.
    said: &'static str,
    name: String,
    id: String,
    environment: String,
    secret: String,
    env_file: String,
    file_name: String,
    examples: Vec<Example>,
    done_path: String,
    /// Of a key that was there before.
    replaced: Option<Replaced>,
    /// Of a key that was made by an earlier sending of the form.
    earlier: Option<Earlier>,
}

/// What has become since of the secret that is shown.
struct Earlier {
    made_at: Moment,
    /// Why it does not work any more, or will not for long.
    warning: Option<&'static str>,
}

impl Earlier {
    fn of(key: &KeyRecord, now: Timestamp) -> Self {
        let first = Generation::FIRST;
        let warning = match key.status(now) {
            Status::Revoked => {
                Some("The key is revoked by now: this secret does not work any more.")
            }
            _ if !key.authority().accepts(first, now) => Some(
                "The key was regenerated since, and this secret does not work any more. Only the newer one does.",
            ),
            Status::Expired => Some("The key has expired by now."),
            Status::Disabled => Some("The key is disabled by now."),
            Status::Active if key.generation != first => Some(
                "The key was regenerated since. This is the old secret: it ends soon, so use the newer one.",
            ),
            Status::Active => None,
        };
        Earlier {
            made_at: key.created_at.into(),
            warning,
        }
    }
}

/// What becomes of the secret before.
struct Replaced {
    works_until: Option<Moment>,
    /// Whether its viewer has signed in with it.
    is_own: bool,
    /// Who does not know of the new secret yet, and may take the old one.
    unconfirmed: Option<Unconfirmed>,
}

impl Issued {
    /// A key that was made, as the API shows it.
    pub fn of_created(state: &Arc<AdminState>, created: &Created) -> Self {
        let (key, secret): (&Value, _) = (&created.key, &created.secret);
        let text = |field: &str| key[field].as_str().unwrap_or_default().to_owned();
        let scopes = key["scopes"].as_array().into_iter().flatten();
        let grants = scopes.filter_map(|scope| scope.as_str()?.parse().ok());
        let grants: Vec<ScopePattern> = grants.collect();
        let mut issued = Issued::new(state, &grants, text("name"), text("id"), secret);
        issued.environment = text("environment");
        issued
    }

    /// A key that the same form has made before, as `key` is by now.
    pub fn of_repeated(state: &Arc<AdminState>, created: &Created, key: &KeyRecord) -> Self {
        let mut issued = Issued::of_created(state, created);
        issued.title = "The key was made before";
        issued.said = "This form was sent before, and has made this key then. No other was made.";
        issued.earlier = Some(Earlier::of(key, state.clock.now()));
        issued
    }

    /// A key with a new secret.
    pub fn of_regenerated(state: &Arc<AdminState>, visitor: &Visitor, made: &Regenerated) -> Self {
        let (key, secret) = (&made.key.record, &made.key.text);
        let (name, id) = (key.name.clone(), key.id.to_string());
        let mut issued = Issued::new(state, &key.scopes, name, id, secret);
        issued.title = "The key has a new secret";
        issued.said = "The key has a new secret. Save it now: it is shown this once.";
        issued.environment = key.environment.as_str().to_owned();
        issued.replaced = Some(Replaced {
            works_until: key.previous.map(|old| old.valid_until.into()),
            is_own: key.id == visitor.caller.key_id(),
            unconfirmed: Unconfirmed::of(state, &made.propagation),
        });
        issued
    }

    fn new(
        state: &Arc<AdminState>,
        grants: &[ScopePattern],
        name: String,
        id: String,
        secret: &SecretString,
    ) -> Self {
        let (base, deployment) = (&*state.dashboard.proxy_url, &state.deployment);
        let (path, key) = (deployment.example_path(grants), secret.expose_secret());
        let done_path = id
            .parse()
            .map_or_else(|_| KEYS_PATH.to_owned(), details_path);
        Issued {
            title: "API key created",
            said: "API key created. Save it now: it is shown this once.",
            env_file: examples::environment(base, key),
            file_name: examples::file_name(&name, &id),
            examples: examples::examples(base, path, &deployment.source, key),
            name,
            id,
            environment: String::new(),
            secret: key.to_owned(),
            done_path,
            replaced: None,
            earlier: None,
        }
    }
}

/// The answer that has the secret. No browser and no proxy keeps it: all pages say `no-store`.
pub fn answer(
    visitor: &Visitor,
    fragment: Fragment,
    content: &Issued,
) -> Result<Response, PageError> {
    let page = Page::new(visitor, content.title, Section::Keys);
    page::dialog(StatusCode::OK, fragment, page, content)
}
