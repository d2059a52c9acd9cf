//! What the API answers: keys as JSON, and problems.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::api::precondition_failed;
use super::api::schemas::{EnvironmentName, StatusName};
use super::input::FieldError;
use super::request_id;
use crate::clock::Timestamp;
use crate::cluster::Propagation;
use crate::key::format::redact;
use crate::key::{KeyRecord, Policy};
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
#[derive(Debug, Serialize, ToSchema)]
pub struct PropagationBody {
    /// All that may be serving.
    instances: usize,
    /// Those that have confirmed the change.
    confirmed: usize,
    /// The names of those that have not.
    unconfirmed: Vec<String>,
    /// How long the answer waited for them.
    waited_ms: u64,
}

pub fn propagation_json(propagation: &Propagation) -> PropagationBody {
    PropagationBody {
        instances: propagation.instances,
        confirmed: propagation.confirmed(),
        unconfirmed: propagation.unconfirmed.clone(),
        waited_ms: u64::try_from(propagation.waited.as_millis()).unwrap_or(u64::MAX),
    }
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

/// A rate-limit policy: a bucket that holds `burst` tokens and gains `quota` per `window_seconds`, evenly.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._-]{1,64}$")]
    name: String,
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    quota: u64,
    /// `burst` times this is less than 9,007,199,254,740.
    #[schema(minimum = 1, maximum = 31_622_400)]
    window_seconds: u64,
    /// Absent or null: as `quota`.
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    burst: Option<u64>,
}

impl From<&Policy> for RateLimit {
    fn from(policy: &Policy) -> Self {
        RateLimit {
            name: policy.name.clone(),
            quota: policy.quota,
            window_seconds: policy.window_seconds,
            burst: policy.burst,
        }
    }
}

/// An API key: neither a secret nor a hash.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(examples(json!({
    "id": "4fzN8cQ2pLrT", "name": "Orders of ACME", "tenant_id": "acme", "environment": "live",
    "hint": "sk_live_4fzN8cQ2pLrT_...a1B2", "scopes": ["orders:read", "orders:write"],
    "rate_limits": null, "allowed_ips": [], "contact_email": null, "rotation_days": 90, "metadata": {},
    "status": "active", "created_at": "2027-01-01T12:00:00.000Z", "updated_at": "2027-01-01T12:00:00.000Z",
    "expires_at": "2027-12-31T23:59:59.000Z", "revoked_at": null,
    "rotation_due_at": "2027-04-01T12:00:00.000Z", "last_used_at": null, "last_used_ip": null,
})))]
pub struct ApiKey {
    #[schema(pattern = "^[0-9A-Za-z]{12}$")]
    id: String,
    name: String,
    tenant_id: String,
    #[schema(value_type = EnvironmentName, inline)]
    environment: &'static str,
    /// What the key begins and ends with.
    hint: String,
    scopes: Vec<String>,
    /// Null: the deployment's default policies. Empty: no limit.
    #[schema(required = true)]
    rate_limits: Option<Vec<RateLimit>>,
    /// Empty: any address.
    allowed_ips: Vec<String>,
    #[schema(required = true)]
    contact_email: Option<String>,
    rotation_days: u32,
    metadata: Map<String, Value>,
    #[schema(value_type = StatusName, inline)]
    status: &'static str,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// Null: never.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    expires_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    revoked_at: Option<Timestamp>,
    /// When the owner should have replaced the secret.
    #[schema(value_type = String, format = DateTime)]
    rotation_due_at: Timestamp,
    /// Null: never.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    last_used_at: Option<Timestamp>,
    #[schema(required = true)]
    last_used_ip: Option<String>,
}

/// A key as the contract shows it.
pub fn key_json(key: &KeyRecord, now: Timestamp) -> ApiKey {
    let rate_limits = key.rate_limits.as_ref();
    ApiKey {
        id: key.id.to_string(),
        name: key.name.clone(),
        tenant_id: key.tenant_id.to_string(),
        environment: key.environment.as_str(),
        hint: key.hint.clone(),
        scopes: key.scopes.iter().map(ToString::to_string).collect(),
        rate_limits: rate_limits.map(|all| all.iter().map(RateLimit::from).collect()),
        allowed_ips: key.allowed_ips.iter().map(ToString::to_string).collect(),
        contact_email: key.contact_email.clone(),
        rotation_days: key.rotation_days,
        metadata: key.metadata.clone(),
        status: key.status(now).as_str(),
        created_at: key.created_at,
        updated_at: key.updated_at,
        expires_at: key.expires_at,
        revoked_at: key.revoked_at,
        rotation_due_at: key.rotation_due_at(),
        // Counted once usage is tracked.
        last_used_at: None,
        last_used_ip: None,
    }
}
