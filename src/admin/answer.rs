//! What the API answers: keys as JSON, and problems.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::api::precondition_failed;
use super::input::FieldError;
use super::request_id;
use crate::clock::Timestamp;
use crate::cluster::Propagation;
use crate::key::KeyRecord;
use crate::key::format::redact;
use crate::manage::KeyError;
use crate::problem::{self, Kind, Problem};

/// When to come back after an answer that can't be given now.
const RETRY_SECONDS: u64 = 1;

/// How far a change has come: a dictionary of RFC 9651.
pub const PROPAGATION: &str = "sidekey-propagation";
/// Instances that the field names, at most.
const NAMES_MAX: usize = 20;

/// `instances=4, confirmed=3, unconfirmed=("blue-1")`
pub fn propagation_field(propagation: &Propagation) -> Option<HeaderValue> {
    // Names are plain, so there is nothing to escape.
    let names: Vec<String> = propagation
        .unconfirmed
        .iter()
        .take(NAMES_MAX)
        .map(|name| format!("\"{name}\""))
        .collect();
    let field = format!(
        "instances={}, confirmed={}, unconfirmed=({})",
        propagation.instances,
        propagation.confirmed(),
        names.join(" ")
    );
    HeaderValue::from_str(&field).ok()
}

/// How far a change has come, as a member of a body.
pub fn propagation_json(propagation: &Propagation) -> Value {
    json!({
        "instances": propagation.instances,
        "confirmed": propagation.confirmed(),
        "unconfirmed": propagation.unconfirmed,
        "waited_ms": u64::try_from(propagation.waited.as_millis()).unwrap_or(u64::MAX),
    })
}

/// A problem on its way to the client.
#[derive(Debug)]
pub struct ApiError {
    pub problem: Box<Problem>,
    pub challenge: Option<String>,
    pub retry_after_seconds: Option<u64>,
}

impl ApiError {
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        ApiError {
            problem: Box::new(Problem::new(kind, detail)),
            challenge: None,
            retry_after_seconds: None,
        }
    }

    pub fn not_found() -> Self {
        ApiError::new(Kind::NotFound, "There is no such key.")
    }

    pub fn fields(errors: &[FieldError]) -> Self {
        let list: Vec<Value> = errors
            .iter()
            // Both may quote what was sent, and somebody may have sent a key in the wrong place.
            .map(|error| json!({"field": redact(&error.field), "detail": redact(&error.detail)}))
            .collect();
        let mut error = ApiError::new(
            Kind::InvalidFields,
            "Correct the fields in errors, and send the request again.",
        );
        error
            .problem
            .members
            .insert("errors".to_owned(), list.into());
        error
    }
}

impl From<KeyError> for ApiError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::NotFound => ApiError::not_found(),
            KeyError::Conflict(detail) => {
                ApiError::new(Kind::Conflict, format!("Nothing was changed: {detail}."))
            }
            KeyError::IdempotencyKeyReused => ApiError::new(
                Kind::IdempotencyKeyReused,
                "The Idempotency-Key was sent before, with another body. Take a new one for a new request.",
            ),
            KeyError::NotAsExpected => precondition_failed(),
            KeyError::Unavailable(cause) => {
                // The cause is for the log alone.
                tracing::error!(error = %cause, "an operation on a key failed");
                let mut error = ApiError::new(
                    Kind::TemporaryReducedCapacity,
                    format!(
                        "The operation can't be carried out just now. Try again in {RETRY_SECONDS} s."
                    ),
                );
                error.retry_after_seconds = Some(RETRY_SECONDS);
                error
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.kind.status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = self.problem.body(&request_id::current());
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(problem::MEDIA_TYPE));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(value) = self
            .challenge
            .and_then(|text| HeaderValue::from_str(&text).ok())
        {
            headers.insert(WWW_AUTHENTICATE, value);
        }
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A key as the contract shows it: neither a secret nor a hash.
pub fn key_json(key: &KeyRecord, now: Timestamp) -> Value {
    let texts = |items: &mut dyn Iterator<Item = String>| Value::from(items.collect::<Vec<_>>());
    json!({
        "id": key.id.as_str(),
        "name": key.name,
        "tenant_id": key.tenant_id.as_str(),
        "environment": key.environment.as_str(),
        "hint": key.hint,
        "scopes": texts(&mut key.scopes.iter().map(ToString::to_string)),
        "rate_limits": key.rate_limits,
        "allowed_ips": texts(&mut key.allowed_ips.iter().map(ToString::to_string)),
        "contact_email": key.contact_email,
        "rotation_days": key.rotation_days,
        "metadata": key.metadata,
        "status": key.status(now).as_str(),
        "created_at": key.created_at,
        "updated_at": key.updated_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "rotation_due_at": key.rotation_due_at(),
        // Counted once usage is tracked.
        "last_used_at": Value::Null,
        "last_used_ip": Value::Null,
    })
}
