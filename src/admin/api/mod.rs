//! The platform API over HTTP, and the endpoints for machines.

mod audit;
mod audit_schemas;
mod audit_verification;
pub(super) mod cursor;
mod etag;
pub mod extract;
mod idempotency;
mod imports;
mod keys;
mod list;
mod machines;
mod openapi;
mod problems;
pub(super) mod query;
pub mod schemas;
mod tenants;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{delete, get, post};
use serde::Serialize;

use super::AdminState;
use super::answer::{ApiError, PROPAGATION, propagation_field};
use super::{client, counted, dashboard, request_id, watch};
use crate::cluster::Propagation;
use crate::problem::Kind;

/// Where the key API stands.
pub const KEYS_PATH: &str = "/api/v1/platform/api-keys";
/// Where the audit log stands.
const AUDIT_PATH: &str = "/api/v1/platform/audit-events";
/// Where the API of tenants stands.
const TENANTS_PATH: &str = "/api/v1/platform/tenants";
/// Where the usage of tenants and of the platform stands.
pub const USAGE_PATH: &str = "/api/v1/platform/usage";
/// A request's body has at most this many bytes.
const BODY_BYTES_MAX: usize = 64 << 10;
/// How long one request may take, its body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

type Shared = State<Arc<AdminState>>;

/// All routes, and what holds for all requests.
pub fn router(state: &Arc<AdminState>) -> Router<Arc<AdminState>> {
    let mut routes = routes();
    if state.dashboard.settings.is_enabled {
        routes = routes.merge(dashboard::router());
    }
    routes
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(limit_time))
        .layer(middleware::from_fn_with_state(state.clone(), watch::note))
        .layer(middleware::from_fn_with_state(state.clone(), client::find))
        .layer(middleware::from_fn(request_id::assign))
        .layer(middleware::from_fn_with_state(
            state.clone(),
            counted::count,
        ))
}

fn routes() -> Router<Arc<AdminState>> {
    Router::new()
        .merge(key_routes())
        .merge(audit_routes())
        .merge(tenant_routes())
        .merge(usage_routes())
        .merge(machine_routes())
        .merge(openapi::routes())
        .fallback(|| async { ApiError::new(Kind::NotFound, "There is nothing at this path.") })
        .method_not_allowed_fallback(other_method)
}

fn key_routes() -> Router<Arc<AdminState>> {
    let one = format!("{KEYS_PATH}/{{key_id}}");
    Router::new()
        .route(KEYS_PATH, get(list::list).post(keys::create))
        .route(
            &one,
            get(keys::show).patch(keys::change).delete(keys::revoke),
        )
        .route(&format!("{one}/regenerate"), post(keys::regenerate))
        .route(&format!("{one}/previous-secret"), delete(keys::end_overlap))
        .route(&format!("{KEYS_PATH}/import"), imports::route())
}

fn audit_routes() -> Router<Arc<AdminState>> {
    Router::new()
        .route(AUDIT_PATH, get(audit::list))
        .route(&format!("{AUDIT_PATH}/export"), get(audit::export))
        .route(
            &format!("{AUDIT_PATH}/verification"),
            get(audit_verification::verification),
        )
}

fn tenant_routes() -> Router<Arc<AdminState>> {
    let one = format!("{TENANTS_PATH}/{{tenant_id}}");
    Router::new()
        .route(TENANTS_PATH, get(tenants::list))
        .route(&one, get(tenants::show).put(tenants::put))
        .route(&format!("{one}/suspend"), post(tenants::suspend))
        .route(&format!("{one}/resume"), post(tenants::resume))
}

fn usage_routes() -> Router<Arc<AdminState>> {
    Router::new()
        .route(&format!("{KEYS_PATH}/{{key_id}}/usage"), get(usage::of_key))
        .route(USAGE_PATH, get(usage::of_all))
}

fn machine_routes() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/healthz", get(machines::health))
        .route("/readyz", get(machines::ready))
        .route("/metrics", get(machines::metrics))
}

/// What a path can do stands in `Allow`, which the router adds.
async fn other_method(method: Method) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    ApiError::new(Kind::MethodNotAllowed, "Use one of the methods in Allow.").into_response()
}

/// Ends a request whose body does not come.
async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::new(
            Kind::RequestTimeout,
            "Send the whole request without pauses.",
        )
        .into_response(),
    }
}

/// An answer that no cache may keep.
fn private(status: StatusCode, body: impl Serialize) -> Response {
    let mut response = (status, Json(body)).into_response();
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `answer` to a change, with how far that has come.
fn confirmed(mut answer: Response, propagation: &Propagation) -> Response {
    if let Some(field) = propagation_field(propagation) {
        answer.headers_mut().insert(PROPAGATION, field);
    }
    answer
}
