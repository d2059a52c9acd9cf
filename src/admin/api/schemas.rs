//! What the OpenAPI document says of requests, problems and the like. Bodies are read by
//! [`crate::admin::input`], which reports every bad field at once; here stands the same for machines.

// Written down to be described, never built.
#![allow(dead_code)]

use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::usage::UsageCounts;
use crate::admin::answer::{ApiKey, ApiTenant, PropagationBody, RateLimit};
use crate::admin::input::FieldError;

/// Which key.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub struct KeyIdParameter {
    /// The key's id.
    #[param(pattern = "^[0-9A-Za-z]{12}$", example = "4fzN8cQ2pLrT")]
    key_id: String,
}

/// Which version is meant.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct IfMatchParameter {
    /// Only where it still has this version: `*`, or tags as in `ETag`.
    #[param(rename = "If-Match", required = false, example = "\"r7\"")]
    if_match: String,
}

/// What the client calls a call.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct IdempotencyKeyParameter {
    /// What the client calls this call: 1 to 255 printable ASCII characters, best a random UUID, with or
    /// without quotes (draft-ietf-httpapi-idempotency-key-header).
    #[param(
        rename = "Idempotency-Key",
        required = false,
        min_length = 1,
        max_length = 257,
        pattern = "^[ -~]+$",
        example = "\"0b2a7c51-6d5e-4b0f-8f5a-2f8a3f1d9c77\""
    )]
    idempotency_key: String,
}

/// A new key. Members that are absent or null have their defaults.
#[derive(ToSchema)]
#[schema(as = NewKey, examples(json!({
    "name": "Orders of ACME", "tenant_id": "acme", "environment": "live",
    "scopes": ["orders:read", "orders:write"], "expires_at": "2027-12-31T23:59:59Z",
})))]
#[serde(deny_unknown_fields)]
pub struct NewKeyBody {
    /// For people. No control characters.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// Whose key it is. Where a key without `sidekey:admin` makes it, its own tenant is the default and
    /// the only one possible.
    #[schema(
        required = false,
        max_length = 64,
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
    )]
    tenant_id: String,
    #[schema(inline)]
    environment: EnvironmentName,
    /// What it may do: scopes of the catalogue, `name:*` for all below a name, or Sidekey's own.
    #[schema(max_items = 100)]
    scopes: Vec<String>,
    /// Absent or null: the deployment's default policies. Empty: no limit.
    #[schema(max_items = 8)]
    rate_limits: Option<Vec<RateLimit>>,
    /// In the future, with an offset. Absent or null: never.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// Addresses and CIDRs of callers. Absent, null or empty: any.
    #[schema(max_items = 100)]
    allowed_ips: Option<Vec<String>>,
    /// Where reminders go.
    #[schema(max_length = 254, pattern = "^[^\\s<>,;]+@[^\\s<>,;@]+$")]
    contact_email: Option<String>,
    /// After so many days the owner is reminded to replace the secret.
    #[schema(minimum = 1, maximum = 3650, default = 90)]
    rotation_days: Option<u32>,
    /// Anything of the owner's, at most 8 KiB as JSON, without NUL characters.
    metadata: Option<Map<String, Value>>,
}

/// What is to change. Members that are absent stay as they are; null clears what can be cleared.
#[derive(ToSchema)]
#[schema(as = KeyChange, examples(json!({"name": "Orders of ACME, new", "status": "disabled"})))]
#[serde(deny_unknown_fields)]
pub struct KeyChangeBody {
    #[schema(required = false, min_length = 1, max_length = 200)]
    name: String,
    #[schema(required = false, max_items = 100)]
    scopes: Vec<String>,
    /// Null: the deployment's default policies. Empty: no limit.
    #[schema(max_items = 8)]
    rate_limits: Option<Vec<RateLimit>>,
    /// Null: never. A time that is over expires the key at once.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    #[schema(max_items = 100)]
    allowed_ips: Option<Vec<String>>,
    #[schema(max_length = 254, pattern = "^[^\\s<>,;]+@[^\\s<>,;@]+$")]
    contact_email: Option<String>,
    #[schema(minimum = 1, maximum = 3650)]
    rotation_days: Option<u32>,
    metadata: Option<Map<String, Value>>,
    #[schema(required = false, inline)]
    status: SettableStatus,
}

