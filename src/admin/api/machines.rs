//! The endpoints for machines: readiness and metrics.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::problems::{OpenProblems, OpenQueryProblems};
use super::schemas::ReadyParameters;
use super::{Shared, private, query};
use crate::admin::AdminState;
use crate::admin::answer::ApiError;
use crate::problem::Kind;

/// How long a store may take until it counts as away. Probes wait 3 s, as `sidekey health` does.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// All is well.
const OK: &str = "ok";

#[derive(Serialize, ToSchema)]
pub struct Health {
    #[schema(value_type = Ok, inline)]
    status: &'static str,
}

#[derive(Serialize, ToSchema)]
pub struct Readiness {
    #[schema(value_type = OkOrNot, inline)]
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Checks, required = false)]
    checks: Option<Checks>,
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

#[allow(dead_code)]
#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
enum OkOrNot {
    Ok,
    Away,
    Stopping,
}

/// Whether the process is alive
#[utoipa::path(get, path = "/healthz", tag = "machines", security(()),
    responses((status = 200, body = Health, description = "It is."), OpenProblems))]
pub async fn health() -> Json<Health> {
    Json(Health { status: OK })
}

/// Whether this instance can verify keys that it has not seen yet
///
/// With `stores=false`: whether it takes requests at all. That is the question of a load balancer in
/// front of several instances with the same stores: while these are away all of them can still serve
/// the keys that they know.
#[utoipa::path(get, path = "/readyz", tag = "machines", security(()), params(ReadyParameters),
    responses(
        OpenQueryProblems,
        (status = 200, body = Readiness, description = "It can."),
        (status = 503, body = Readiness, description = "It can't: something that it needs is away, or it is about to stop."),
    ))]
pub async fn ready(
    State(state): Shared,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    let checks = if asks_for_stores(&pairs)? {
        Some(check_stores(&state).await)
    } else {
        None
    };
    let status = if state.is_stopping.load(Ordering::Relaxed) {
        "stopping"
    } else {
        word(checks.as_ref().is_none_or(Checks::are_ok))
    };
    let code = if status == OK {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Ok(private(code, Readiness { status, checks }))
}

fn asks_for_stores(pairs: &[(String, String)]) -> Result<bool, ApiError> {
    let mut stores = true;
    let read = query::read(pairs, |name, value| {
        match name {
            "stores" => stores = query::flag(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    });
    read.map_err(|errors| ApiError::fields(&errors))?;
    Ok(stores)
}

async fn check_stores(state: &AdminState) -> Checks {
    let (store, secrets) = tokio::join!(
        answers(state.keys.store.ping()),
        answers(state.keys.secrets.ping())
    );
    Checks {
        database: word(store),
        secret_store: word(secrets),
    }
}

/// Whether a store answers, and soon enough for who asked.
async fn answers<E>(ping: impl Future<Output = Result<(), E>>) -> bool {
    let answer = tokio::time::timeout(STORE_TIMEOUT, ping).await;
    matches!(answer, Ok(Ok(())))
}

impl Checks {
    fn are_ok(&self) -> bool {
        self.database == OK && self.secret_store == OK
    }
}

fn word(is_ok: bool) -> &'static str {
    if is_ok { OK } else { "away" }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_store_that_says_nothing_counts_as_away() {
        assert!(!answers(std::future::pending::<Result<(), ()>>()).await);
        assert!(!answers(async { Err(()) }).await);
        assert!(answers(async { Ok::<(), ()>(()) }).await);
    }
}
