//! The endpoints for machines: readiness and metrics.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::{Shared, private};
use crate::admin::answer::ApiError;
use crate::problem::Kind;

/// Whether this instance can verify keys that it has not seen yet.
pub async fn ready(State(state): Shared) -> Response {
    let (store, secrets) = tokio::join!(state.keys.store.ping(), state.keys.secrets.ping());
    let word = |is_ok: bool| if is_ok { "ok" } else { "away" };
    let is_ready = store.is_ok() && secrets.is_ok();
    let status = if is_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    private(
        status,
        json!({
            "status": word(is_ready),
            "checks": {"database": word(store.is_ok()), "secret_store": word(secrets.is_ok())},
        }),
    )
}

pub async fn metrics(State(state): Shared) -> Response {
    match state.metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics can't be written");
            ApiError::new(Kind::Internal, "The metrics can't be written.").into_response()
        }
    }
}