/// How a key's secret is to be replaced.
#[derive(ToSchema)]
#[schema(as = Regeneration, examples(json!({"grace_period_seconds": 86400})))]
#[serde(deny_unknown_fields)]
pub struct RegenerationBody {
    /// So long the old secret works beside the new one.
    #[schema(minimum = 0, maximum = 7_776_000, default = 0)]
    grace_period_seconds: Option<u64>,
}

#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EnvironmentName {
    Live,
    Test,
}

/// Whether it was made here, or existed before.
#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OriginName {
    Minted,
    Imported,
}

/// How it is presented: by itself, or as a user and a password.
#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CredentialName {
    Key,
    Basic,
}

#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SettableStatus {
    Active,
    Disabled,
}

#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum StatusName {
    Active,
    Disabled,
    Expired,
    Revoked,
}

#[derive(ToSchema)]
pub enum SortName {
    #[serde(rename = "created_at")]
    Created,
    #[serde(rename = "-created_at")]
    CreatedDescending,
    #[serde(rename = "name")]
    Name,
    #[serde(rename = "-name")]
    NameDescending,
    #[serde(rename = "last_used_at")]
    LastUsed,
    #[serde(rename = "-last_used_at")]
    LastUsedDescending,
    #[serde(rename = "expires_at")]
    Expires,
    #[serde(rename = "-expires_at")]
    ExpiresDescending,
    #[serde(rename = "rotation_due_at")]
    RotationDue,
    #[serde(rename = "-rotation_due_at")]
    RotationDueDescending,
}

#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum IntervalName {
    Hour,
    Day,
}

/// Which rows of usage are asked for: 1,000 at most.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SpanParameters {
    /// How long a row is.
    #[param(required = false, inline)]
    interval: IntervalName,
    /// Absent: 30 days before `to`, or 24 hours where the interval is an hour.
    #[param(required = false, format = DateTime, example = "2027-01-01T00:00:00Z")]
    from: String,
    /// Absent: now.
    #[param(required = false, format = DateTime, example = "2027-01-31T00:00:00Z")]
    to: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ReadyParameters {
    /// `false`: stores that are away don't count, and are not asked.
    #[param(required = false, default = true)]
    stores: bool,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TenantParameter {
    /// Of that tenant.
    #[param(
        required = false,
        max_length = 64,
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
    )]
    tenant_id: String,
}

/// Which keys a list has: those for which everything holds that is given.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListParameters {
    /// Keys in a page, at most.
    #[param(required = false, minimum = 1, maximum = 1000, default = 50)]
    limit: u32,
    /// The order, absent: `-created_at`. With `-` the greatest comes first. Keys that have no such time come
    /// last.
    #[param(required = false, inline)]
    sort: SortName,
    /// The `next_cursor` of the page before, of the same `sort`. Keys that are made meanwhile don't move it.
    #[param(required = false)]
    cursor: String,
    /// Keys of that tenant.
    #[param(
        required = false,
        max_length = 64,
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
    )]
    tenant_id: String,
    /// What they are now.
    #[param(required = false, inline)]
    status: StatusName,
    #[param(required = false, inline)]
    environment: EnvironmentName,
    /// Part of the name or of the id, in any case.
    #[param(required = false, max_length = 200)]
    q: String,
    /// They expire before that moment, or have expired.
    #[param(required = false, format = DateTime, example = "2027-12-31T00:00:00Z")]
    expiring_before: String,
    /// They were made before that moment and not used since.
    #[param(required = false, format = DateTime, example = "2027-01-01T00:00:00Z")]
    unused_since: String,
}

