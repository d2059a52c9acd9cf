//! What the API answers: keys as JSON, and problems.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::api::schemas::{
    CredentialName, EnvironmentName, OriginName, StatusName, TenantStatusName,
};
use super::input::FieldError;
use super::request_id;
use crate::clock::Timestamp;
use crate::cluster::Propagation;
use crate::key::format::redact;
use crate::key::record::{PreviousSecret, Standing};
use crate::key::{KeyRecord, Policy, TenantRecord};
use crate::manage::{KeyError, TenantError};
use crate::problem::{self, Kind, Problem};
use crate::usage::LastUse;

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

/// The same words where a tenant is not there and where it is another's.
pub const NO_TENANT: &str = "There is no such tenant.";

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

    /// Of what was to be changed there is another version than `If-Match` names.
    pub fn precondition_failed() -> Self {
        ApiError::new(
            Kind::PreconditionFailed,
            "Read it again, and send the change with its ETag in If-Match.",
        )
    }

    fn unavailable() -> Self {
        let mut error = ApiError::new(
            Kind::TemporaryReducedCapacity,
            format!("The operation can't be carried out just now. Try again in {RETRY_SECONDS} s."),
        );
        error.retry_after_seconds = Some(RETRY_SECONDS);
        error
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
            KeyError::TooManyKeys(max) => ApiError::new(
                Kind::TooManyKeys,
                format!(
                    "The tenant may have {max} keys. Revoke one that it doesn't need, or have max_keys raised."
                ),
            ),
            KeyError::IdempotencyKeyReused => ApiError::new(
                Kind::IdempotencyKeyReused,
                "The Idempotency-Key was sent before, with another body. Take a new one for a new request.",
            ),
            KeyError::NotAsExpected => ApiError::precondition_failed(),
            KeyError::Unavailable(cause) => {
                // The cause is for the log alone.
                tracing::error!(error = %cause, "an operation on a key failed");
                ApiError::unavailable()
            }
        }
    }
}

impl From<TenantError> for ApiError {
    fn from(error: TenantError) -> Self {
        match error {
            TenantError::NotFound => ApiError::new(Kind::NotFound, NO_TENANT),
            TenantError::Conflict(detail) => {
                ApiError::new(Kind::Conflict, format!("Nothing was changed: {detail}."))
            }
            TenantError::Unexpected => ApiError::precondition_failed(),
            TenantError::Unavailable(cause) => {
                tracing::error!(error = %cause, "an operation on a tenant failed");
                ApiError::unavailable()
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
        response.extensions_mut().insert(self.problem.kind);
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

/// A secret that was replaced, while it still works.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ReplacedSecret {
    #[schema(value_type = String, format = DateTime)]
    valid_until: Timestamp,
    /// Null: not since it was replaced, as far as is known.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    last_used_at: Option<Timestamp>,
    #[schema(required = true)]
    last_used_ip: Option<String>,
}

fn replaced_secret(key: &KeyRecord, now: Timestamp) -> Option<ReplacedSecret> {
    let works = |old: &PreviousSecret| now < old.valid_until && key.standing != Standing::Revoked;
    key.previous.filter(works).map(|old| ReplacedSecret {
        valid_until: old.valid_until,
        last_used_at: None,
        last_used_ip: None,
    })
}

/// A tenant as the contract shows it.
pub fn tenant_json(tenant: &TenantRecord) -> ApiTenant {
    let settings = &tenant.settings;
    ApiTenant {
        id: tenant.id.to_string(),
        display_name: settings.display_name.clone(),
        contact_email: settings.contact_email.clone(),
        rate_limits: settings.rate_limits.iter().map(RateLimit::from).collect(),
        max_keys: settings.max_keys,
        key_count: tenant.key_count,
        status: tenant.standing.as_str(),
        created_at: tenant.created_at,
        updated_at: tenant.updated_at,
    }
}

/// Whom keys belong to.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(examples(json!({
    "id": "acme", "display_name": "ACME Ltd", "contact_email": "ops@acme.example",
    "rate_limits": [{"name": "all", "quota": 1000, "window_seconds": 60, "burst": null}],
    "max_keys": 20, "key_count": 3, "status": "active",
    "created_at": "2027-01-01T12:00:00.000Z", "updated_at": "2027-01-01T12:00:00.000Z",
})))]
pub struct ApiTenant {
    id: String,
    #[schema(required = true)]
    display_name: Option<String>,
    /// Who is told what concerns all its keys.
    #[schema(required = true)]
    contact_email: Option<String>,
    /// What all its keys share, besides each key's own limits. Empty: nothing.
    rate_limits: Vec<RateLimit>,
    /// Null: as many as it likes.
    #[schema(required = true)]
    max_keys: Option<u64>,
    /// Keys that are not revoked.
    key_count: u64,
    #[schema(value_type = TenantStatusName, inline)]
    status: &'static str,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
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
    "origin": "minted", "credential": "key", "hint": "sk_live_4fzN8cQ2pLrT_...a1B2", "scopes": ["orders:read", "orders:write"],
    "rate_limits": null, "allowed_ips": [], "contact_email": null, "rotation_days": 90, "metadata": {},
    "status": "active", "created_at": "2027-01-01T12:00:00.000Z", "updated_at": "2027-01-01T12:00:00.000Z",
    "expires_at": "2027-12-31T23:59:59.000Z", "revoked_at": null,
    "rotation_due_at": "2027-04-01T12:00:00.000Z", "last_used_at": null, "last_used_ip": null,
    "previous_secret": null,
})))]
pub struct ApiKey {
    #[schema(pattern = "^[0-9A-Za-z]{12}$")]
    id: String,
    name: String,
    tenant_id: String,
    #[schema(value_type = EnvironmentName, inline)]
    environment: &'static str,
    #[schema(value_type = OriginName, inline)]
    origin: &'static str,
    #[schema(value_type = CredentialName, inline)]
    credential: &'static str,
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
    /// While the grace period of a regeneration runs.
    #[schema(required = true)]
    previous_secret: Option<ReplacedSecret>,
}

impl ApiKey {
    /// With the last use of any of its secrets, and that of the one that was replaced.
    pub fn with_uses(mut self, latest: Option<LastUse>, previous: Option<LastUse>) -> Self {
        (self.last_used_at, self.last_used_ip) = shown(latest);
        if let Some(secret) = &mut self.previous_secret {
            (secret.last_used_at, secret.last_used_ip) = shown(previous);
        }
        self
    }
}

fn shown(last: Option<LastUse>) -> (Option<Timestamp>, Option<String>) {
    (
        last.map(|last| last.at),
        last.map(|last| last.address.to_string()),
    )
}

/// A key as the contract shows it, but for its last uses.
pub fn key_json(key: &KeyRecord, now: Timestamp) -> ApiKey {
    let rate_limits = key.rate_limits.as_ref();
    ApiKey {
        id: key.id.to_string(),
        name: key.name.clone(),
        tenant_id: key.tenant_id.to_string(),
        environment: key.environment.as_str(),
        origin: key.origin.as_str(),
        credential: key.credential.as_str(),
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
        last_used_at: None,
        last_used_ip: None,
        previous_secret: replaced_secret(key, now),
    }
}
