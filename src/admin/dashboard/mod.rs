//! The dashboard: pages for people, made here and sent whole. Scripts make them more comfortable; without
//! any, everything works as pages and forms.
//!
//! It knows no more than the API does and may do no more: what callers do is in [`super::operations`],
//! who they are in [`super::access`]. Templates, styles and scripts stand in `admin/`.

mod actions;
mod address;
mod assets;
mod audit;
mod chart;
mod cookie;
mod details;
mod events;
mod form;
mod keys;
mod moment;
mod next;
mod origin;
mod overview;
mod page;
mod path;
mod range;
mod session;
mod sessions;
mod sign_in;
mod spark;
pub mod state;
mod token;
mod unconfirmed;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use super::AdminState;
use super::access::Permission;
use super::answer::ApiError;
use crate::problem::Kind;
use page::{Fragment, Frame, PageError};
use session::Visitor;

/// Where people start.
pub const HOME_PATH: &str = "/dashboard";
/// Where keys are.
pub const KEYS_PATH: &str = "/dashboard/settings/developers/api-keys";

/// Where it is told what happens.
pub const OVERVIEW_PATH: &str = "/dashboard/overview";

/// Nothing comes from another host, nothing runs or styles from within a page, nobody frames it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
     trusted-types sidekey",
);

/// What every answer says beside it.
const FIELDS: [(HeaderName, HeaderValue); 5] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    // Not "no-referrer": with it browsers would not name our own origin when they send a form.
    (REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// All pages.
pub fn router() -> Router<Arc<AdminState>> {
    Router::new()
        .route(HOME_PATH, get(home))
        .route("/dashboard/", get(home))
        .route(
            "/dashboard/sign-in",
            get(sign_in::show).post(sign_in::sign_in),
        )
        .route("/dashboard/sign-out", post(sign_in::sign_out))
        .route(KEYS_PATH, get(keys::list::show))
        .route(OVERVIEW_PATH, get(overview::show))
        .route("/dashboard/session", get(sign_in::is_signed_in))
        .merge(audit::routes())
        .route("/dashboard/assets/{version}/{name}", get(assets::serve))
        .route(&format!("{KEYS_PATH}/{{id}}"), get(details::show))
        .route(&format!("{KEYS_PATH}/{{id}}/usage.csv"), get(details::csv))
        .merge(actions::routes())
        .route("/dashboard/{*rest}", get(nothing).post(nothing))
        .method_not_allowed_fallback(other_method)
        .layer(middleware::from_fn(guard))
}

/// Leads to the first section that the visitor may see.
async fn home(visitor: Visitor) -> Response {
    let may = |permission| visitor.caller.holds(permission);
    Redirect::to(match () {
        () if may(Permission::KeysRead) => KEYS_PATH,
        () if may(Permission::UsageRead) => OVERVIEW_PATH,
        () if may(Permission::AuditRead) => audit::AUDIT_PATH,
        // Whoever may do nothing but write keys makes one.
        () => actions::NEW_PATH,
    })
    .into_response()
}

async fn nothing(_: Visitor) -> PageError {
    ApiError::new(Kind::NotFound, "There is nothing at this address.").into()
}

async fn other_method() -> PageError {
    let detail = "This address is used in another way. Open the page again.";
    ApiError::new(Kind::MethodNotAllowed, detail).into()
}

/// Adds what holds for all answers.
async fn guard(fragment: Fragment, mut request: Request, next: Next) -> Response {
    let frame = Frame::default();
    request.extensions_mut().insert(frame.clone());
    let elsewhere = address::without_secrets(request.uri()).filter(|_| request.method().is_safe());
    let answer = match elsewhere {
        // Not for the script to go to: whoever fetches is led on.
        Some(path) => page::go(Fragment(false), &path),
        None => next.run(request).await,
    };
    let mut response = page::dressed(answer, fragment, &frame);
    let headers = response.headers_mut();
    for (name, value) in FIELDS {
        headers.insert(name, value);
    }
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}