/// A problem (RFC 9457).
#[derive(ToSchema)]
pub struct Problem {
    /// What kind of problem: the same for every occurrence.
    #[schema(format = "uri")]
    r#type: String,
    /// The kind in words.
    title: String,
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong with this request, and what to do.
    detail: String,
    /// The same as in `X-Request-Id`, in logs and in the audit log.
    request_id: String,
}

/// A problem with fields or parameters.
#[derive(ToSchema)]
pub struct InvalidFieldsProblem {
    #[serde(flatten)]
    problem: Problem,
    /// Every bad one, at once.
    errors: Vec<FieldProblem>,
}

#[derive(serde::Serialize, ToSchema)]
pub struct FieldProblem {
    /// The name of the field or parameter.
    field: String,
    /// What is wrong with it.
    detail: String,
}

impl From<&FieldError> for FieldProblem {
    fn from(error: &FieldError) -> Self {
        FieldProblem {
            field: error.field.clone(),
            detail: error.detail.clone(),
        }
    }
}

/// How a list is imported.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ImportParameters {
    /// Say what would be done, and do nothing.
    #[param(required = false, default = false)]
    dry_run: bool,
    /// Take keys that could be guessed.
    #[param(required = false, default = false)]
    allow_weak: bool,
}

#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LineStatusName {
    Created,
    Existing,
    WouldCreate,
    Refused,
}

/// A tenant to be: all of it. What is absent is none.
#[derive(ToSchema)]
#[schema(examples(json!({"display_name": "ACME Ltd", "max_keys": 20})))]
#[serde(deny_unknown_fields)]
pub struct TenantBody {
    #[schema(min_length = 1, max_length = 200)]
    display_name: Option<String>,
    #[schema(max_length = 254, pattern = "^[^\\s<>,;]+@[^\\s<>,;@]+$")]
    contact_email: Option<String>,
    /// What all its keys share, besides each key's own limits.
    #[schema(max_items = 8)]
    rate_limits: Option<Vec<RateLimit>>,
    /// How many keys it may have that are not revoked. One that has more keeps them.
    #[schema(maximum = 1_000_000_000)]
    max_keys: Option<u64>,
}

#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TenantStatusName {
    Active,
    Suspended,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub struct TenantIdParameter {
    #[param(
        max_length = 64,
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        example = "acme"
    )]
    tenant_id: String,
}

/// Which tenants a list has: those for which everything holds that is given.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TenantListParameters {
    /// Tenants in a page, at most.
    #[param(required = false, minimum = 1, maximum = 1000, default = 50)]
    limit: u32,
    /// The `next_cursor` of the page before.
    #[param(required = false)]
    cursor: String,
    #[param(required = false, inline)]
    status: TenantStatusName,
    /// Part of the id or of the display name, in any case.
    #[param(required = false, max_length = 200)]
    q: String,
}

/// A page of a list of tenants, ordered by id.
#[derive(serde::Serialize, ToSchema)]
pub struct TenantPageBody {
    pub data: Vec<ApiTenant>,
    /// Where the next page starts; null after the last.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
}

/// The answer to a change of a tenant.
#[derive(serde::Serialize, ToSchema)]
pub struct ChangedTenant {
    #[serde(flatten)]
    pub tenant: ApiTenant,
    pub propagation: PropagationBody,
}

/// A key, and what it was used for over all time.
#[derive(serde::Serialize, ToSchema)]
pub struct ShownKey {
    #[serde(flatten)]
    pub key: ApiKey,
    pub usage: UsageCounts,
}

/// The answer to a change.
#[derive(serde::Serialize, ToSchema)]
pub struct ChangedKey {
    #[serde(flatten)]
    pub key: ApiKey,
    pub propagation: PropagationBody,
}
