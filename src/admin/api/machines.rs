//! The endpoints for machines: readiness and metrics.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::problems::OpenProblems;
use super::{Shared, private};
use crate::admin::answer::ApiError;
use crate::problem::Kind;

#[derive(Serialize, ToSchema)]
pub struct Health {
    #[schema(value_type = Ok, inline)]
    status: &'static str,
}

#[derive(Serialize, ToSchema)]
pub struct Readiness {
    #[schema(value_type = OkOrAway, inline)]
    status: &'static str,
    checks: Checks,
}

#[derive(Serialize, ToSchema)]
pub struct Checks {
    #[schema(value_type = OkOrAway, inline)]
    database: &'static str,
    #[schema(value_type = OkOrAway, inline)]
    secret_store: &'static str,
}

#[allow(dead_code)]
#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
enum Ok {
    Ok,
}

#[allow(dead_code)]
#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
enum OkOrAway {
    Ok,
    Away,
}

/// Whether the process is alive
#[utoipa::path(get, path = "/healthz", tag = "machines", security(()),
    responses((status = 200, body = Health, description = "It is."), OpenProblems))]
pub async fn health() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Whether this instance can verify keys that it has not seen yet
#[utoipa::path(get, path = "/readyz", tag = "machines", security(()),
    responses(
        OpenProblems,
        (status = 200, body = Readiness, description = "It can."),
        (status = 503, body = Readiness, description = "It can't: something that it needs is away."),
    ))]
pub async fn ready(State(state): Shared) -> Response {
    let (store, secrets) = tokio::join!(state.keys.store.ping(), state.keys.secrets.ping());
    let word = |is_ok: bool| if is_ok { "ok" } else { "away" };
    let is_ready = store.is_ok() && secrets.is_ok();
    let status = if is_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = Readiness {
        status: word(is_ready),
        checks: Checks {
            database: word(store.is_ok()),
            secret_store: word(secrets.is_ok()),
        },
    };
    private(status, body)
}

/// Metrics for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "machines", security(()),
    responses(
        (status = 200, body = String, content_type = "text/plain", description = "Prometheus's text format."),
        OpenProblems,
    ))]
pub async fn metrics(State(state): Shared) -> Response {
    state.metrics.refresh(state.clock.monotonic_us());
    match state.metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics can't be written");
            ApiError::new(Kind::Internal, "The metrics can't be written.").into_response()
        }
    }
}
